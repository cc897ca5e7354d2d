"""CodeTalker's prediction and an RL iteration: the published way beside ours, and what a window costs in error.

    python benchmarks/speed/codetalker.py                    # published sizes, random weights: minutes on one core
    python benchmarks/speed/codetalker.py --small            # a small one, seconds

The published way runs stage 2 over all frames so far for every frame, decodes all codes so far to vertices, and feeds
the last of them back. Both ways must choose the same codes, or the script stops. Weights are random, and so is the
sound: the times do not depend on them, the error of a window does.

An iteration of RL draws codes for some lanes and makes one update of REINFORCE; rewards are left out. The published
code has neither: its way of drawing is that of its prediction, lane by lane, and the update is ours on both sides.
"""

from __future__ import annotations

import argparse

import torch
from tensordict import TensorDict
from torch import Tensor

from benchmarks.speed.clock import now
from s2f_rl.losses import ReinforceLoss, total_loss
from s2f_rl.models import CodeTalker, MelAudioEncoder, MotionPolicy

SMALL = {"feature_dim": 64, "n_layers": 2, "codebook_width": 64, "codebook_hidden": 96, "codebook_layers": 2,
         "codebook_heads": 4, "n_codes": 64, "code_width": 16, "codes_per_frame": 4}  # fmt: skip


@torch.no_grad()
def published_way(
    actor: CodeTalker, features: Tensor, style: Tensor, drawn: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Nearest codes [1, T, Q] of features [1, T, A, D], and the displacements [1, T, V*3] that are decoded of them.

    ``drawn``: codes to be decoded and fed back in their place.
    """
    decoder, book = actor.decoder, actor.codebook
    style_vector = decoder.embed_style(style).unsqueeze(1)
    embedding = style_vector
    for t in range(features.shape[1]):
        found = decoder.run(embedding, features[:, : t + 1]).unflatten(-1, (book.codes_per_frame, book.code_width))
        codes = book.nearest(found)
        seen = codes if drawn is None else drawn[:, : t + 1]
        seen = seen.repeat(1, 2, 1) if t == 0 else seen  # there, one frame cannot be decoded
        displacement = book.decode(seen)
        newest = displacement[:, :1] if t == 0 else displacement[:, -1:]
        embedding = torch.cat([embedding, decoder.vertice_map(newest) + style_vector], 1)
    return codes, displacement[:, : codes.shape[1]]


@torch.no_grad()
def our_way(actor: CodeTalker, features: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
    """The same by what the package does, for any number of lanes."""
    codes = actor.generate(features, style)
    return codes, actor.decode(codes)


def random_actor(vertices: int, **sizes: int) -> CodeTalker:
    """Random weights whose codes follow the sound: spread code vectors, and a feature map of their size."""
    torch.manual_seed(0)
    actor = CodeTalker(MelAudioEncoder(width=768 if not sizes else 64), vertices, **sizes).eval()
    torch.nn.init.normal_(actor.codebook.codes)
    torch.nn.init.normal_(actor.decoder.feature_map.weight, std=actor.decoder.feature_dim**-0.5)
    return actor


def timed(way: object, *inputs: object) -> tuple[float, tuple[Tensor, Tensor]]:
    """Seconds, and the result."""
    began = now()
    assert callable(way)
    result = way(*inputs)
    return now() - began, result


def updated(policy: MotionPolicy, batch: TensorDict) -> float:
    """Seconds of an update of REINFORCE by the batch."""
    loss, began = ReinforceLoss(policy.actor_module), now()
    trained = [p for p in policy.parameters() if p.requires_grad]
    total_loss(loss(batch)).backward()
    torch.optim.SGD(trained, 1e-9).step()
    return now() - began


def iteration(actor: CodeTalker, sound: Tensor, style: Tensor) -> tuple[float, float, float]:
    """Seconds to draw the lanes of a batch the published way and ours, and of the update.

    Args:
        sound: [B, T, A, D]. style: [B, S].
    """
    policy: MotionPolicy = actor.make_policy()
    for parameter in policy.core.frozen_in_rl():
        parameter.requires_grad_(False)
    policy.core.calibrate(0.07, [(sound[0], style[0])])
    n_lanes, n_frames = sound.shape[:2]
    frames = torch.arange(n_frames)[None, :, None].expand(n_lanes, -1, -1)
    batch = TensorDict(
        {"audio": sound, "style": style[:, None].expand(-1, n_frames, -1), "frame_index": frames,
         "frame_mask": torch.ones(n_lanes, n_frames, 1, dtype=torch.bool)}, [n_lanes, n_frames],
    )  # fmt: skip
    began = now()
    policy.roll_out(batch)
    policy.complete(batch)
    fast, slow = now() - began, 0.0
    for lane, logits, motion in zip(batch.split(1), batch["logits"].split(1), batch["action"].split(1), strict=True):
        took, (nearest, theirs) = timed(published_way, actor, lane["audio"], lane["style"][:, 0], lane["latent"])
        slow += took
        if not torch.equal(nearest, logits.argmax(-1)) or (theirs - motion).abs().max() > 1e-4 * motion.abs().max():
            raise SystemExit("RL: the two ways differ")
    return slow, fast, updated(policy, batch.set("advantage", torch.randn(n_lanes, n_frames, 1)))


def row(*cells: object) -> None:
    print("| " + " | ".join(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--frames", type=int, nargs="+", default=[30, 60])
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--windows", type=int, nargs="+", default=[8, 16, 30])
    options = parser.parse_args()
    torch.set_num_threads(1)
    actor = random_actor(100, **SMALL) if options.small else random_actor(5023)
    style = torch.eye(actor.n_styles)
    seconds, _ = timed(actor.feedback_map)
    print(f"\nfeedback map, once per actor: {seconds:.3g} s\n")
    row("frames", "published, s", "ours, s", "ratio", f"ours, {options.lanes} lanes, s", "ratio per lane")
    row(*["---"] * 6)
    for n_frames in options.frames:
        sound = torch.randn(options.lanes, n_frames, 1, actor.audio_encoder.width)
        slow, (theirs, theirs_motion) = timed(published_way, actor, sound[:1], style[:1])
        fast, (ours, motion) = timed(our_way, actor, sound[:1], style[:1])
        many, (lanes, _) = timed(our_way, actor, sound, style[torch.arange(options.lanes) % len(style)])
        same = torch.equal(theirs, ours) and torch.equal(ours[0], lanes[0])
        if not same or (theirs_motion - motion).abs().max() > 1e-4 * motion.abs().max():
            raise SystemExit(f"{n_frames} frames: the two ways differ")
        row(n_frames, slow, fast, slow / fast, many, options.lanes * slow / many)
    print()
    row("lanes", "frames", "drawn as published, s", "drawn, s", "update, s", "ratio of an iteration")
    row(*["---"] * 6)
    groups = torch.arange(options.lanes) // 4  # 4 lanes of one utterance
    slow, fast, update = iteration(actor, sound[groups], style[groups % len(style)])
    row(options.lanes, n_frames, slow, fast, update, (slow + update) / (fast + update))
    print()
    row("window, frames", "seconds", "codes changed, %", "displacement error, % of its RMS")
    row(*["---"] * 4)
    for window in (None, *options.windows):
        actor.feedback_window = window
        took, (codes, decoded) = timed(our_way, actor, sound[:1], style[:1])
        error = (decoded - motion).square().mean().sqrt() / motion.square().mean().sqrt()
        row(window or "all", took, 100 * float((codes != ours).float().mean()), 100 * float(error))


if __name__ == "__main__":
    main()
