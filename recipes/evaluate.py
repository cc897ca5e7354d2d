"""Evaluate a checkpoint over every test utterance and style condition.

    python recipes/evaluate.py checkpoint=checkpoints/ppo corpus.root=data/vocaset reward_folder=... judge_folder=...

Writes per-sequence rows, a summary (style-dependent and style-independent) and the predicted vertices.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from s2f_rl.errors import UserError
from s2f_rl.evaluation import evaluate_checkpoint
from s2f_rl.evaluation.summary import described
from s2f_rl.models.actors import use_actor
from s2f_rl.runs import pick_device, recipe_main
from s2f_rl.schemas.others import Evaluate


@recipe_main("evaluate", Evaluate)
def main(cfg: DictConfig) -> dict[str, Any]:
    use_actor(cfg.actor.kind)
    checkpoint = Path(cfg.checkpoint)
    if not checkpoint.exists():
        raise UserError(f"checkpoint={checkpoint}: no such file or folder; train one with recipes/supervised.py")
    run = checkpoint if checkpoint.is_dir() else checkpoint.parent
    conditions = cfg.conditions if isinstance(cfg.conditions, str) else list(cfg.conditions)
    out = Path(cfg.out or run / "evaluation")
    summary = evaluate_checkpoint(
        checkpoint,
        cfg.corpus.root,
        out,
        cfg.split,
        cfg.corpus.topology,
        cfg.reward_folder,
        cfg.judge_folder,
        conditions,
        cfg.save_predictions,
        str(pick_device(cfg.device)),
        cfg.progress,
        cfg.rows_format,
        cfg.true_distance,
        list(cfg.measures or ()),
        cfg.predictions,
        cfg.corpus.cache,
    )
    for kind in ("style_dependent", "style_independent"):
        if kind in summary:
            found = described(summary, kind)
            print(f"{kind}: " + "; ".join(f"{name} {value:.4g} ({words})" for name, value, words in found))
    print(f"rows and summary are in {out}")
    return summary


if __name__ == "__main__":
    main()
