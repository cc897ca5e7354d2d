"""Modules that have another name since 0.1: the old one works for one release, with a warning.

The old name gives the new module itself, so classes and tables are the same objects under both.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_REWARDS = {
    "attack": "calibration.attack",
    "bank": "training.recordings",
    "cache": "model.audio_cache",
    "clips": "training.clips",
    "corruption_amplitude": "corruptions.amplitude",
    "corruption_base": "corruptions.base",
    "corruption_identity": "corruptions.identity",
    "corruption_mouth": "corruptions.mouth",
    "corruption_noise": "corruptions.noise",
    "corruption_smoothness": "corruptions.smoothness",
    "corruption_time": "corruptions.time",
    "corruption_tools": "corruptions.tools",
    "files": "model.checkpoint_files",
    "hardening": "training.adversaries",
    "head": "model.head",
    "hub": "model.hub_folder",
    "identity": "motion.unseen_faces",
    "inputs": "model.checked_arrays",
    "judge_clips": "judge.stretches",
    "judge_layers": "judge.layers",
    "judge_register": "judge.register",
    "judge_training": "judge.losses",
    "listening": "training.listening",
    "meeting": "model.meeting",
    "policy_samples": "training.policy_samples",
    "projection": "training.projection",
    "regression": "training.mse_regressor",
    "reliability": "calibration.reliability",
    "report": "calibration.auc",
    "speech_augmentation": "training.speech_augmentation",
    "speech_mesh": "model.speech_mesh",
    "spoiling": "training.spoiled_stretches",
}
MOVED = {f"s2f_rl.rewards.{old}": f"s2f_rl.rewards.{new}" for old, new in _REWARDS.items()} | {
    "s2f_rl.evaluation.measure": "s2f_rl.evaluation.scorer",
    "s2f_rl.evaluation.reward_attack": "s2f_rl.rewards.calibration.attack_rows",
    "s2f_rl.evaluation.reward_figures": "s2f_rl.rewards.calibration.figures",
    "s2f_rl.evaluation.reward_page": "s2f_rl.rewards.calibration.page",
    "s2f_rl.evaluation.reward_report": "s2f_rl.rewards.calibration.report",
}
"""Old name of a module -> its name now."""


class _Alias(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is now {new}; the old name goes with the next release", FutureWarning, stacklevel=2)
        module = importlib.import_module(new)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has put the old name's in its place


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, _Alias()) if fullname in MOVED else None


def install() -> None:
    """Let imports of old names find the new modules; once is enough."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
