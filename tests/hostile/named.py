"""Hostile cases of what is chosen by name: the kind in a checkpoint, a part of a reward, the phones that it reads."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from hostile.material import N_VERTICES
from hostile.mutations import VALUES, spoil

from s2f_rl.data import FaceCorpus
from s2f_rl.models import FaceFormer
from s2f_rl.models.actors import ACTORS
from s2f_rl.models.audio_encoders import AudioEncoder
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.rewards.parts import RewardParts
from s2f_rl.rewards.registry import build_part

_TRAP = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nraise SystemExit(0)\n"
_MODULES = {
    "trap": _TRAP,
    "broken": "def f(:\n",
    "bare": "raise RuntimeError('two\\nlines')\n",
    "odd": "VALUE = 3\ndef takes_nothing(): ...\ndef takes_all(corpus, device, **options): return options\n",
}
_KINDS = [
    "trap:Trap", "trap", "os:getcwd", "builtins:dict", "faceformer ", "FACEFORMER", "\u0444aceformer", "faceformer\0",
    "faceformer:", ":", "..trap:Trap", "x" * 10**6, "closure", b"faceformer", ("faceformer",), torch.zeros(3),
    {"a": ["faceformer"] * 1000}, "narrow", "narrow",
]  # fmt: skip
_PARTS = [
    "trap:X", "broken:X", "bare:X", "odd:VALUE", "odd:takes_nothing", "odd:takes_all", "odd:absent", "builtins:dict",
    "json:dumps", "..odd:X", "closure", "closure", "perceptual",
]  # fmt: skip
_OPTIONS = ["corpus", "device", "self", "folder", "cache_folder", "softness_mm", "margin_s", "kind", "x", "a b", ""]
_TIMES = [0, 0.05, 0.1, 0.2, 0.5, 3, -1, 86400, 86401, 1e300, 10**400, float("nan"), float("inf"), "0", None, True]


class Narrow(FaceFormer):
    """An actor that this process knows, without the settings that other files have."""

    kind = "narrow"

    def __init__(self, audio_encoder: AudioEncoder, n_vertices: int, n_subjects: int) -> None:
        super().__init__(audio_encoder, n_vertices, n_subjects=n_subjects, feature_dim=16)


def checkpoint_kind(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """A file's kind is one that is known, with that kind's settings, or the file is refused; no code is imported."""
    _modules(folder)
    if Narrow.kind not in ACTORS.names():
        ACTORS.register(Narrow.kind, Narrow)
    path = Path(shutil.copy(material / "actor" / "mel.pt", folder))
    content: Any = torch.load(path, weights_only=True)
    entry = content["actor"]
    entry["kind"] = rng.choice([*_KINDS, *(value for value in VALUES if value != 10**400)])
    done.append(f"kind = {ascii(entry['kind'])[:40]}")
    if rng.random() < 0.5:
        kept = sorted(entry["config"])[: rng.randrange(len(entry["config"]) + 1)]
        entry["config"] = {name: entry["config"][name] for name in kept}
        done.append(f"config: {kept}")
    if entry["kind"] == Narrow.kind and rng.random() < 0.3:
        entry["config"] = {k: v for k, v in entry["config"].items() if k in ("n_vertices", "n_subjects", "audio")}
    torch.save(content, path)
    try:
        model = load_actor(path)[0]
    finally:
        assert "trap" not in sys.modules and not (folder / "ran").exists(), "a file had code imported"
    assert model.kind == entry["kind"]
    with torch.no_grad():
        moved = model.predict(torch.randn(1, 4000), torch.zeros(1, 3 * N_VERTICES), torch.ones(1, 1))
    assert moved.shape[2] == 3 * N_VERTICES


def reward_part(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """A part of a reward is made and scores, or is refused; so is the closure reward on phones of any origin."""
    _modules(folder)
    root = shutil.copytree(material / "corpus", folder / "corpus")
    name, options = "closure", {}
    if rng.random() < 0.5:
        path = root / "phones" / "S0_sentence01.json"
        done.append(_other_phones(rng, path) if rng.random() < 0.7 else spoil(rng, path, []))
    else:
        name = rng.choice(_PARTS)
        options = {rng.choice(_OPTIONS): rng.choice(VALUES) for _ in range(rng.randrange(3))}
        for option in {"softness_mm", "margin_s"} & options.keys():  # a config's schema looks at types
            options[option] = rng.choice([value for value in VALUES if type(value) in (int, float)])
        done.append(f"{name} {ascii(options)[:80]}")
    corpus = FaceCorpus(root, "all")
    reward = RewardParts({"a": build_part(name, options, corpus)}, corpus)
    vertices = torch.stack([corpus[0].template] * 20)[None]
    for score, mask in reward.score([0], vertices, torch.ones(1, 20, dtype=torch.bool))[0].values():
        assert score.shape == mask.shape == (1, 20) and bool(torch.isfinite(score).all())


def _other_phones(rng: random.Random, path: Path) -> str:
    names = ["P", "AA", "m", "", "sil", *(value for value in VALUES if isinstance(value, str) and value != "\ud800")]
    n = rng.choice([1, 1, 2, 3, 20, 20_000])
    plain = rng.random() < 0.5
    phones = [[rng.choice(names[:5] if n > 20 else names), *(rng.choice(_TIMES) for _ in range(2))] for _ in range(n)]
    if plain:  # overlapping, unsorted, outside the sound, and all as it may be
        phones = [[phone, *sorted(rng.choice(_TIMES[:6]) for _ in range(2))] for phone, *_ in phones]
    path.write_text(json.dumps(phones))
    return f"{n} phones: {ascii(phones[:3])[:80]}"


def _modules(folder: Path) -> None:
    for name, code in _MODULES.items():
        (folder / f"{name}.py").write_text(code)
    sys.path.insert(0, str(folder))
    sys.path_importer_cache.pop(str(folder), None)
