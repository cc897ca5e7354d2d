"""What is installed here and what it runs on, told without loading any of it."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from s2f_rl import __version__
from s2f_rl.errors import one_line
from s2f_rl.provenance import source_commit
from s2f_rl.threads import available_cores

PACKAGES = ("torch", "torchrl", "tensordict", "transformers", "numpy", "scipy", "librosa")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+).*;.*extra\s*==\s*['\"]([A-Za-z0-9_.-]+)['\"]")
_GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Extra:
    """An optional part: its packages, {name: version, None where it is missing}."""

    name: str
    packages: dict[str, str | None]

    @property
    def missing(self) -> list[str]:
        """Names of the packages that are not installed."""
        return [name for name, version in self.packages.items() if version is None]


def version_of(package: str) -> str | None:
    """The installed version, None where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def extras(requirements: list[str] | None = None) -> list[Extra]:
    """The optional parts in the order in which they are declared.

    Args:
        requirements: as of :func:`importlib.metadata.requires`; None: those of the installed s2f_rl.
    """
    if requirements is None:
        try:
            requirements = metadata.requires("s2f_rl") or []
        except metadata.PackageNotFoundError:  # run from a folder that nobody installed
            requirements = []
    found: dict[str, dict[str, str | None]] = {}
    for text in requirements:
        match = _REQUIREMENT.match(text)
        if match is not None:
            found.setdefault(match[2], {})[match[1]] = version_of(match[1])
    return [Extra(name, packages) for name, packages in found.items()]


def gpus(root: Path = _GPUS) -> list[str]:
    """Models of the NVIDIA devices that the driver lists; empty on other machines."""
    found = []
    for about in sorted(root.glob("*/information")):
        match = re.search(r"^Model:\s*(.+)$", about.read_text(errors="replace"), re.MULTILINE)
        found.append(one_line(match[1]) if match else "unknown")
    return found


def report() -> str:
    """Versions, devices, extras and how to get those that are missing, a line each."""
    commit = source_commit()
    lines = [f"s2f_rl {__version__}" + (f" ({commit})" if commit else "") + f", {Path(__file__).parent}"]
    lines.append(f"python {platform.python_version()}, {platform.system()} {platform.machine()}")
    lines += [f"{package} {version_of(package) or 'is missing'}" for package in PACKAGES]
    lines += ["", f"CPU: {available_cores()} of {os.cpu_count()} cores"]
    devices = gpus()
    lines += [f"GPU: {model}" for model in devices] or ["GPU: none that an NVIDIA driver lists"]
    if devices and "+cpu" in (version_of("torch") or ""):
        lines.append("this torch is built for CPUs alone: install one with CUDA to use the GPU")
    lines.append("")
    for extra in extras():
        state = f'missing ({", ".join(extra.missing)}): pip install "s2f_rl[{extra.name}]"'
        lines.append(f"{extra.name}: {state if extra.missing else 'installed'}")
    return "\n".join(lines)
