"""Suite files, and the matrix of runs that comes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from benchmarks.harness.matrix import RECIPES, SUITES, as_overrides, check_runs, open_suite, runs, stages, suite_names
from s2f_rl.errors import UserError
from s2f_rl.runs.configs import compose_config, opened
from s2f_rl.schemas import SCHEMAS

# what a variant and its control must share, or more than the policy gradient tells them apart
SCHEDULE = (
    "iterations", "lanes", "group_size", "style", "max_frames", "epochs", "minibatch_lanes", "updates", "replay",
    "exploration", "optimizer", "supervised", "kl", "constraint", "balance",
)  # fmt: skip
# without its supervised term a control would train nothing; without the policy gradient learned noise stays as it is
# and there is no policy term to be balanced
DIFFERS = {"reward_alone": {"supervised"}, "learned": {"exploration"}, "unbalanced": {"balance"}}


def composed(recipe: str, overrides: tuple[str, ...]) -> Any:
    return compose_config(RECIPES / "conf", recipe, opened(overrides, SCHEMAS[recipe]))


@pytest.mark.parametrize("name", suite_names())
class TestSuites:
    def test_every_command_composes_and_every_control_has_the_schedule(self, name: str) -> None:
        suite = open_suite([f"suite={name}", "seeds=[7]"])
        for stage in stages(suite):
            assert composed(stage.recipe, stage.overrides).name == stage.name
        configs = {run.variant: composed(run.recipe, run.overrides) for run in runs(suite)}
        for run in runs(suite):
            ours = configs[run.variant]
            assert ours.seed == 7 and ours.control is (run.control is None)
            if run.control is not None:
                theirs = configs[run.control]
                shared = [key for key in SCHEDULE if key in ours and key in theirs]
                differing = {key for key in shared if ours[key] != theirs[key]}
                assert differing == DIFFERS.get(run.variant, set()), run.variant
        # one budget: the same number of utterances for everybody
        assert len({cfg.iterations * cfg.lanes for cfg in configs.values()}) == 1

    def test_every_key_is_used(self, name: str) -> None:
        code = "".join(path.read_text() for path in SUITES.parent.rglob("*.py"))
        content = yaml.safe_load((SUITES / f"{name}.yaml").read_text())
        content |= yaml.safe_load((SUITES / "common.yaml").read_text())
        for key in set(content) - {"defaults"}:
            assert f'["{key}"]' in code or f"['{key}']" in code, key


class TestOpenSuite:
    def test_overrides(self) -> None:
        suite = open_suite(["suite=smoke", "seeds=[3,4]", "base.evaluation.every=2", "+base.gamma=0.5", "root=out"])
        assert suite["seeds"] == [3, 4] and suite["setup_root"] == "out/setup"
        options = runs(suite)[0].overrides
        assert {"evaluation.every=2", "gamma=0.5", "seed=3", "start=out/setup/supervised_seed0"} <= set(options)

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            ([], "no suite given; use suite=ablations"),
            (["suite=nothing"], "suite=nothing: unknown"),
            (["suite=smoke", "sedes=[1]"], "unknown key 'sedes'"),
            (["suite=smoke", "jobs=two"], "jobs=two: use a whole number or ray"),
            (["suite=smoke", "jobs=0"], "at least 1"),
            (["suite=smoke", "seeds=[]"], "seeds is empty"),
            (["suite=smoke", "split=test"], "the test speakers are opened with open_test=true"),
            (["suite=smoke", "utterances=0"], "utterances=0: at least 1"),
            (["suite=smoke", "seeds=[1,1]"], "twice"),
            (["suite=smoke", "reward=folder"], "give reward=FOLDER or rewards"),
            (["suite=rewards", "reward=null"], "give reward=FOLDER or rewards"),
            (["suite=smoke", "veto.articulation=ear"], "veto.articulation=ear: no such judge; use judge"),
            (["suite=smoke", "+variants.ppo.against={placebo:ppo}"], "against: ppo is no other variant"),
            (["suite=smoke", "evaluate={mine:{corpus:null}}"], "evaluate.mine.split: missing"),
            (["suite=smoke", "families={one:[first]}"], "families must hold each of starts once: first, second"),
            (["suite=smoke", "families={one:[first,second],two:[second]}"], "families must hold each of starts once"),
            (["suite=smoke", "variants.ppo.control=none_such"], "variants.ppo.control=none_such: no such control"),
        ],
    )
    def test_mistakes(self, overrides: list[str], message: str) -> None:
        with pytest.raises(UserError) as caught:
            open_suite(overrides)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("base.control=true", "base.control: the suite sets it itself; name a family in controls"),
            ("base.name=x", "base.name: the suite sets it itself"),
            ("+variants.ppo.sweep={seed:[7,8]}", "variants.ppo.sweep.seed: the suite sets it itself"),
            ("+variants.ppo.sweep={clip_epsilon:[]}", "variants.ppo.sweep.clip_epsilon is empty"),
        ],
    )
    def test_settings_that_a_suite_writes_itself(self, override: str, message: str) -> None:
        with pytest.raises(UserError) as caught:
            check_runs(open_suite(["suite=smoke", override]))
        assert message in str(caught.value)


def small_suite(**changes: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "root": "out",
        "setup_root": "out/setup",
        "corpus": {"root": "corpus", "synthesize": None},
        "setup": {"supervised": {"recipe": "fake", "overrides": {"lr": 0.5}}},
        "starts": {"first": "out/setup/supervised"},
        "reward": "rewards/one",
        "rewards": None,
        "evaluate": None,
        "open_test": False,
        "conditions": [0],
        "veto": {"lve": 1.05, "closure": 0.05, "false_closure": 0.03, "articulation": None},
        "judges": {"judge": "rewards/two"},
        "seeds": [0, 1],
        "checkpoints": ["last", "best"],
        "split": "validation",
        "utterances": None,
        "base": {"iterations": 4, "evaluation": {"every": 2}},
        "controls": {"control": {"recipe": "fake", "overrides": {}}},
        "variants": {"ours": {"recipe": "fake", "control": "control", "overrides": {"evaluation": {"every": 4}}}},
        **changes,
    }


class TestRuns:
    def test_variants_starts_and_seeds(self) -> None:
        suite = small_suite(starts={"first": "a", "second": "b"})
        assert [run.name for run in runs(suite)] == [
            f"{variant}/{start}/seed{seed}"
            for seed in (0, 1)
            for start in ("first", "second")
            for variant in ("control", "ours")
        ]
        control, ours = runs(suite)[:2]
        assert control.overrides == (
            "corpus.root=corpus", "start=a", "reward.folder=rewards/one", "iterations=4", "evaluation.every=2",
            "seed=0", "control=true",
        )  # fmt: skip
        assert ours.overrides[3:] == ("iterations=4", "evaluation.every=4", "seed=0")
        assert control.control is None and ours.control == "control"

    def test_sweep(self) -> None:
        """Two by two values, compared with the control of the same noise."""
        suite = small_suite(
            seeds=[0],
            controls={"control": {"recipe": "fake", "overrides": {}, "sweep": {"exploration.noise_mm": [0.1, 0.3]}}},
            variants={
                "ours": {
                    "recipe": "fake",
                    "control": "control",
                    "overrides": {},
                    "sweep": {"exploration.noise_mm": [0.1, 0.3], "gamma": [0.0, 0.7]},
                },
                "fixed": {"recipe": "fake", "control": "control", "overrides": {"exploration": {"noise_mm": 0.3}}},
            },
        )
        assert [(run.variant, run.control) for run in runs(suite)] == [
            ("control_noise_mm0.1", None),
            ("control_noise_mm0.3", None),
            ("ours_noise_mm0.1_gamma0.0", "control_noise_mm0.1"),
            ("ours_noise_mm0.1_gamma0.7", "control_noise_mm0.1"),
            ("ours_noise_mm0.3_gamma0.0", "control_noise_mm0.3"),
            ("ours_noise_mm0.3_gamma0.7", "control_noise_mm0.3"),
            ("fixed", "control_noise_mm0.3"),
        ]
        assert "gamma=0.7" in runs(suite)[3].overrides and runs(suite)[3].settings["gamma"] == 0.7
        suite["variants"]["fixed"]["overrides"] = {}
        with pytest.raises(UserError, match="variant fixed: its control control is not swept"):
            runs(suite)

    def test_rewards_are_an_axis_that_controls_do_not_have(self) -> None:
        """Controls once for all rewards, other references once for each."""
        both = {"reward.folder": "rewards/one", "reward.parts": {"lips": {"kind": "closure", "weight": 0.5}}}
        suite = small_suite(
            seeds=[0],
            starts={"first": "a", "second": "b"},
            reward=None,
            rewards={"plain": "rewards/one", "both": both},
            variants={
                "placebo": {"recipe": "fake", "control": "control", "overrides": {"placebo": True}},
                "ours": {"recipe": "fake", "control": "control", "overrides": {}, "against": {"placebo": "placebo"}},
            },
        )
        assert [run.name for run in runs(suite)] == [
            name
            for start in ("first", "second")
            for name in (
                f"control/{start}/seed0",
                *(f"{v}/{start}/{r}/seed0" for r in ("plain", "both") for v in ("placebo", "ours")),
            )
        ]
        ours = runs(suite)[4]
        assert ours.reward == "both" and ours.against == {"placebo": "placebo"} and ours.corpus == "corpus"
        assert {"reward.folder=rewards/one", "reward.parts.lips.kind=closure", "reward.parts.lips.weight=0.5"} <= set(
            ours.overrides
        )
        assert runs(suite)[0].reward is None and "reward.folder=rewards/one" in runs(suite)[0].overrides

    def test_a_variant_may_train_on_another_corpus(self) -> None:
        check_runs(open_suite(["suite=adaptation", "seeds=[0]"]))
        suite = small_suite(base={"corpus": {"root": "heard"}})
        assert {run.corpus for run in runs(suite)} == {"heard"} and "corpus.root=heard" in runs(suite)[0].overrides

    def test_swept_stages_and_those_that_stages_need(self) -> None:
        fake = {"recipe": "fake", "overrides": {}}
        setup = {
            "supervised": {**fake, "sweep": {"seed": [0, 1, 2]}},
            "reward": {"recipe": "fake", "overrides": {"policy": "out/setup/supervised_seed2"}},
            "unused": {"recipe": "fake", "overrides": {"policy": "out/setup/supervised_seed1"}},
        }
        suite = small_suite(
            setup=setup, starts={"first": "out/setup/supervised_seed0"}, reward=None,
            rewards={"part": {"reward.parts": {"a": {"kind": "perceptual", "folder": "out/setup/reward"}}}},
        )  # fmt: skip
        assert [stage.name for stage in stages(suite)] == ["supervised_seed0", "supervised_seed2", "reward"]
        assert "seed=2" in stages(suite)[1].overrides

    def test_stages_in_the_order_in_which_they_need_each_other(self) -> None:
        setup = {
            name: {"recipe": "fake", "overrides": {"reads": [f"out/setup/{other}" for other in needed]}}
            for name, needed in {"reward": ["b", "a"], "a": [], "b": ["codes"], "codes": []}.items()
        }
        suite = small_suite(
            setup=setup, starts={"first": "out/setup/a", "second": "out/setup/b"}, reward="out/setup/reward"
        )
        assert [stage.name for stage in stages(suite)] == ["a", "codes", "b", "reward"]
        setup["codes"]["overrides"]["reads"] = ["out/setup/reward"]
        with pytest.raises(UserError, match="small: setup: reward, b, codes need each other"):
            stages(suite)

    def test_stages_only_where_they_are_needed(self) -> None:
        (stage,) = stages(small_suite())
        assert stage.overrides == ("corpus.root=corpus", "lr=0.5", "root=out/setup", "name=supervised")
        assert stage.folder == Path("out/setup/supervised")
        assert stages(small_suite(starts={"first": "elsewhere"})) == []


@pytest.mark.parametrize(
    "value", [1, 0.5, 1e-6, True, None, "plain", "a b", "it's", "x=1,y", [1, 2], ["a b", "c"], "", float("inf")]
)
def test_as_overrides_is_read_back_by_hydra(value: Any) -> None:
    (text,) = as_overrides({"group": {"key": value}})
    (parsed,) = OverridesParser.create().parse_overrides([text])
    assert parsed.key_or_group == "group.key" and parsed.value() == value
