"""Animation of one utterance: our recursion in the motion latent against re-running the whole prefix on vertices.

    python benchmarks/speed/predict.py [--frames 449] [--vertices 5023]

The slow side is what the reference does: for every frame, the decoder over all frames so far, V*3 outputs fed back.
Prints one JSON line with both times, their ratio and the largest difference.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import json
import time

import torch

from s2f_rl.models import FaceFormer, MelAudioEncoder


@torch.no_grad()
def prefix_rerun(actor: FaceFormer, audio: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """Displacements [B, T, V*3], each frame from a full pass over the prefix (quadratic)."""
    decoder = actor.decoder
    style_embedding = decoder.obj_vector(style)
    embedding = torch.zeros_like(style_embedding).unsqueeze(1)
    for t in range(audio.shape[1]):
        hidden = decoder.run_sequence(embedding + style_embedding.unsqueeze(1), audio[:, : t + 1])
        outputs = decoder.decode(hidden)  # of the whole prefix, as the reference does
        embedding = torch.cat([embedding, decoder.vertice_map(outputs[:, -1:])], dim=1)
    return outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=449)
    parser.add_argument("--vertices", type=int, default=5023)
    options = parser.parse_args()
    torch.manual_seed(0)
    actor = FaceFormer(MelAudioEncoder(), options.vertices).eval()
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=2e-4)
    audio, style = torch.randn(1, options.frames, 1, 64), torch.eye(8)[:1]
    with torch.no_grad():
        actor.decoder.decode(actor.generate(audio[:, :20], style))  # warm up
        began = time.perf_counter()
        ours = actor.decoder.decode(actor.generate(audio, style))
        fast = time.perf_counter() - began
    began = time.perf_counter()
    slow_result = prefix_rerun(actor, audio, style)
    slow = time.perf_counter() - began
    row = {
        "frames": options.frames,
        "vertices": options.vertices,
        "ours_s": round(fast, 3),
        "prefix_s": round(slow, 3),
        "ratio": round(slow / fast, 1),
        "max_difference_m": float((ours - slow_result).abs().max()),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
