"""From nothing to a talking face that was trained, rewarded, tuned by RL, evaluated and shown: `make demo`.

    python recipes/demo.py

1 synthesise a corpus, 2 train a supervised actor, 3 train a reward, and a judge of another architecture that
no actor is trained against, 4 tune by PPO, and by its compute-matched control (the same rollouts and
updates without the policy gradient), 5 evaluate all on test speakers, 6 show them side by side: a page, and a film.
Every stage is an ordinary recipe with the settings of conf/demo.yaml; run again, it picks up what is there.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import atomic_write_text, load_json
from s2f_rl.data.synthetic import synthesize
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer, evaluate_actor, evaluate_truth, predict_corpus, summarise, write_report
from s2f_rl.evaluation.coefficients import animates_coefficients, predicted_coefficients, save_coefficients
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.render import corpus_look, render_film
from s2f_rl.rewards import RewardModel
from s2f_rl.rewards.judge.judge import AnyReward, load_scorer
from s2f_rl.runs import load_recipe, recipe_main
from s2f_rl.runs.overrides import as_overrides, flat
from s2f_rl.schemas.others import Demo
from s2f_rl.training import plain
from s2f_rl.view import Table, show_utterance

COLUMNS = {  # column of the table, after those of the scores: (key of the summary, factor, digits)
    "LVE mm²": ("lve", 1e6, 2),
    "FDD mm²": ("fdd", 1e6, 3),
    "amplitude ratio": ("amplitude_ratio", 1, 2),
    "jitter ratio": ("jitter_ratio", 1, 2),
    "closure rate": ("closure_rate", 1, 2),
}

MEANS = "Test speakers, mean over utterances x training styles"


@recipe_main("demo", Demo)
def main(cfg: DictConfig) -> dict[str, dict[str, float]]:
    started = time.perf_counter()
    root, corpus = Path(cfg.root), Path(cfg.corpus_folder)
    runs = stages(cfg)

    # 1 corpus
    if not check_corpus(cfg):
        sizes = cfg.subjects, cfg.sentences, cfg.vertices, cfg.seed
        synthesize(corpus, *sizes, progress=cfg.progress, motion=cfg.motion)
    test = FaceCorpus(corpus, split="test")
    if cfg.film.style >= len(test.subjects):
        raise UserError(f"film.style={cfg.film.style}: the corpus has {len(test.subjects)} training subjects, from 0")
    if cfg.film.utterance is not None:
        test.index(cfg.film.utterance)
    told(started, f"corpus in {corpus}")

    # 2 supervised actor, 3 reward and judge, 4 PPO and its control
    for name, (recipe, overrides) in runs.items():
        recipe.run(overrides)
        told(started, f"{name} done")

    # 5 evaluate on test speakers
    judge = load_scorer(root / "judge")
    scorer = Scorer({"train": RewardModel.load(root / "reward"), "judge": judge}, test)
    # the last checkpoints, not the best: the control's best may well be its start
    files = {name: root / name / "last.pt" for name in ("supervised", "control", "ppo")}
    actors = {name: load_actor(path)[0] for name, path in files.items()}
    table = {"ground truth": summarise(evaluate_truth(test, scorer))}
    for name, actor in actors.items():
        rows = evaluate_actor(actor, test, scorer)
        about = {"checkpoint": str(files[name]), "corpus": str(corpus), "split": "test"}
        table[name] = write_report(root / name / "evaluation", rows, test, scorer, about)["style_dependent"]
    cells = as_text(table, score_columns(scorer) | COLUMNS)
    text = as_markdown(cells)
    atomic_write_text(root / "table.md", text)
    told(started, "evaluated on test speakers")

    # 6 page, film and a rig's weights
    show(cfg.film, test, actors, root, cells, judge)
    weights = write_coefficients(cfg.film, test, actors, root)
    told(started, "shown")
    print(f"\n{MEANS}:\n\n{text}")
    print(f"table      {root / 'table.md'}\nfilm       {root / 'demo.mp4'}")
    if weights is not None:
        print(f"weights    {weights} (PPO's coefficients, for Live Link)")
    print(f"sequences  {root}/*/evaluation/sequences.csv\nruns       {root}/*/report.html")
    print(f"page       {root / 'demo.html'}: ground truth, supervised, control and PPO; open it in a browser")
    return table


def stages(cfg: DictConfig) -> dict[str, tuple[Any, list[str]]]:
    """Run name -> recipe and its overrides, in the order in which they run; their configs are checked here."""
    root, seed = Path(cfg.root), cfg.seed
    # The last checkpoint: in so short a run the lip error can be least while the mouth does not close yet.
    actor = root / "supervised" / "last.pt"
    met = {"policy": str(actor)}  # the reward learns to tell the actor's own motion from the truth
    parts = {"start": str(actor), "reward": {"folder": str(root / "reward")}}
    common = {
        "corpus": {"root": cfg.corpus_folder}, "root": cfg.root, "resume": True, "progress": cfg.progress
    }  # fmt: skip
    # The reward's own seed: with 0 it learns this corpus poorly (mean AUC .81 on validation speakers; .88, .84, .87
    # with 1, 3, 4). Judge: other architecture, seed and corruption draws. PPO and its control from the same start.
    given = {
        "supervised": ("supervised", {"seed": seed, "actor": "listener"}, cfg.supervised),
        "reward": ("reward", {"seed": seed + 1, **met}, cfg.reward),
        "judge": ("judge", {"seed": seed + 1000}, cfg.judge),
        "control": ("ppo", {"seed": seed, **parts, "control": True}, cfg.rl),
        "ppo": ("ppo", {"seed": seed, **parts, "control": False}, cfg.rl),
    }
    found = {}
    for name, (script, own, settings) in given.items():
        ours = {*flat(common), *flat(own), "name"} - {"seed", "progress", "actor"}
        for key in [key for key in flat(plain(settings)) if key in ours]:
            raise UserError(f"{key} of the stage {name}: the demo sets it itself; take it away")
        recipe, overrides = load_recipe(script), as_overrides(common, own, plain(settings), {"name": name})
        recipe.compose(overrides)
        found[name] = recipe, overrides
    return found


def check_corpus(cfg: DictConfig) -> bool:
    """Whether the corpus is there; UserError if it was made with other sizes than those that are asked for."""
    file = Path(cfg.corpus_folder) / "corpus.json"
    if not file.exists():
        return False
    made = load_json(file)
    made = made.get("synthesis") if isinstance(made, dict) else None
    for key in ("subjects", "sentences", "vertices", "seed", "motion"):
        own = made.get(key, "vertices" if key == "motion" else cfg[key]) if isinstance(made, dict) else cfg[key]
        if own != cfg[key]:
            raise UserError(
                f"{key}={cfg[key]}: the corpus in {cfg.corpus_folder} was made with {key}={own}; give "
                f"corpus_folder= and root= of a new demo, or {key}={own}"
            )
    return True


def told(started: float, what: str) -> None:
    print(f"[{time.perf_counter() - started:4.0f} s] {what}", flush=True)


def score_columns(scorer: Scorer) -> dict[str, tuple[str, float, int]]:
    """``lip (train)`` and so on: the columns of whatever the reward and the judge score."""
    columns = [(name, column) for name in scorer.models for column in scorer.columns(name)]
    plain = [column.removeprefix(f"{name}_").removesuffix("_score") for name, column in columns]
    return {f"{score} ({name})": (column, 1, 3) for score, (name, column) in zip(plain, columns, strict=True)}


def as_text(
    table: dict[str, dict[str, float]], columns: dict[str, tuple[str, float, int]]
) -> dict[str, dict[str, str]]:
    """Row -> column -> text; a figure that could not be measured is a dash."""
    return {
        name: {c: f"{values[k] * f:.{d}f}" if k in values else "-" for c, (k, f, d) in columns.items()}
        for name, values in table.items()
    }


def as_markdown(cells: dict[str, dict[str, str]]) -> str:
    columns = next(iter(cells.values()))
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    lines += [f"| {name} | " + " | ".join(row.values()) + " |" for name, row in cells.items()]
    return "\n".join(lines) + "\n"


def show(
    options: Any,
    test: FaceCorpus,
    actors: dict[str, Any],
    root: Path,
    cells: dict[str, dict[str, str]],
    judge: AnyReward,
) -> None:
    """Ground truth and the actors side by side, saying one test sentence: ``demo.html``, and the film ``demo.mp4``."""
    index = 0 if options.utterance is None else test.index(options.utterance)
    utterance = test[index]
    sequences = {} if utterance.vertices is None else {"ground truth": utterance.vertices}
    for name, actor in actors.items():
        audio = CachedAudio(actor.audio_encoder, test)
        prediction = next(predict_corpus(actor, audio, [index], [[options.style]]))
        sequences[name] = prediction.displacement[0] + utterance.template
    captions = [{"ppo": "PPO"}.get(name, name) for name in sequences]
    motions = [torch.as_tensor(motion).numpy() for motion in sequences.values()]
    show_utterance(
        test, motions, captions, root / "demo.html", utterance=utterance.name, scorer=judge, table=Table(MEANS, cells)
    )
    faces = None if test.faces is None else test.faces.numpy()
    sound = (utterance.waveform_raw.numpy(), utterance.sample_rate)
    look = corpus_look(test, motions, utterance.subject)
    render_film(motions, captions, faces, sound, test.fps, root / "demo.mp4", size=options.size, **look)


def write_coefficients(options: Any, test: Any, actors: dict[str, Any], root: Path) -> Path | None:
    """The coefficients of PPO's actor saying the film's sentence, as CSV and npy; None where motion is vertices."""
    actor = actors["ppo"]
    if not animates_coefficients(actor):
        return None
    index = 0 if options.utterance is None else test.index(options.utterance)
    style = torch.nn.functional.one_hot(torch.tensor(options.style), actor.n_styles).float()
    values = predicted_coefficients(actor, test[index].waveform, style.to(actor.device))
    save_coefficients(root / "demo.npy", actor, values)
    save_coefficients(root / "demo.csv", actor, values, "livelink")
    return root / "demo.csv"


if __name__ == "__main__":
    main()
