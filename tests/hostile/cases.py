"""The hostile cases: each kind spoils a copy of something sound, gives it to the program, and says what is right.

A case may end in a right result or in a UserError; :mod:`hostile.harness` looks at everything else.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hostile import mutations
from hostile.material import N_VERTICES, WAV2VEC2
from hostile.mutations import VALUES, spoil
from hostile.named import checkpoint_kind, reward_part
from omegaconf import OmegaConf

from s2f_rl import cli
from s2f_rl.data import FaceCorpus, check_corpus, format_faults, prepare_biwi, prepare_vocaset
from s2f_rl.data.audio import read_wav, wav_header, write_wav
from s2f_rl.data.coefficients.basis_files import read_basis
from s2f_rl.data.files import atomic_save_npy, atomic_write_json, atomic_write_text, load_json, load_plain_pickle
from s2f_rl.data.glb_files import read_glb
from s2f_rl.data.mesh_files import read_obj, read_ply_mesh
from s2f_rl.data.synthetic.hidden import Hidden
from s2f_rl.data.tensor_files import load_tensors, save_tensors
from s2f_rl.errors import UserError, one_line
from s2f_rl.evaluation.tables import write_rows
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.rewards.judge.judge import load_scorer
from s2f_rl.rewards.model.reward_model import RewardModel
from s2f_rl.runs.configs import compose_config, finish_config

CONF = Path(__file__).resolve().parents[2] / "recipes" / "conf"
Case = Callable[[random.Random, Path, Path, list[str]], None]
"""(generator, material, empty folder, list that receives what was done) -> None, or UserError, or a fault."""


def corpus(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """``check`` never raises; a corpus opens and reads whole, or is refused; what is harmless changes nothing."""
    root = shutil.copytree(material / "corpus", folder / "corpus")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    if rng.random() < 0.2:
        texts = [path for path in files if path.suffix in (".json", ".txt")]
        done += [mutations.byte_order_mark(rng, rng.choice(texts)), mutations.behind_a_link(rng, rng.choice(files))]
        faults = check_corpus(root)
        assert list(faults) == list(check_corpus(material / "corpus")), format_faults(faults)
        return
    for _ in range(rng.choice([1, 1, 2])):
        path = rng.choice(files)
        if path.is_file() and not path.is_symlink():
            done.append(spoil(rng, path, [mutations.odd_name]))
    faults = check_corpus(root)
    assert all(str(fault) == one_line(fault) for fault in faults), format_faults(faults)
    opened = FaceCorpus(root, "all")
    for utterance in opened:
        for part in (utterance.vertices, utterance.waveform, utterance.mel_clips, utterance.template):
            assert part is None or bool(torch.isfinite(part).all()), "not finite"
        assert utterance.vertices is None or len(utterance.vertices) == utterance.n_frames
        _ = utterance.phones, utterance.transcript
    _ = opened.regions, opened.faces, opened.metadata
    Hidden.load(root / "hidden" / "S0_sentence01.npz")


def command(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """The command ends with 0, 1 or 2; what it prints is printable; 2 comes with one line."""
    root = shutil.copytree(material / "corpus", folder / "corpus")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    done.append(spoil(rng, rng.choice(files), [mutations.odd_name, mutations.odd_name]))
    _told(["check", str(root)])


def _told(arguments: list[str]) -> int:
    """Run the command; its exit code, after a look at what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(arguments)
    assert code in (0, 1, 2), code
    for line in (out.getvalue() + err.getvalue()).splitlines():
        assert line.isprintable(), ascii(line)
    assert code != 2 or err.getvalue().count("error: ") == 1, err.getvalue()
    return code


