"""Motion as coefficients of a rig (ARKit's 52 shapes, FLAME's expressions, components of one's own).

Floor plan:

- ``basis``: what the coefficients do to a mesh (:class:`LinearBasis`, ``basis.npz``); ``basis_files``: one from a GLB
- ``fit``: vertices to coefficients
- ``rig``: of a corpus, with its names and rate (:func:`load_rig`, ``coefficients.json``)
- ``controls``: what an actor keeps of it
- ``check``: what is wrong with such motion (``s2f-rl check``)
- files of others: ``tracks`` (:func:`read_track`: CSV, BEAT's JSON, npy, FLAME's npz) and ``livelink``, also written;
  ``convert`` makes a corpus of them (``s2f-rl coefficients``)
- rigs that are known: ``arkit`` (the names of its 52) and ``flame`` (:func:`flame_basis`)

Not here: the built-in corpus as coefficients (:mod:`s2f_rl.data.synthetic`), actors that give them
(:mod:`s2f_rl.models`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.data.coefficients.basis import LinearBasis
    from s2f_rl.data.coefficients.controls import Controls
    from s2f_rl.data.coefficients.convert import convert_coefficients
    from s2f_rl.data.coefficients.fit import CoefficientFit, fit_coefficients
    from s2f_rl.data.coefficients.flame import flame_basis
    from s2f_rl.data.coefficients.livelink import write_live_link
    from s2f_rl.data.coefficients.rig import Rig, load_rig
    from s2f_rl.data.coefficients.tracks import Track, read_track

_HOMES = {
    "CoefficientFit": "fit",
    "Controls": "controls",
    "LinearBasis": "basis",
    "Rig": "rig",
    "Track": "tracks",
    "convert_coefficients": "convert",
    "fit_coefficients": "fit",
    "flame_basis": "flame",
    "load_rig": "rig",
    "read_track": "tracks",
    "write_live_link": "livelink",
}
__all__ = [
    "CoefficientFit",
    "Controls",
    "LinearBasis",
    "Rig",
    "Track",
    "convert_coefficients",
    "fit_coefficients",
    "flame_basis",
    "load_rig",
    "read_track",
    "write_live_link",
]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
