"""Motion as coefficients of a rig (ARKit's 52 shapes, FLAME's expressions, components of one's own).

Floor plan:

- ``basis``: what the coefficients do to a mesh (:class:`LinearBasis`, ``basis.npz``)
- ``rig``: of a corpus, with its names and rate (:func:`load_rig`, ``coefficients.json``)
- ``controls``: what an actor keeps of it
- ``check``: what is wrong with such motion (``s2f-rl check``)
- files of others: ``tracks`` (:func:`read_track`: CSV, BEAT's JSON, npy, FLAME's npz) and ``livelink``, also written;
  ``convert`` makes a corpus of them (``s2f-rl coefficients``)
- ``arkit``: the names of ARKit's 52
"""
