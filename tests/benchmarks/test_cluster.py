"""The pool's commands on Ray; runs where the ray extra is installed."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import pytest

from benchmarks.harness.cluster import on_ray
from benchmarks.harness.pool import Job, Step, read_record, run_jobs
from s2f_rl.errors import UserError

HAS_RAY = importlib.util.find_spec("ray") is not None


def job(folder: Path, name: str, code: str) -> Job:
    return Job(name, (Step((sys.executable, "-c", code), folder / f"{name}.json", (code,)),))


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray() -> None:
    with pytest.raises(UserError, match=r"jobs=ray needs the ray extra: pip install 's2f_rl\[ray\]'"), on_ray():
        pass


@pytest.mark.skipif(not HAS_RAY, reason="needs the ray extra")
def test_records_as_of_processes(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, "good", "import os; print('here', os.environ['OMP_NUM_THREADS'])"),
        job(tmp_path, "bad", "print('about to fail'); raise SystemExit(3)"),
    ]
    with on_ray() as launch:
        assert run_jobs(jobs, 2, launch=launch) == 1
        assert (tmp_path / "good.log").read_text() == "here 1\n"
        records = {name: read_record(tmp_path / f"{name}.json") for name in ("good", "bad")}
        assert (records["good"]["status"], records["bad"]["status"], records["bad"]["returncode"]) == (
            "done",
            "failed",
            3,
        )
        assert records["bad"]["error"] == "about to fail"
        # what is stopped does not go on
        late = tmp_path / "late"
        code = f"import time; time.sleep(3); open({str(late)!r}, 'w')"
        task = launch([sys.executable, "-c", code], tmp_path / "x.log", {})
        time.sleep(1)
        assert task.poll() is None
        task.end()
    time.sleep(3)
    assert not late.exists()
