"""The built-in corpus: synthetic speech and a procedural face, so that everything runs with no download.

Floor plan:

- the corpus: ``write`` (:func:`synthesize`, :func:`load_take`)
- what is said: ``sentences``, ``phones``, ``voices``, ``speech``, and ``espeak_child``, the process that speaks
- what a phone recogniser is taught on, by other voices: ``pretraining``
- who says it: ``speakers``, and their faces: ``head`` (the shape), ``features`` (where lips, lids and the rest lie on
  it), ``topology`` (vertices and triangles), ``face`` (all of it as one mesh)
- how the face moves: ``visemes`` (targets), ``coarticulation`` (:func:`generate`: targets to curves to motion), ``rig``
  (curves to vertices), ``arkit`` (curves to coefficients of ARKit's names), ``hidden`` (what the audio does not tell),
  ``derivatives`` (of the curves by it)

Not here: the distance to the nearest motion that could have been (:mod:`s2f_rl.metrics.plausibility`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.data.synthetic.coarticulation import generate
    from s2f_rl.data.synthetic.hidden import Hidden
    from s2f_rl.data.synthetic.speakers import Speaker, load_speakers
    from s2f_rl.data.synthetic.write import Take, load_take, synthesize

_HOMES = {
    "Hidden": "hidden",
    "Speaker": "speakers",
    "Take": "write",
    "generate": "coarticulation",
    "load_speakers": "speakers",
    "load_take": "write",
    "synthesize": "write",
}
__all__ = [
    "Hidden",
    "Speaker",
    "Take",
    "generate",
    "load_speakers",
    "load_take",
    "synthesize",
]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
