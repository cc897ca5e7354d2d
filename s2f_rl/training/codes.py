"""What a codebook of motion is trained on and measured by, and a picture of what its codes do to a face."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import Corpus, place_of, recorded
from s2f_rl.data.units import MILLIMETRE
from s2f_rl.errors import UserError
from s2f_rl.metrics import lip_vertex_error
from s2f_rl.models.codetalker.codebook import Codebook, perplexity
from s2f_rl.render.faces import find_faces
from s2f_rl.render.look import corpus_look
from s2f_rl.render.still import contact_sheet
from s2f_rl.rewards.calibration.auc import spread_evenly

_SIZED_BY = 200  # utterances
_HELD_FRAMES = 5  # on either side of the one that is shown: the decoder sees five at once
_SHOWN = (4, 6)  # slots, and codes of each
_SELDOM = 0.01  # of the frames
_PIXELS = 224


class Motions:
    """The recorded motion of a corpus, utterance by utterance: displacements [1, T, V*3], metres.

    Args:
        corpus: utterances without vertices, or of a single frame, are left out.

    Raises:
        UserError: none is left, or the corpus is animated by coefficients.
    """

    def __init__(self, corpus: Corpus) -> None:
        if getattr(corpus, "rig", None) is not None:
            raise UserError(
                f"corpus.root={place_of(corpus)}: is animated by coefficients, and a codebook is of vertices alone; "
                "train an actor of kind faceformer on it"
            )
        self.corpus = corpus
        self.there = [i for i in range(len(corpus)) if corpus.has_vertices(i) and corpus.n_frames(i) > 1]
        if not self.there:
            raise UserError(f"corpus.root={place_of(corpus)}: no utterance has vertices, so there is no motion")

    def __len__(self) -> int:
        return len(self.there)

    def __getitem__(self, k: int) -> Tensor:
        utterance = self.corpus[self.there[k]]
        return (recorded(utterance) - utterance.template)[None]

    def size(self) -> float:
        """Root mean square of a coordinate's displacement, metres."""
        some = [self[k].square().mean() for k in spread_evenly(len(self), _SIZED_BY)]
        size = math.sqrt(float(torch.stack(some).mean()))
        if not size > 0:
            raise UserError(f"corpus.root={place_of(self.corpus)}: nothing moves in its recordings")
        return size


def distances_mm(decoded: Tensor, motion: Tensor, metres_per_unit: float, lips: Tensor) -> dict[str, Tensor]:
    """Mean distance of the vertices to where they were recorded: ``reconstruction_mm``, and ``lips_mm`` of the lips."""
    apart = (decoded - motion).detach().unflatten(-1, (-1, 3)).norm(dim=-1) * (metres_per_unit / MILLIMETRE)
    return {"reconstruction_mm": apart.mean(), "lips_mm": apart[..., lips].mean()}


@torch.no_grad()
def describe(
    codebook: Codebook, motions: Motions, chosen: Sequence[int], metres_per_unit: float, lips: Tensor
) -> tuple[dict[str, float], Tensor]:
    """How well whole utterances pass through a codebook, and how evenly its codes are used.

    Args:
        codebook: of motion in units of ``metres_per_unit``. chosen: places in ``motions``. lips: vertex indices.

    Returns:
        ``reconstruction_mm`` and ``lips_mm`` (:func:`distances_mm`), ``lve`` (lip vertex error of the reconstruction,
        m^2: the floor of any actor that speaks in these codes), ``quantisation`` (the published loss), ``perplexity``
        and ``codes_used`` (share of the codes that were chosen), all over the frames; and how often each code was
        chosen in each place of a frame [Q, K].
    """
    device = codebook.codes.device
    counts = torch.zeros(codebook.codes_per_frame, codebook.n_codes)
    totals: dict[str, float] = {}
    frames = 0
    for k in chosen:
        motion = motions[k].to(device) / metres_per_unit
        passed = codebook(motion, shared_row=True)
        found = distances_mm(passed.displacement, motion, metres_per_unit, lips)
        found["lve"] = lip_vertex_error(passed.displacement[0], motion[0], lips) * metres_per_unit**2
        found["quantisation"] = codebook.errors(passed, motion)[1]
        for slot, indices in enumerate(passed.indices[0].cpu().t()):
            counts[slot] += torch.bincount(indices, minlength=codebook.n_codes)
        for name, value in found.items():
            totals[name] = totals.get(name, 0.0) + float(value) * motion.shape[1]
        frames += motion.shape[1]
    all_places = counts.sum(0)
    values = {name: total / frames for name, total in totals.items()}
    values |= {"perplexity": float(perplexity(all_places)), "codes_used": float((all_places > 0).float().mean())}
    return values, counts


@torch.no_grad()
def draw_codes(codebook: Codebook, corpus: FaceCorpus, counts: Tensor, out: Path) -> None:
    """Write a picture of what some codes do: a row for a place of the frame, the codes there that move it furthest.

    A frame of an utterance, with one of its Q codes exchanged for another in that frame and five on either side; a code
    means nothing by itself, since the decoder sees motion, not poses. The first face of a row has the codes as they
    were.

    Args:
        codebook: of motion in metres. counts: of :func:`describe`, [Q, K]. out: PNG file.

    Raises:
        UserError: the extra ``render`` is missing, or the mesh cannot be drawn.
    """
    motions = Motions(corpus)
    chosen = max(spread_evenly(len(motions), 16), key=lambda k: float(motions[k].square().mean()))
    motion, spoken = motions[chosen].to(codebook.codes.device), corpus[motions.there[chosen]]
    codes = codebook.encode(motion, shared_row=True)
    middle = int(motion[0].square().sum(-1).argmax())
    held = slice(max(0, middle - _HELD_FRAMES), middle + _HELD_FRAMES + 1)
    n_slots, n_codes = min(_SHOWN[0], codebook.codes_per_frame), min(_SHOWN[1], codebook.n_codes)
    moved, captions = [], []
    for slot in spread_evenly(codebook.codes_per_frame, n_slots):
        moved.append(codebook.decode(codes, shared_row=True)[0, middle])
        captions.append(f"place {slot}: code {int(codes[0, middle, slot])}, as it was")
        share = counts[slot] / counts[slot].sum()
        found = []
        for code in torch.nonzero(share >= _SELDOM).flatten().tolist():
            exchanged = codes.clone()
            exchanged[:, held, slot] = code
            face = codebook.decode(exchanged, shared_row=True)[0, middle]
            apart = float((face - moved[-1]).unflatten(-1, (-1, 3)).norm(dim=-1).max()) / MILLIMETRE
            found.append((apart, code, face))
        found = sorted(found, key=lambda each: -each[0])[:n_codes]
        moved += [face for _, _, face in found] + [moved[-1]] * (n_codes - len(found))
        captions += [f"code {code}: {apart:.1f} mm, {100 * share[code]:.0f}% of frames" for apart, code, _ in found]
        captions += [""] * (n_codes - len(found))
    meshes = [(spoken.template + each.cpu()).numpy() for each in moved]
    look = corpus_look(corpus, [mesh[None] for mesh in meshes], spoken.subject)
    faces = find_faces(corpus.root, corpus.n_vertices)
    contact_sheet(meshes, faces, out, captions, n_codes + 1, _PIXELS, samples=2, **look)
