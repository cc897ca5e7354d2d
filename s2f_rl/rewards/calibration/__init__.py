"""How far a score can be trusted: on corruptions, as a probability, and under attack.

    auc.py               true above spoiled, per corruption; spoiled_versions.py all strengths and their order
    reliability.py       are scores probabilities?
    attack.py            gradient ascent on a motion; attack_rows.py the same over a corpus, beside the judges
    report.py, page.py, figures.py   ``s2f-rl reward-report``
    articulation_report.py   the same of a density of lips

Measures of a motion against the truth are in ``s2f_rl.metrics``; rows of policies in ``s2f_rl.evaluation``.
"""

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.rewards.calibration.attack import ascend
    from s2f_rl.rewards.calibration.auc import auc_summary, auc_table, corruption_auc, write_auc
    from s2f_rl.rewards.calibration.reliability import reliability_rows
    from s2f_rl.rewards.calibration.report import reward_report
    from s2f_rl.rewards.calibration.spoiled_versions import discrimination_rows, score_versions

_HOMES = {
    "ascend": "attack",
    "auc_summary": "auc",
    "auc_table": "auc",
    "corruption_auc": "auc",
    "discrimination_rows": "spoiled_versions",
    "reliability_rows": "reliability",
    "reward_report": "report",
    "score_versions": "spoiled_versions",
    "write_auc": "auc",
}
__all__ = [
    "ascend",
    "auc_summary",
    "auc_table",
    "corruption_auc",
    "discrimination_rows",
    "reliability_rows",
    "reward_report",
    "score_versions",
    "write_auc",
]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