def animate(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """``animate`` writes a whole motion, or nothing and leaves what was there."""
    speech = shutil.copy(material / "corpus" / "wav" / "S0_sentence01.wav", folder)
    checkpoint = shutil.copy(material / "actor" / "mel.pt", folder)
    out = folder / "place" / "out.npy"
    out.parent.mkdir()
    if rng.random() < 0.5:
        out.write_bytes(b"old")
    elif rng.random() < 0.5:
        done.append(f"written to {_make_special(rng, out)}")
    else:
        done.append(spoil(rng, Path(rng.choice([speech, checkpoint])), []))
    before = _look(out)
    code = _told(["animate", speech, "--checkpoint", checkpoint, "--out", str(out), "--device", "cpu"])
    assert code == 0 or _look(out) == before, "a failure changed what was there"
    assert code or np.load(out).shape[1] == 3 * N_VERTICES


def score(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """``score`` writes a whole table, or nothing and leaves what was there."""
    meshes = shutil.copytree(material / "corpus" / "vertices_npy", folder / "meshes")
    reward_folder = shutil.copytree(material / rng.choice(["reward", "judge"]), folder / "reward")
    out = folder / "place" / "out.csv"
    out.parent.mkdir()
    if is_special := rng.random() < 0.3:
        done.append(f"written to {_make_special(rng, out)}")
    else:
        done.append(spoil(rng, rng.choice(sorted(rng.choice([meshes, reward_folder]).iterdir())), [mutations.odd_name]))
    before = _look(out)
    places = ["--corpus", str(material / "corpus"), "--reward", str(reward_folder), "--out", str(out)]
    code = _told(["score", str(meshes), *places, "--device", "cpu"])
    assert code == 0 or _look(out) == before, "a failure changed what was there"
    assert not is_special or set(os.listdir(out.parent)) <= {"out.csv", "absent"}, os.listdir(out.parent)


def actor(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """An actor animates, or is refused before it takes time or memory; no file makes it ask a hub."""
    path = Path(shutil.copy(material / "actor" / rng.choice(sorted(os.listdir(material / "actor"))), folder))
    if path.suffix == ".pt" and rng.random() < 0.7:
        done.append(_other_settings(rng, path))
    else:
        done.append(spoil(rng, path, []))
    model, about = load_actor(path, audio_config=WAV2VEC2 if "published" in path.name else None)
    assert about == {} or about["subjects"] == ["S0"]
    style = torch.eye(model.decoder.n_subjects)[:1]
    with torch.no_grad():
        moved = model.predict(torch.randn(1, 4000), torch.zeros(1, 3 * N_VERTICES), style)
    assert moved.shape[2] == 3 * N_VERTICES


_HOSTILE_SETTINGS = {
    "pretrained": "owner/name",
    "local_files_only": False,
    "attn_implementation": "kernels-community/x",
    "_attn_implementation": "owner/name",
    "auto_map": {"AutoModel": "owner/name--code.Model"},
    "name_or_path": "owner/name",
    "quantization_config": {"quant_method": "bitsandbytes"},
    "__class__": "x",
}


def _other_settings(rng: random.Random, path: Path) -> str:
    content: Any = torch.load(path, weights_only=True)
    entry = content["actor"]
    places = [entry["config"], entry["config"]["audio"]]
    if isinstance(entry["config"]["audio"].get("config"), dict):
        places += [entry["config"]["audio"]["config"]] * 2
    holder = rng.choice(places)
    how = rng.random()
    if how < 0.25:
        name = rng.choice(sorted(_HOSTILE_SETTINGS))
        value = holder[name] = _HOSTILE_SETTINGS[name]
    elif how < 0.85:
        name = rng.choice(sorted(holder))
        value = holder[name] = rng.choice([value for value in VALUES if value != 10**400])
    else:
        name = rng.choice(sorted(entry["state_dict"]))
        tensor = entry["state_dict"][name]
        changes = [
            lambda: tensor[..., :1].clone(),
            lambda: torch.zeros(1).expand(1000, 262),
            lambda: torch.zeros(0),
            lambda: tensor.to(torch.complex64),
            lambda: tensor.to(torch.int8),
            lambda: "text",
            lambda: [1.0, 2.0],
        ]
        value = entry["state_dict"][name] = rng.choice(changes)()
        value = "another tensor" if isinstance(value, torch.Tensor) else value
    torch.save(content, path)
    return f"{name} = {ascii(value)[:60]}"


def reward(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """A reward, a judge or a folder in the hub's form scores, or is refused."""
    kind = rng.choice(["reward", "judge", "hub"])
    root = shutil.copytree(material / kind, folder / kind)
    done.append(spoil(rng, rng.choice(sorted(root.iterdir())), []))
    scorer = RewardModel.load(root) if kind == "hub" else load_scorer(root)
    scores = scorer.score(torch.zeros(25, 3 * N_VERTICES), torch.zeros(21, 20, 128))
    assert all(len(score) == 25 for score in scores.values())


def mesh(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """Every corner of what is read is a vertex."""
    path = Path(shutil.copy(material / "mesh" / rng.choice(["face.obj", "ascii.ply", "binary.ply"]), folder))
    for _ in range(rng.choice([1, 2])):
        done.append(rng.choice([*mutations.BYTES, mutations.number, mutations.number])(rng, path))
    if rng.random() < 0.15:
        done.append(mutations.special(rng, path))
    if path.suffix == ".obj":
        points, faces = read_obj(path)
        assert np.isfinite(points).all() and (not len(faces) or 0 <= faces.min() <= faces.max() < len(points))
    else:
        found = read_ply_mesh(path)
        assert np.isfinite(found.vertices).all()
        assert not len(found.faces) or 0 <= found.faces.min() <= found.faces.max() < len(found.vertices)


def rig(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """A rig has shapes of its own vertices, and finite ones, or is refused."""
    path = Path(shutil.copy(material / "mesh" / "face.glb", folder))
    if rng.random() < 0.7:
        done.append(mutations.glb_tree(rng, path))
    if not done or rng.random() < 0.2:
        done.append(rng.choice([*mutations.BYTES, mutations.special])(rng, path))
    for each in read_glb(path):
        assert not len(each.triangles) or 0 <= each.triangles.min() <= each.triangles.max() < len(each.vertices)
    basis = read_basis(path)
    assert bool(torch.isfinite(basis.shapes).all()) and basis.shapes.shape[1:] == basis.neutral.shape


def pickled(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """A pickle gives plain data or is refused."""
    path = Path(shutil.copy(material / "corpus" / "templates.pkl", folder))
    done.append(rng.choice([mutations.pickle_program, mutations.pickle_program, mutations.flip_head])(rng, path))
    assert len(repr(load_plain_pickle(path))) < 10**8


def biwi(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """``prepare biwi`` converts what is sound and lists the rest."""
    raw = shutil.copytree(material / "biwi", folder / "raw")
    files = sorted(path for path in raw.rglob("*") if path.is_file())
    for path in rng.sample(files, rng.choice([1, 2])):
        done.append(f"{path.name}: {rng.choice([*mutations.BYTES, mutations.special, mutations.special])(rng, path)}")
    if rng.random() < 0.2:
        frame = raw / "faces" / "F1" / "e01" / f"frame_{'7' * rng.choice([20, 200])}.vl"
        frame.write_bytes(b"")
        done.append("a frame with a long number")
    report = prepare_biwi(raw, folder / "out", n_vertices=6, progress=False)
    assert all(line == one_line(line) for line in report.problems)


def vocaset(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """``prepare vocaset`` converts what is sound and lists the rest."""
    raw = shutil.copytree(material / "vocaset", folder / "raw")
    done.append(spoil(rng, rng.choice(sorted(raw.iterdir())), []))
    prepare_vocaset(raw, folder / "out", progress=False)


def sound(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """A sound is finite and has as many samples as its header says."""
    path = Path(shutil.copy(material / "corpus" / "wav" / "S0_sentence01.wav", folder))
    done.append(rng.choice([*mutations.BYTES, mutations.flip_head, mutations.special])(rng, path))
    n_samples, rate = wav_header(path)
    waveform, read_rate = read_wav(path)
    assert read_rate == rate and len(waveform) == n_samples and np.isfinite(waveform).all()


def config(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """A recipe's config is composed or refused."""
    name = rng.choice(sorted(path.stem for path in CONF.glob("*.yaml")))
    plain: Any = OmegaConf.to_container(compose_config(CONF, name), resolve=False)
    keys = [f"{group}.{leaf}" for group, value in plain.items() if isinstance(value, dict) for leaf in value]
    key = rng.choice([*plain, *keys, "nothing", "actor", "seed", "name", "iterations"])
    value = rng.choice(
        [*mutations.NUMBERS, "null", "true", "[]", "{a: 1}", "'a/b'", "'a\\nb'", "${x}", "${seed}", "''"]
    )
    done.append(f"{name}: {key}={value[:40]}")
    overrides = [f"{rng.choice(['', '', '+', '++', '~'])}{key}={value}"]
    finish_config(compose_config(CONF, name, overrides), CONF, name, overrides)


def output(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """What is written is whole, or the place is as it was: device, pipe, link, folder, full disk, long name."""
    target = folder / "place" / "out.bin"
    target.parent.mkdir()
    links, specials = ["link", "dangling"], ["device", "fifo", "loop", "folder", "socket"]
    place = rng.choice(["file", "new", *links, *specials, "under a file", "long", "NUL"])
    old = b"what was there"
    if place in ("file", "link"):
        (folder / "real.bin" if place == "link" else target).write_bytes(old)
    if place in links:
        target.symlink_to(folder / "real.bin")
    elif place in specials:
        _make_special(rng, target, [place])
    elif place == "under a file":
        target.parent.joinpath("file").write_bytes(b"")
        target = target.parent / "file" / "out.bin"
    elif place == "long":
        target = target.with_name("x" * 300)
    elif place == "NUL":
        target = target.with_name("a\0b")
    before = _look(target)
    is_full = rng.random() < 0.4
    if is_full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    numbers = np.arange(10_000.0)
    writers: dict[str, Callable[[], None]] = {
        "json": lambda: atomic_write_json(target, numbers.tolist()),
        "text": lambda: atomic_write_text(target, "\udcff" * 30_000),
        "npy": lambda: atomic_save_npy(target, numbers),
        "tensors": lambda: save_tensors(target, {"a": torch.from_numpy(numbers)}),
        "wav": lambda: write_wav(target, numbers / 20_000, 16000, "FLOAT"),
        "table": lambda: write_rows(target, [{"a": number} for number in numbers]),
    }
    writer = rng.choice(sorted(writers))
    done.append(f"{writer} to {place}{', full' if is_full else ''}")
    try:
        writers[writer]()
    except UserError:
        assert _look(target) == before, "it was changed by a write that failed"
        assert is_full or place not in ("file", "new", *links), "it could have been written"
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert not is_full and place in ("file", "new", *links), "it cannot have been written"
    assert target.is_symlink() == (place in links) and target.stat().st_size > 20_000
    if writer == "json":
        assert load_json(target) == numbers.tolist()
    elif writer == "tensors":
        assert load_tensors(target)["a"].tolist() == numbers.tolist()


def _make_special(rng: random.Random, path: Path, kinds: list[str] | None = None) -> str:
    path.touch()
    return mutations.special(rng, path, kinds or ["fifo", "device", "loop", "nowhere", "folder", "socket"])


def _look(path: Path) -> Any:
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    linked = os.readlink(path) if path.is_symlink() else ""
    content = path.read_bytes() if path.is_file() else b""
    return status.st_mode, status.st_ino, linked, content


KINDS: dict[str, Case] = {
    case.__name__: case
    for case in (
        corpus,
        command,
        animate,
        score,
        actor,
        reward,
        mesh,
        rig,
        pickled,
        biwi,
        vocaset,
        sound,
        config,
        output,
        checkpoint_kind,
        reward_part,
    )
}
