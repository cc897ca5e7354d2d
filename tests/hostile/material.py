"""Small sound inputs of every kind, which the hostile cases then spoil."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from tiny import WAV2VEC2, make_tiny_corpus

from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.synthetic.hidden import Hidden
from s2f_rl.data.tensor_files import save_safetensors, save_tensors
from s2f_rl.exchange import Face, write_glb
from s2f_rl.models import FaceFormer, MelAudioEncoder, Wav2Vec2AudioEncoder
from s2f_rl.models.checkpoint import actor_payload
from s2f_rl.rewards.judge.judge import Judge
from s2f_rl.rewards.model.head import ScoreHead
from s2f_rl.rewards.model.reward_model import RewardModel
from s2f_rl.rewards.model.speech_mesh import SpeechMeshTransformer

N_VERTICES = 40


def make_material(root: Path) -> Path:
    """Write everything below ``root`` (about a megabyte) and return it."""
    torch.manual_seed(0)
    corpus = make_tiny_corpus(root / "corpus", 2, 1, N_VERTICES, seconds=(0.6, 0.7))
    _beside_the_corpus(corpus)
    _models(root)
    _meshes(root / "mesh")
    _biwi(root / "biwi")
    _vocaset(root / "vocaset")
    return root


def _beside_the_corpus(corpus: Path) -> None:
    (corpus / "regions").mkdir()
    (corpus / "regions" / "lve.txt").write_text("0, 1, 2, 3\n4, 5\n")
    (corpus / "phones").mkdir()
    (corpus / "phones" / "S0_sentence01.json").write_text('[["P", 0.0, 0.1], ["AA", 0.1, 0.5]]')
    (corpus / "transcripts.json").write_text('{"S0_sentence01": "pa"}')
    (corpus / "hidden").mkdir()
    (corpus / "hidden" / "S0_sentence01.npz").write_bytes(Hidden.none(2).to_bytes())


def _models(root: Path) -> None:
    for name, encoder in (("mel", MelAudioEncoder(width=12)), ("wav2vec2", Wav2Vec2AudioEncoder(WAV2VEC2))):
        actor = FaceFormer(encoder, N_VERTICES, feature_dim=16, n_subjects=1)
        save_tensors(root / "actor" / f"{name}.pt", {"actor": actor_payload(actor, ["S0"]), "iteration": 3})
        if name == "wav2vec2":
            save_tensors(root / "actor" / "published.pth", actor.to_reference())
            save_safetensors(root / "actor" / "published.safetensors", actor.to_reference())
    backbone = SpeechMeshTransformer(3 * N_VERTICES, width=32, depth=1, n_heads=2)
    reward = RewardModel(backbone, ScoreHead(32, 32, hidden=8))
    reward.save(root / "reward")
    reward.save_pretrained(root / "hub")
    Judge(torch.randn(6, 3 * N_VERTICES), torch.randn(3 * N_VERTICES), width=8, hidden=8).save(root / "judge")


def _meshes(folder: Path) -> None:
    folder.mkdir()
    points = np.random.default_rng(0).normal(size=(6, 3))
    lines = [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in points]
    (folder / "face.obj").write_text("\n".join([*lines, "f 1 2 3 4", "f 4/1/1 5/2/2 6/3/3", "f -1 -2 -3"]) + "\n")
    header = (
        "ply\nformat {} 1.0\nelement vertex 6\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
    )
    text = "".join(f"{x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in points) + "4 0 1 2 3\n3 3 4 5\n"
    (folder / "ascii.ply").write_text(header.format("ascii") + text)
    body = points.astype("<f4").tobytes() + struct.pack("<B4i", 4, 0, 1, 2, 3) + struct.pack("<B3i", 3, 3, 4, 5)
    shapes = torch.from_numpy(0.01 * points[:3, None] * np.ones((3, 6, 1)))
    basis = LinearBasis(torch.from_numpy(0.1 * points), shapes, ("a", "b", "c"), torch.tensor([[0.0, 1.0]] * 3))
    corners = np.array([[0, 1, 2], [0, 2, 3], [3, 4, 5]])
    write_glb(folder / "face.glb", basis, np.zeros((2, 3)), 30.0, Face(corners, np.zeros((6, 3), np.uint8)))
    (folder / "binary.ply").write_bytes(header.format("binary_little_endian").encode() + body)


def _biwi(raw: Path) -> None:
    """Two sentences of one subject, one as a folder of frames and one as an archive; 6 vertices of 185 mm."""
    (raw / "rigid_scans").mkdir(parents=True)
    points = 120.0 * np.random.default_rng(1).normal(size=(6, 3))
    lines = [f"v {x:.3f} {y:.3f} {z:.3f}" for x, y, z in points] + ["f 1 2 3", "f 4 5 6", "f 1 5 6"]
    (raw / "rigid_scans" / "F1.obj").write_text("\n".join(lines) + "\n")
    frame = struct.pack("<I", 6) + points.astype("<f4").tobytes()
    (raw / "faces" / "F1" / "e01").mkdir(parents=True)
    (raw / "wav").mkdir()
    with tarfile.open(raw / "faces" / "F1" / "e02.tar", "w") as archive:
        for number in range(1, 4):
            (raw / "faces" / "F1" / "e01" / f"frame_{number:03}.vl").write_bytes(frame)
            member = tarfile.TarInfo(f"e02/frame_{number:03}.vl")
            member.size = len(frame)
            archive.addfile(member, io.BytesIO(frame))
    for sentence in ("e01", "e02"):
        soundfile.write(raw / "wav" / f"F1_{sentence}.wav", np.linspace(-0.5, 0.5, 2000), 16000)


def _vocaset(raw: Path) -> None:
    raw.mkdir()
    rng = np.random.default_rng(2)
    np.save(raw / "data_verts.npy", rng.normal(size=(6, 24, 3)).astype(np.float32))
    sound = {"audio": (1000 * rng.normal(size=900)).astype(np.int16), "sample_rate": 22000}
    contents = {
        "templates.pkl": {"A": rng.normal(size=(24, 3))},
        "raw_audio_fixed.pkl": {"A": {"sentence01": sound}},
        "subj_seq_to_idx.pkl": {"A": {"sentence01": {k: k for k in range(6)}}},
    }
    for name, content in contents.items():
        (raw / name).write_bytes(pickle.dumps(content, protocol=2))
