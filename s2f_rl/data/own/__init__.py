"""Somebody's own face, recordings and motion to a corpus: ``s2f-rl corpus new``.

Floor plan:

- the whole: ``new``
- where the mouth is: ``marks`` (what the user says, paints or lists), ``mouth`` (regions by proportion from its corners
  or from landmarks), ``placement`` (unit and axes)
- ``naming``: utterances, subjects and splits from the names of files; ``motion``: arrays and mesh sequences

Not here: readers of meshes (:mod:`s2f_rl.data.meshes`), pictures of regions (:mod:`s2f_rl.render.regions`).
"""
