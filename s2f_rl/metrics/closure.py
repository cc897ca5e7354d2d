"""Closure: does the mouth shut on /m b p/, and only where it should?"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.metrics._meshes import ArrayLike, Indices, as_pair
from s2f_rl.metrics.lips import lip_distance, rest_lip_distance

Phones = Iterable[Sequence]  # (phone, start_s, end_s)
_SILENCE = ("", "sil", "sp", "spn", "pau")
_PRESSED_M = 0.002  # lips that press come this much closer than at rest at most


def is_bilabial(phone: str) -> bool:
    """Whether a phone in espeak, IPA or ARPAbet spelling closes the lips: it begins with p, b or m."""
    return phone.lstrip("'\",%=_|ˈˌ").lower()[:1] in ("p", "b", "m")


def bilabial_frames(phones: Phones, n_frames: int, fps: float) -> Tensor:
    """Frames inside a bilabial: bool [T]. Frame t is the instant t / fps; a phone holds start_s <= t / fps < end_s.

    Args:
        phones: (phone, start_s, end_s) with times in seconds.
        n_frames: T.
        fps: frames per second.

    Raises:
        UserError: a phone that is no such triple, or a frame rate that is not positive.
    """
    return _frames_inside(phones, n_frames, fps, is_bilabial)


def spoken_frames(phones: Phones, n_frames: int, fps: float) -> Tensor:
    """Frames inside a phone other than silence (``sil``, ``sp``, ``_:`` and the like): as :func:`bilabial_frames`."""
    return _frames_inside(phones, n_frames, fps, lambda phone: phone.strip(" _:!|").lower() not in _SILENCE)


def _frames_inside(phones: Phones, n_frames: int, fps: float, wanted: Callable[[str], bool]) -> Tensor:
    if not fps > 0:
        raise UserError(f"fps is {fps}; it must be positive")
    mask = torch.zeros(n_frames, dtype=torch.bool)
    time = (torch.arange(n_frames, dtype=torch.float64) / fps).tolist()
    for entry in phones:
        try:
            phone, start, end = entry
            start, end = float(start), float(end)
        except (TypeError, ValueError):
            raise UserError(f"phones holds {entry!r}; every entry must be (phone, start_s, end_s)") from None
        if start < end and wanted(str(phone)):
            # Half a microsecond of slack: start times are often written as rounded decimals of a frame's time.
            first, beyond = bisect_left(time, start - 5e-7), bisect_left(time, end - 5e-7)
            if first < beyond:
                mask[first:beyond] = True
    return mask


def closure_threshold(
    template: ArrayLike,
    upper_lip: Indices,
    lower_lip: Indices,
    ratio: float = 1.0,
    margin_m: float = 0.0005,
    truth: ArrayLike | None = None,
) -> float:
    """Lip distance up to which a mouth counts as closed: ``ratio`` times the distance at rest plus ``margin_m``.

    A neutral face has its lips together, but the vertices that stand for them keep a distance even then. The margin
    (half a millimetre) is what tracking noise and the thickness of a vertex row amount to.

    A template whose lips are parted at rest would make every face closed that never moves. It shows in the ``truth``,
    whose lips then come far closer than at rest (less than half the distance, and 2 mm or more less; lips that are
    pressed together do not come so far): there the truth's least distance counts as closed in place of the one at rest.

    Args:
        template: neutral face [V*3] or [V, 3], metres.
        upper_lip, lower_lip: a vertex of each lip, at its centre; of several, their mean point is taken.
        ratio: below 1 for templates whose lips are parted at rest, where no truth shows it.
        margin_m: metres.
        truth: [T, V*3] or [T, V, 3], metres: motion of the same speaker that closes the lips.

    Returns:
        Threshold in metres.
    """
    closed = float(rest_lip_distance(template, upper_lip, lower_lip)) * ratio
    if truth is not None:
        nearest = min(lip_distance(truth, upper_lip, lower_lip).tolist(), default=math.inf)
        if 2 * nearest < closed - _PRESSED_M:
            closed = nearest
    return closed + margin_m


def _closed(
    prediction: ArrayLike, truth: ArrayLike, upper_lip: Indices, lower_lip: Indices, threshold_m: float
) -> tuple[Tensor, Tensor, Tensor]:
    if not threshold_m >= 0:
        raise UserError(f"threshold_m is {threshold_m}; it must be a distance in metres")
    a, b = (lip_distance(frames, upper_lip, lower_lip) for frames in as_pair(prediction, truth))
    finite = (torch.isfinite(a) & torch.isfinite(b)).all(-1)  # NaN is below no threshold: it would count as open
    return a <= threshold_m, b <= threshold_m, finite


def _share(hits: Tensor, of: Tensor, finite: Tensor) -> Tensor:
    share = (hits & of).sum(-1).double() / of.sum(-1).double()  # 0 / 0 is nan: nothing to measure
    return torch.where(finite, share, torch.nan)


def closure_rate(
    prediction: ArrayLike,
    truth: ArrayLike,
    phones: Phones,
    *,
    upper_lip: Indices,
    lower_lip: Indices,
    fps: float,
    threshold_m: float,
) -> Tensor:
    """Of the frames inside /m b p/ where the truth is closed, the share where the prediction is closed as well.

    Ours. Only frames where the truth does close are asked for: speakers undershoot, and a measure that punished the
    prediction for what the ground truth does as well could not be read.

    Args:
        prediction, truth: [.., T, V*3] or [.., T, V, 3], metres, same number of frames.
        phones: (phone, start_s, end_s) of the utterance, seconds.
        upper_lip, lower_lip: a vertex of each lip, at its centre; of several, their mean point is taken.
        fps: frames per second.
        threshold_m: lip distance that counts as closed, metres, from :func:`closure_threshold`.

    Returns:
        float64 [..] in [0, 1], 1 is best; nan when the truth closes in no frame of a bilabial, or vertices
        are not finite. A face that never moves gets what its lip distance is: 1 if its lips are together, 0 if not, in
        both rates.

    Raises:
        UserError: shapes that do not fit, indices outside the mesh, malformed phones.
    """
    ours, theirs, finite = _closed(prediction, truth, upper_lip, lower_lip, threshold_m)
    bilabial = bilabial_frames(phones, ours.shape[-1], fps).to(ours.device)
    return _share(ours, theirs & bilabial, finite)


def false_closure_rate(
    prediction: ArrayLike,
    truth: ArrayLike,
    phones: Phones,
    *,
    upper_lip: Indices,
    lower_lip: Indices,
    fps: float,
    threshold_m: float,
) -> Tensor:
    """Of the frames outside /m b p/ where the truth is open, the share where the prediction is closed.

    The price of :func:`closure_rate`, which a mouth that never opens would win. Arguments as there.

    Returns:
        float64 [..] in [0, 1], 0 is best; nan when the truth is open in no such frame, or vertices are not finite.
    """
    ours, theirs, finite = _closed(prediction, truth, upper_lip, lower_lip, threshold_m)
    bilabial = bilabial_frames(phones, ours.shape[-1], fps).to(ours.device)
    return _share(ours, ~theirs & ~bilabial, finite)
