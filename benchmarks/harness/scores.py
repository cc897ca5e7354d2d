"""The scores that tables, figures and findings are about: of the reward that is trained against, and of the judges."""

from __future__ import annotations

SCORES = {"lip": "lip_score", "real": "real_score"}
"""What a score is called in a table -> its name in the rows; a judge's has the judge's name before it."""
FIRST_SCORE = "lip"
"""The one that the registered comparison is about."""
TRAIN_REWARD = "train_reward"
"""Weighted sum of what a run was trained against; with a reward's name behind it in rows that serve all rewards."""


def score_columns(model: str = "", names: tuple[str, ...] = tuple(SCORES)) -> tuple[str, ...]:
    """Columns of scores, of the reward that is trained against or of a judge.

    Example:
        >>> score_columns(), score_columns("judge", (FIRST_SCORE,))
        (('lip_score', 'real_score'), ('judge_lip_score',))
    """
    return tuple(f"{model}_{SCORES[name]}" if model else SCORES[name] for name in names)
