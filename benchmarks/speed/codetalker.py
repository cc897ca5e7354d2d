"""CodeTalker's prediction: the published way beside ours, and what a window of the fed-back motion costs in error.

    python benchmarks/speed/codetalker.py                    # published sizes, random weights: minutes on one core
    python benchmarks/speed/codetalker.py --small            # a small one, seconds

The published way runs stage 2 over all frames so far for every frame, decodes all codes so far to vertices, and feeds
the last of them back. Both ways must choose the same codes, or the script stops. Weights are random, and so is the
sound: the times do not depend on them, the error of a window does.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from benchmarks.speed.clock import now
from s2f_rl.models import CodeTalker, MelAudioEncoder

SMALL = {"feature_dim": 64, "n_layers": 2, "codebook_width": 64, "codebook_hidden": 96, "codebook_layers": 2,
         "codebook_heads": 4, "n_codes": 64, "code_width": 16, "codes_per_frame": 4}  # fmt: skip


@torch.no_grad()
def published_way(actor: CodeTalker, features: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [1, T, Q] of features [1, T, A, D], and the displacements [1, T, V*3] that are decoded of them."""
    decoder, book = actor.decoder, actor.codebook
    style_vector = decoder.embed_style(style).unsqueeze(1)
    embedding = style_vector
    for t in range(features.shape[1]):
        found = decoder.run(embedding, features[:, : t + 1]).unflatten(-1, (book.codes_per_frame, book.code_width))
        codes = book.nearest(found)
        seen = codes.repeat(1, 2, 1) if t == 0 else codes  # there, one frame cannot be decoded
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
    row("window, frames", "seconds", "codes changed, %", "displacement error, % of its RMS")
    row(*["---"] * 4)
    for window in (None, *options.windows):
        actor.feedback_window = window
        took, (codes, decoded) = timed(our_way, actor, sound[:1], style[:1])
        error = (decoded - motion).square().mean().sqrt() / motion.square().mean().sqrt()
        row(window or "all", took, 100 * float((codes != ours).float().mean()), 100 * float(error))


if __name__ == "__main__":
    main()
