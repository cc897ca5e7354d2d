"""How probable the lips' motion is, given what is said: a reward that knows what the actor has to hear."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2f_rl.data.alignment import REPORT
from s2f_rl.data.content import file_hashes
from s2f_rl.data.contract import Corpus, Phone, SpokenUtterance, place_of
from s2f_rl.data.lru import ByteCache
from s2f_rl.data.tensor_files import content_hash
from s2f_rl.errors import UserError
from s2f_rl.models.latent_motion import LatentMotion, coordinates
from s2f_rl.rewards.articulation.density import log_density, squared_error, widened
from s2f_rl.rewards.articulation.density_files import TrainedDensity
from s2f_rl.rewards.articulation.phones import PhoneSource, phone_features
from s2f_rl.rewards.contract import Reward, Scored
from s2f_rl.rewards.model.meeting import refuse_other_corpus

ARTICULATION_SCORE = "articulation_score"
FORMS = ("squared_error", "likelihood", "widened")
STYLES = ("lane", "speaker")
_MEMORY_BYTES = 64 * 2**20
_numbers = itertools.count()


class Said(NamedTuple):
    """What is said in an utterance: its number, phone features [n, F] up to the last phone, the lips at rest [3 L], and
    the speaker's own style [S], if it is known and asked for."""

    number: int
    features: Tensor
    lips: Tensor
    style: Tensor | None = None


