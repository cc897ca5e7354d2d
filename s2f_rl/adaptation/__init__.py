"""Recordings of a voice, without meshes, in; an actor tuned to that speech, and what it cost, out: ``s2f-rl adapt``.

Floor plan:

- ``run`` (:func:`~s2f_rl.adaptation.run.adapt`): one stage after another, going on where it was stopped
- what it trains on: ``takes`` (sounds, words, phones, pieces of long recordings), ``faces`` (whose face says them),
  ``corpus`` (both as a corpus folder, and which takes are held back)
- what it tells: ``measure`` (the actor before and after on the same speech), ``report`` (a page of it)

Not here: the training itself, which is ``recipes/gdpo.py``, and rewards (:mod:`s2f_rl.rewards`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.adaptation.run import adapt

_HOMES = {"adapt": "run"}
__all__ = ["adapt"]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
