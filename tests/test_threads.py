"""Threads: one in the frame loop, the count of before afterwards; the share of the cores that a container grants."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from s2f_rl import threads
from s2f_rl.threads import available_cores, cpu_quota, one_thread, use_available_cores

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class TestOneThread:
    def test_restored(self):
        with one_thread():
            assert torch.get_num_threads() == 1
            with one_thread():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3

    def test_restored_after_an_exception(self):
        with pytest.raises(KeyError), one_thread():
            raise KeyError
        assert torch.get_num_threads() == 3

    def test_in_python_threads_that_overlap(self):
        """The second enters and leaves inside the first's loop, or outlives it: both end with the count of before."""
        for outlives in (False, True):
            seen, entered, leave = [], threading.Event(), threading.Event()

            def loop(entered=entered, leave=leave, seen=seen):
                with one_thread():
                    seen.append(torch.get_num_threads())
                    entered.set()
                    leave.wait(20)
                seen.append(torch.get_num_threads())

            other = threading.Thread(target=loop)
            with one_thread():
                other.start()
                entered.wait(20)
                if not outlives:
                    leave.set()
                    other.join(20)
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 3
            leave.set()
            other.join(20)
            assert seen == [1, 3]
            later = []
            third = threading.Thread(target=lambda later=later: later.append(torch.get_num_threads()))
            third.start()
            third.join(20)
            assert later == [3]


def fake(root: Path, groups: str, mounts: list[str], files: dict[str, str]) -> Path:
    """A root folder with what control groups show in ``proc`` and in their mounts."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    other = "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    (root / "proc/self/mountinfo").write_text(other + "".join(f"{line}\n" for line in mounts))
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


SECOND = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
FIRST = "32 31 0:29 {} /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct"


class TestQuota:
    @pytest.mark.parametrize(
        ("groups", "mounts", "files", "expected"),
        [
            # version 2: a container that sees itself as the root
            ("0::/\n", [SECOND], {"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2.5),
            ("0::/\n", [SECOND], {"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
            ("0::/\n", [SECOND], {}, None),  # the real root has no such file
            # a group below another: the smaller of the two holds
            (
                "0::/a.slice/b\n",
                [SECOND],
                {"sys/fs/cgroup/a.slice/cpu.max": "50000 100000", "sys/fs/cgroup/a.slice/b/cpu.max": "400000 100000"},
                0.5,
            ),
            ("0::/a/b\n", [SECOND], {"sys/fs/cgroup/a/cpu.max": "max 100000", "sys/fs/cgroup/a/b/cpu.max": "1 1"}, 1.0),
            ("0::/../../other\n", [SECOND], {"sys/fs/cgroup/cpu.max": "300000 100000"}, 3.0),
            # version 1, with the host's name of the group and the container's own mount
            (
                "4:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n",
                [FIRST.format("/docker/x")],
                {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
                1.5,
            ),
            (
                "4:cpu,cpuacct:/job\n",
                [FIRST.format("/")],
                {
                    "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "200000",
                    "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "50000",
                    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
                },
                4.0,
            ),
            (
                "4:cpuset:/x\n",  # its cpu controller is elsewhere: nothing to read
                [FIRST.format("/")],
                {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "1"},
                None,
            ),
            # both at once, and a mount point with a space
            (
                "4:cpu:/\n0::/\n",
                [FIRST.format("/"), SECOND.replace("/sys/fs/cgroup ", "/a\\040b ")],
                {
                    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "700000",
                    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
                    "a b/cpu.max": "600000 100000",
                },
                6.0,
            ),
            # what is not understood is no limit
            ("0::/\n", [SECOND], {"sys/fs/cgroup/cpu.max": "1000 0\n"}, None),
            ("0::/\n", [SECOND], {"sys/fs/cgroup/cpu.max": "-1 100000\n"}, None),
            ("0::/\n", [SECOND], {"sys/fs/cgroup/cpu.max": "\n"}, None),
            ("0::/\n", [SECOND], {"sys/fs/cgroup/cpu.max": "many 100000\n"}, None),
            ("nonsense\n\n", ["short", "- cgroup2", SECOND], {"sys/fs/cgroup/cpu.max": "1 1"}, None),
        ],
    )
    def test_files(self, tmp_path, groups, mounts, files, expected):
        assert cpu_quota(fake(tmp_path, groups, mounts, files)) == expected

    def test_without_proc(self, tmp_path):
        assert cpu_quota(tmp_path) is None

    @pytest.mark.parametrize(("quota", "cores"), [(None, 8), (0.3, 1), (1.0, 1), (2.5, 3), (64.0, 8)])
    def test_cores(self, monkeypatch, quota, cores):
        monkeypatch.setattr(threads, "_affinity", lambda: 8)
        monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
        assert available_cores() == cores

    @pytest.mark.parametrize(
        ("environment", "quota", "expected"),
        [
            ({}, 1.2, 2),
            ({}, None, 3),
            ({}, 5.0, 3),
            ({"OMP_NUM_THREADS": "3"}, 1.0, 3),
            ({"MKL_NUM_THREADS": "3"}, 1.0, 3),
        ],
    )
    def test_torch_gets_no_more(self, monkeypatch, environment, quota, expected):
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(threads, "_affinity", lambda: 8)
        monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
        use_available_cores()
        assert torch.get_num_threads() == expected


class TestPatience:
    @pytest.mark.parametrize(
        ("own", "expected"),
        [({}, "1000 None"), ({"GOMP_SPINCOUNT": "7"}, "7 None"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None ACTIVE")],
    )
    def test_set_before_torch_unless_the_user_did(self, own, expected):
        code = (
            "import os, sys, s2f_rl.patient; assert 'torch' not in sys.modules; "
            "print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
        )
        environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
        run = subprocess.run([sys.executable, "-c", code], env=environment | own, capture_output=True, text=True)
        assert run.stdout.strip() == expected, run.stderr

    def test_every_recipe_and_the_command_begin_with_it(self):
        scripts = sorted((ROOT / "recipes").glob("*.py")) + [ROOT / "s2f_rl" / "cli.py"]
        assert len(scripts) > 10
        for script in scripts:
            names = []
            for node in ast.parse(script.read_text(encoding="utf-8")).body:
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            heavy = [name for name in names if name.split(".")[0] not in sys.stdlib_module_names]
            assert heavy[0] == "s2f_rl.patient", script.name
