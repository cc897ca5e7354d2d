"""What a density of lips is trained on and measured by: recorded lips beside the phones of their speech."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from s2f_rl.data.contract import Corpus, Phone, place_of, recorded
from s2f_rl.errors import UserError
from s2f_rl.models.latent_motion import coordinates
from s2f_rl.rewards.articulation.density import LipDensity, log_density
from s2f_rl.rewards.articulation.phones import PhoneSource, phone_features, with_mistakes


@dataclass
class Lesson:
    """One recorded utterance: ``phones``, lip displacement [T, 3 L] (metres), ``style`` [S], zeros if not known."""

    name: str
    phones: list[Phone]
    lips: Tensor
    style: Tensor


def lessons(corpus: Corpus, source: PhoneSource, lips: Tensor) -> list[Lesson]:
    """The utterances of a corpus that have both motion and phones.

    Raises:
        UserError: there is none.
    """
    columns, found = coordinates(lips), []
    for i in range(len(corpus)):
        utterance = corpus[i]
        phones = source.of(utterance) if corpus.has_vertices(i) else []
        if phones:
            moved = (recorded(utterance)[:, columns] - utterance.template[columns]).clone()
            style = utterance.style
            known = torch.zeros(len(corpus.subjects)) if style is None else style
            found.append(Lesson(utterance.name, phones, moved, known))
    if not found:
        raise UserError(f"{place_of(corpus)}: no utterance has both motion and phones; align those that are recorded")
    return found


@dataclass
class LessonBatch:
    """B utterances padded to T frames: features [B, T, F], coefficients [B, T, K], style [B, S], mask [B, T]."""

    features: Tensor
    coefficients: Tensor
    style: Tensor
    mask: Tensor

    def to(self, device: str | torch.device) -> LessonBatch:
        """On another device."""
        return LessonBatch(*(each.to(device) for each in (self.features, self.coefficients, self.style, self.mask)))


def in_one_batch(
    density: LipDensity, chosen: Sequence[Lesson], phones: Sequence[Sequence[Phone]], styles: Tensor, fps: float
) -> LessonBatch:
    """Lessons with these phones in place of their own, and these styles [B, S]; on the CPU."""
    features = [phone_features(said, fps)[: len(lesson.lips)] for lesson, said in zip(chosen, phones, strict=True)]
    coefficients = [
        density.coefficients(lesson.lips[: len(own)].to(density.basis.device)).cpu()
        for lesson, own in zip(chosen, features, strict=True)
    ]
    return LessonBatch(
        pad_sequence(features, batch_first=True),
        pad_sequence(coefficients, batch_first=True),
        styles,
        pad_sequence([torch.ones(len(own), dtype=torch.bool) for own in features], batch_first=True),
    )


class LessonSampler:
    """Batches of lessons in seeded permutations, with mistakes in their phones and at times without their style.

    Args:
        batch_size: utterances of a batch; fewer where there are fewer.
        seed: of all draws.
        substituted, boundary_noise_s: see :func:`~s2f_rl.rewards.articulation.phones.with_mistakes`.
        style_left_out: share of the utterances whose style is shown as zeros.
    """

    def __init__(
        self,
        known: Sequence[Lesson],
        fps: float,
        seed: int = 0,
        *,
        batch_size: int,
        substituted: float,
        boundary_noise_s: float,
        style_left_out: float,
    ) -> None:
        self.known, self.fps, self.batch_size = list(known), fps, min(batch_size, len(known))
        self.substituted, self.boundary_noise_s, self.style_left_out = substituted, boundary_noise_s, style_left_out
        self._generator = torch.Generator().manual_seed(seed)
        self._waiting: list[int] = []

    def draw(self, density: LipDensity) -> LessonBatch:
        """The next batch."""
        while len(self._waiting) < self.batch_size:
            self._waiting += torch.randperm(len(self.known), generator=self._generator).tolist()
        taken, self._waiting = self._waiting[: self.batch_size], self._waiting[self.batch_size :]
        chosen = [self.known[k] for k in taken]
        phones = [
            with_mistakes(each.phones, self._generator, self.substituted, self.boundary_noise_s) for each in chosen
        ]
        kept = torch.rand(len(chosen), 1, generator=self._generator) >= self.style_left_out
        return in_one_batch(density, chosen, phones, torch.stack([each.style for each in chosen]) * kept, self.fps)

    def state_dict(self) -> dict[str, object]:
        """Where the draws are."""
        return {"generator": self._generator.get_state(), "waiting": list(self._waiting)}

    def load_state_dict(self, state: dict[str, Tensor | list[int]]) -> None:
        """Go on where ``state`` was taken."""
        generator, waiting = state["generator"], state["waiting"]
        assert isinstance(generator, Tensor) and isinstance(waiting, list)
        self._generator.set_state(generator.cpu())
        self._waiting = list(waiting)


def mean_log_density(density: LipDensity, batch: LessonBatch) -> Tensor:
    """Mean of :func:`~s2f_rl.rewards.articulation.density.log_density` over the frames of a batch, a number."""
    mean, sd = density(batch.features, batch.style)
    return log_density(batch.coefficients, mean, sd)[batch.mask].mean()


def in_batches(density: LipDensity, known: Sequence[Lesson], fps: float, size: int = 32) -> Iterator[LessonBatch]:
    """All lessons as they are, in order."""
    for k in range(0, len(known), size):
        chosen = known[k : k + size]
        styles = torch.stack([each.style for each in chosen])
        yield in_one_batch(density, chosen, [each.phones for each in chosen], styles, fps)


@torch.no_grad()
def describe(density: LipDensity, known: Sequence[Lesson], fps: float) -> dict[str, float]:
    """Over all frames of the lessons: ``log_density``, ``error_mm`` (root mean square distance of the coefficients to
    their mean), ``sd_mm`` (of the density), ``spread_mm`` (of the coefficients themselves, around 0) and ``mean_mm``
    (of the mean, around 0): the share of the movement that a mean has."""
    total = torch.zeros(5, dtype=torch.float64)
    frames = 0
    for batch in (each.to(density.basis.device) for each in in_batches(density, known, fps)):
        mean, sd = density(batch.features, batch.style)
        found = (
            log_density(batch.coefficients, mean, sd),
            *(each.square().mean(-1) for each in (batch.coefficients - mean, sd, batch.coefficients, mean)),
        )
        total += torch.stack([each[batch.mask].double().sum().cpu() for each in found])
        frames += int(batch.mask.sum())
    log, *squares = (total / max(frames, 1)).tolist()
    names = "error_mm", "sd_mm", "spread_mm", "mean_mm"
    return {"log_density": log} | {n: 1e3 * math.sqrt(s) for n, s in zip(names, squares, strict=True)}
