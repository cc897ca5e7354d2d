"""What every key of the recipes' configs may be: its type, its range, what it means. The numbers are in the YAML.

A config is checked against its schema before its recipe opens anything (:mod:`s2f_rl.runs.configs`). A test holds the
schemas and ``recipes/conf`` together.

Floor plan: ``rl`` (the algorithms, and which combinations make no sense), ``reward_parts`` (what they maximise),
``supervised``, ``reward`` (reward, judge, articulation), ``codebook``, ``listener``, ``others`` (evaluate, demo),
``shared`` (keys that several have).

Not here: how a schema is read (:mod:`s2f_rl.runs.schema`).
"""

from s2f_rl.schemas.codebook import CodebookRun
from s2f_rl.schemas.listener import ListenerRun
from s2f_rl.schemas.others import Demo, Evaluate
from s2f_rl.schemas.reward import ArticulationRun, JudgeRun, RewardRun
from s2f_rl.schemas.rl import AWR, GDPO, GRPO, PPO, PPOKL, RLOO, ActorCritic, RewardGradient
from s2f_rl.schemas.supervised import SupervisedRun

SCHEMAS: dict[str, type] = {
    "a2c": ActorCritic,
    "articulation": ArticulationRun,
    "awr": AWR,
    "codebook": CodebookRun,
    "demo": Demo,
    "evaluate": Evaluate,
    "gdpo": GDPO,
    "grpo": GRPO,
    "judge": JudgeRun,
    "listener": ListenerRun,
    "ppo": PPO,
    "ppo_kl": PPOKL,
    "reinforce": ActorCritic,
    "reward": RewardRun,
    "reward_gradient": RewardGradient,
    "rloo": RLOO,
    "supervised": SupervisedRun,
}
"""The schema of each recipe, by the name of its config."""

__all__ = ["SCHEMAS"]