class ArticulationReward(nn.Module, Reward):
    """One score of every frame that lies within the phones: how well the lips do what is said in the lane's style.

    ``likelihood``: :func:`~s2f_rl.rewards.articulation.density.log_density` of the lip coefficients. Its slope is large
    where the density is narrow, as at closures, and it pays for motion near the mean where it is wide.
    ``squared_error``: :func:`~s2f_rl.rewards.articulation.density.squared_error`, the same pull everywhere.
    ``widened``: that to a mean which :func:`~s2f_rl.rewards.articulation.density.widened` lets move as much as
    recordings do. All are at most 0, larger is better, and differentiable in the vertices. A frame's score looks at
    that frame only.

    Utterances without phones have no score. A style of zeros is one that is not known.

    Args:
        corpus: gives mesh, frame rate and styles, which must be those of the density.
        device: of the density.
        folder: run folder of ``recipes/articulation.py``, or its ``articulation.pt``.
        form: ``squared_error``, ``likelihood`` or ``widened``.
        phones: folder of timings ``NAME.json``, as ``s2f-rl align CORPUS --out FOLDER`` writes; None: the corpus's own.
        style: ``lane``, what the actor was asked for; ``speaker``, the own one of who speaks, and of a speaker who has
            none what speakers do on average: a new voice's style is no column, so that any which a lane asks for is
            the wrong one.

    Raises:
        UserError: no utterance has phones, most have names that are not known, another mesh, rate or styles.
    """

    score_names = (ARTICULATION_SCORE,)
    look_back = 0
    differentiable = True
    reads_style = True

    def __init__(
        self,
        corpus: Corpus,
        device: str | torch.device = "cpu",
        *,
        folder: str,
        form: str = "squared_error",
        phones: str | None = None,
        style: str = "lane",
    ) -> None:
        super().__init__()
        if style not in STYLES:
            raise UserError(f"articulation reward: style={style}: use {' or '.join(STYLES)}")
        self._of_speaker = style == "speaker"
        if self._of_speaker:
            self.reads_style = False
        if form not in FORMS:
            raise UserError(f"articulation reward: form={form}: use {' or '.join(FORMS)}")
        trained = TrainedDensity.load(folder, device)
        self.density, self.subjects, self.form = trained.density, trained.subjects, form
        self.fps, self.mesh_identity = trained.fps, trained.mesh_identity
        refuse_other_corpus(self, corpus, str(folder))
        if list(corpus.subjects) != list(self.subjects):
            raise UserError(
                f"{folder}: its style columns are {_few(self.subjects)}, those of {place_of(corpus)} "
                f"{_few(corpus.subjects)}; train one on this corpus (recipes/articulation.py)"
            )
        self.source = PhoneSource(phones)
        self.source.require(corpus)
        form = f"{form} of speaker" if self._of_speaker else form
        self._hash = hashlib.sha256(f"{trained.content_hash()} {form} {_timings_hash(phones)}".encode()).hexdigest()
        self._densities: ByteCache[Tensor] = ByteCache(_MEMORY_BYTES)

    def prepare(self, utterance: SpokenUtterance) -> Said:
        """What the utterance's phones say, frame by frame, and its lips at rest."""
        said = self.said(self.source.of(utterance), utterance.template)
        return said._replace(style=utterance.style) if self._of_speaker else said

    def said(self, phones: Sequence[Phone], template: Tensor) -> Said:
        """The same of any phones, on the face at rest ``template`` [V*3]."""
        assert self.fps is not None
        columns = coordinates(self.density.lips.cpu())
        return Said(next(_numbers), phone_features(phones, self.fps), template.flatten()[columns])

    def score_motion(
        self,
        vertices: Tensor,
        prepared: Sequence[Said],
        frame_mask: Tensor,
        stride: int = 1,
        first_frame: Tensor | None = None,
        style: Tensor | None = None,
    ) -> dict[str, Scored]:
        """See :meth:`Reward.score_motion <s2f_rl.rewards.contract.Reward.score_motion>`; ``style`` [B, S], None: not
        known."""
        rest = torch.stack([said.lips for said in prepared]).to(vertices)
        lips = vertices[..., coordinates(self.density.lips.to(vertices.device))] - rest.unsqueeze(1)
        return self._score(lips, prepared, first_frame, style)

    def score_latents(
        self,
        motion: LatentMotion,
        prepared: Sequence[Said],
        frame_mask: Tensor,
        stride: int = 1,
        first_frame: Tensor | None = None,
        style: Tensor | None = None,
    ) -> dict[str, Scored]:
        """The same, of the lips alone."""
        lips = replace(motion, templates=None).columns(self.density.lips)
        return self._score(lips, prepared, first_frame, style)

    def _score(
        self, lips: Tensor, prepared: Sequence[Said], first_frame: Tensor | None, style: Tensor | None
    ) -> dict[str, Scored]:
        found = self.density.coefficients(lips.to(self.density.basis.device))
        moments = found.new_ones(2, *found.shape)  # of frames without phones: nobody reads them
        mask = torch.zeros(found.shape[:2], dtype=torch.bool, device=found.device)
        starts = [0] * len(prepared) if first_frame is None else first_frame.tolist()
        styles = [said.style for said in prepared] if style is None else list(style.detach().cpu().float())
        for lane, (said, start, own) in enumerate(zip(prepared, starts, styles, strict=True)):
            here = self.expected(said, own)[:, start : start + found.shape[1]]
            moments[:, lane, : here.shape[1]] = here.to(found)
            mask[lane, : here.shape[1]] = True
        mean, sd = moments
        if self.form == "likelihood":
            score = log_density(found, mean, sd)
        else:
            score = squared_error(found, mean, self.density.typical_m)
        return {ARTICULATION_SCORE: (score, mask)}

    @torch.no_grad()
    def expected(self, said: Said, style: Tensor | None) -> Tensor:
        """Mean and standard deviation [2, n, K], metres, of what is said in a style [S]; None: of one not known."""
        style = torch.zeros(self.density.n_styles) if style is None else style
        basis = self.density.basis

        def make() -> Tensor:
            if not len(said.features):
                return basis.new_zeros(2, 0, len(basis))
            mean, sd = self.density(said.features.to(basis)[None], style.to(basis)[None])
            return torch.cat([widened(mean, sd) if self.form == "widened" else mean, sd])

        return self._densities.get((said.number, style.numpy().tobytes(), str(basis.device)), make)

    def content_hash(self) -> str:
        """sha256 of density, form and, where they come from a folder, timings, as hex."""
        return self._hash


def _timings_hash(folder: str | os.PathLike[str] | None) -> str:
    if folder is None:  # they are the corpus's, which has a hash of its own
        return "corpus"
    timings = sorted(path for path in Path(folder).glob("[!.]*.json") if path.name != REPORT)
    files = file_hashes(Path(folder), timings)
    return content_hash({file.name: digest for file, digest in files.items()})


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
