"""Modules and names that are elsewhere since 0.1: the old ones work for one release, with a warning.

The old name of a module gives the new module itself, so classes and tables are the same objects under both. Where a
module became a package of the same name, or names left a module that moved, :data:`NAMES` says where they are.
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

_VERSIONS = "STRENGTHS Scored Versions auc_interval clip_scores encoded speaker_rows speaker_spread spearman".split()
NAMES: dict[str, dict[str, str]] = {
    "s2f_rl.evaluation.measure": {
        name: f"s2f_rl.metrics.measures:{name}" for name in ("COLUMNS", "definitions", "motion_measures")
    },
    "s2f_rl.rewards.calibration": {name: f"s2f_rl.rewards.calibration.spoiled_versions:{name}" for name in _VERSIONS},
    "s2f_rl.rewards.hub": {"is_pretrained_folder": "s2f_rl.rewards.model.checkpoint_files:is_pretrained_folder"},
    "s2f_rl.rewards.judge": {"JudgeHead": "s2f_rl.rewards.judge.judge:JudgeHead"},
    "s2f_rl.rewards.model": {"hash_tensors": "s2f_rl.data.stored_features:hash_tensors"},
    "s2f_rl.rewards.motion": {"MotionStatistics": "s2f_rl.rewards.motion.subspace:MotionSubspace"},
    "s2f_rl.rewards.speech_mesh": {"AudioEncoder": "s2f_rl.rewards.model.speech_mesh:MelPatchEncoder"},
    "s2f_rl.rewards.training": {
        name: f"s2f_rl.rewards.training.losses:{name}"
        for name in ("AudioFeatures", "centre_features", "finished_reward")
    },
}
"""Name of a module as it was -> names that are not where the module is now -> ``module:name``."""


def old_name(module: str, name: str) -> object:
    """What a package offered under this name when it was a module, with a warning. Raises AttributeError."""
    home = NAMES.get(module, {}).get(name)
    if home is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(
        f"{module}.{name} is now {home}; the old name goes with the next release", FutureWarning, stacklevel=3
    )
    return _found(home)


def _found(home: str) -> object:
    module, _, name = home.partition(":")
    found: object = getattr(importlib.import_module(module), name)
    return found


class _Alias(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is now {new}; the old name goes with the next release", FutureWarning, stacklevel=2)
        module = importlib.import_module(new)
        self.spec = module.__spec__
        for name, home in NAMES.get(spec.name, {}).items():
            setattr(module, name, _found(home))
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
