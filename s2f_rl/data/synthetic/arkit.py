"""The built-in face as a rig with ARKit's names: its shapes, and the coefficients of what somebody says.

One face for all speakers, who differ in how they move it, as capture with a phone gives it. 20 of ARKit's 52 shapes are
those of the face's own articulators at their widest; the other 32 are zeros, since the face has no tongue, cheeks or
gaze. What the articulators do (jaw and lids turn, lips meet) is not linear, so an utterance is what its coefficients
make: those within [0, 1] that come nearest to the articulated face, the lips counting most. The head keeps still.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from s2f_rl.data.coefficients.arkit import ARKIT
from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.synthetic.coarticulation import Phones, articulate
from s2f_rl.data.synthetic.face import build_face, regions
from s2f_rl.data.synthetic.head import Identity
from s2f_rl.data.synthetic.hidden import Hidden
from s2f_rl.data.synthetic.rig import ARTICULATORS, A, Rig, build_rig
from s2f_rl.data.synthetic.speakers import Speaker

Array = NDArray[np.float64]

_WIDEST = {  # articulator -> shape that is its displacement at this value
    "jaw": ("jawOpen", 1.5),
    "protrude": ("mouthFunnel", 1.3),
    "round": ("mouthPucker", 1.3),
    "tuck": ("mouthRollLower", 1.0),
}
_BY_SIDE = {  # the same, left and right apart
    "spread": ("mouthStretch", 1.5),
    "upper_raise": ("mouthUpperUp", 1.3),
    "lower_depress": ("mouthLowerDown", 1.3),
    "press": ("mouthPress", 1.0),
    "blink": ("eyeBlink", 1.0),
}
_BROW_UP, _BROW_DOWN = 1.5, -0.5
_MIDDLE_MM, _INNER_MM = 8.0, (18.0, 38.0)
"""Over which half width left goes over into right, and the inner brow into the outer one."""
_LIP_WEIGHT, _RIDGE, _SWEEPS = 10.0, 1e-4, 400


class ArkitFace:
    """The rig of a face of ``n_vertices`` vertices.

    Attributes:
        basis: its :class:`~s2f_rl.data.coefficients.basis.LinearBasis`, metres, with all 52 names in ARKit's order.
    """

    def __init__(self, n_vertices: int) -> None:
        self.rig = build_rig(build_face(Identity(), n_vertices))
        shapes = shapes_of(self.rig)
        full = np.zeros((len(ARKIT), n_vertices, 3))
        for name, shape in shapes.items():
            full[ARKIT.index(name)] = shape
        self.basis = LinearBasis(
            torch.from_numpy(self.rig.face.template).float(),
            torch.from_numpy(full).float(),
            ARKIT,
            torch.tensor([[0.0, 1.0]] * len(ARKIT)),
        )
        self._columns = [ARKIT.index(name) for name in shapes]
        weight = np.ones(n_vertices)
        weight[regions(n_vertices)["lips"]] += _LIP_WEIGHT
        self._rows = np.stack(list(shapes.values())).reshape(len(shapes), -1)
        self._weighted = self._rows * weight.repeat(3)
        self._rigs: dict[str, Rig] = {}

    def coefficients(
        self, phones: Phones, n_frames: int, speaker: Speaker, hidden: Hidden, fps: float
    ) -> NDArray[np.float32]:
        """Coefficients [n_frames, 52] of ``speaker`` saying ``phones``; see ``coarticulation.generate``."""
        curves, closure = articulate(phones, n_frames, speaker, hidden, fps)
        curves[:, [A["nod"], A["turn"]]] = 0.0
        if speaker.name not in self._rigs:
            self._rigs[speaker.name] = replace(speaker, identity=Identity()).rig
        wanted = self._rigs[speaker.name].displace(curves, closure)
        out = np.zeros((n_frames, len(ARKIT)), np.float32)
        out[:, self._columns] = within_unit(self._weighted @ self._rows.T, wanted @ self._weighted.T)
        return out


def shapes_of(rig: Rig) -> dict[str, Array]:
    """{ARKit's name: displacement [V, 3] in metres at 1} of what a face's articulators can do."""

    def at(closure: float = 0.0, **values: float) -> Array:
        curves = np.zeros((1, len(ARTICULATORS)))
        for name, value in values.items():
            curves[0, A[name]] = value
        return rig.displace(curves, np.array([closure])).reshape(-1, 3)

    x = rig.face.template_mm[:, 0]
    left = _step(x, -_MIDDLE_MM, _MIDDLE_MM)[:, None]  # of the face, at +x
    sides = {"Left": left, "Right": 1 - left}
    shapes = {name: at(**{articulator: value}) for articulator, (name, value) in _WIDEST.items()}
    widest = _WIDEST["jaw"][1]
    shapes["mouthClose"] = at(1.0, jaw=widest) - at(jaw=widest)  # ARKit's lips close over whatever the jaw does
    for articulator, (name, value) in _BY_SIDE.items():
        for side, share in sides.items():
            shapes[name + side] = at(**{articulator: value}) * share
    inner = 1 - _step(np.abs(x), *_INNER_MM)[:, None]
    up, down = at(brow=_BROW_UP), at(brow=_BROW_DOWN)
    shapes["browInnerUp"] = up * inner
    for side, share in sides.items():
        shapes[f"browOuterUp{side}"] = up * (1 - inner) * share
        shapes[f"browDown{side}"] = down * share
    return shapes


def within_unit(gram: Array, right: Array) -> Array:
    """The x [T, K] in [0, 1] that minimise x G x' - 2 q x' for G [K, K] and each row q of ``right`` [T, K].

    Coordinate descent on all rows at once; a slight ridge makes the minimum one.
    """
    gram = gram + _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    x = np.zeros_like(right)
    for _ in range(_SWEEPS):
        before = x.copy()
        for k in range(len(gram)):
            x[:, k] = np.clip(x[:, k] + (right[:, k] - x @ gram[:, k]) / gram[k, k], 0.0, 1.0)
        if np.abs(x - before).max(initial=0.0) < 1e-5:
            break
    return x


def _step(x: Array, low: float, high: float) -> Array:
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)
