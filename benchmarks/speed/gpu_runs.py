"""Parts of the GPU benchmark that run what a user runs: tests, recipes, validation on a corpus on disk."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks.speed.gpu_report import Report, precision, seconds_once
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer

ROOT = Path(__file__).resolve().parents[2]


def validation(report: Report) -> None:
    """Validation on a corpus on disk, deterministic: seconds and what it finds, on the CPU and on the device."""
    from s2f_rl.data import FaceCorpus
    from s2f_rl.data.synthetic import synthesize
    from s2f_rl.evaluation import Scorer
    from s2f_rl.training import Validation

    size, rows = report.size, []
    with tempfile.TemporaryDirectory() as folder:
        root = synthesize(Path(folder), 12, 4, vertices=max(300, size.vertices), progress=False)
        train, held_out = (FaceCorpus(root, split=split) for split in ("train", "validation"))
        for device in dict.fromkeys((torch.device("cpu"), report.device)):
            torch.manual_seed(0)
            actor = FaceFormer(MelAudioEncoder(), train.n_vertices, n_subjects=len(train.subjects)).eval()
            torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=2e-4)
            backbone = SpeechMeshTransformer(3 * train.n_vertices, size.width, size.depth, n_heads=8)
            model = RewardModel(backbone, ScoreHead(size.width, size.width)).to(device)
            measure = Validation(actor.to(device), held_out, Scorer({"train": model}, held_out), stride=5, styles=2)
            with precision("float32"):
                first = seconds_once(measure, device)
                found = measure()
                row: dict[str, object] = {"device": device.type, "utterances": len(held_out), "first, s": first}
                row["again, s"] = seconds_once(measure, device)
            rows.append(row | {key: found[key] for key in ("lve", "lip_score", "real_score")})
    report.table("Validation", rows)


def recipe(report: Report) -> None:
    """`supervised`, `reward`, then `ppo` on a small synthetic corpus, on the CPU and beside it on the device."""
    with tempfile.TemporaryDirectory() as folder:
        synthesize_small = "from s2f_rl.data.synthetic import synthesize; synthesize({!r}, 6, 4, vertices=300)"
        run_python(["-c", synthesize_small.format(f"{folder}/corpus")])
        n = 4 if report.options.tiny else 20

        def chain(device: str) -> dict[str, object]:
            shared = [f"root={folder}/{device}", f"corpus.root={folder}/corpus", f"device={device}", "seed=1"]
            shared += ["logger=none", "progress=false"]
            few = ["evaluation.utterances=2", f"listening.iterations={n // 2}"]
            learnt = f"start={folder}/{device}/supervised", f"reward.folder={folder}/{device}/reward"
            row: dict[str, object] = {"device": device}
            for name, own in (("supervised", []), ("reward", few), ("ppo", [*learnt, "lanes=16"])):
                began = time.perf_counter()
                run_python(
                    [f"recipes/{name}.py", *shared, f"name={name}", f"iterations={n}", f"evaluation.every={n}", *own]
                )
                row[f"{name}, s"] = time.perf_counter() - began
            last = (Path(folder) / device / "ppo/metrics.jsonl").read_text().splitlines()[-1]
            logged = {key: value for key, value in json.loads(last).items() if key.endswith(("lve", "reward"))}
            return row | logged

        with ThreadPoolExecutor() as threads:
            rows = list(threads.map(chain, dict.fromkeys(("cpu", report.device.type))))
    report.table(f"Recipes, {n} iterations each", rows)


def run_python(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(" ".join(arguments) + "\n" + (done.stdout + done.stderr)[-3000:])


def tests(report: Report) -> None:
    """The tests that need a CUDA device, and recipes, which take one where there is one; all output in tests.txt."""
    whole = ""
    for what in (
        ["-m", "cuda", "tests/collectors", "tests/test_device_rows.py"],
        ["-n", "8", "tests/recipes/test_recipes.py", "-k", "test_rl or learns"],
    ):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", *what]
        if report.options.tiny:
            command.append("--collect-only")
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=95)
            output, code = done.stdout + done.stderr, str(done.returncode)
        except subprocess.TimeoutExpired as error:
            output, code = str(error.stdout or ""), "timeout"
        whole += output
        last = [line for line in output.splitlines() if line.startswith(("E  ", "FAILED", "ERROR"))][:30]
        report.say("", f"pytest {' '.join(what)}: exit {code}", *last, *output.strip().splitlines()[-1:])
    (report.options.out / "tests.txt").write_text(whole)
