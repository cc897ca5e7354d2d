"""``s2f-rl adapt``: recordings to a tuned actor and its report, one stage after another."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from s2f_rl.adaptation.corpus import Roles, read_roles, write_corpus
from s2f_rl.adaptation.faces import faces_of
from s2f_rl.adaptation.measure import AFTER, BEFORE, before_and_after, changes
from s2f_rl.adaptation.report import Page, verdict, write_page
from s2f_rl.adaptation.takes import file_hash, named_sounds, read_takes, read_words
from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer, predict_corpus, write_rows
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.checkpoint import actor_file, export_actor
from s2f_rl.models.meeting import load_actor_for
from s2f_rl.models.retiming import Retimer
from s2f_rl.rewards.judge.judge import load_scorer
from s2f_rl.runs import load_recipe, pick_device
from s2f_rl.runs.overrides import as_overrides
from s2f_rl.training import plain
from s2f_rl.training.build_reward import build_reward

logger = logging.getLogger(__name__)

RUN, CORPUS, ACTOR, FILM = "run", "corpus", "actor.pt", "film.mp4"
_RECIPE = "gdpo"
_OURS = ("corpus.root", "name", "resume", "reward.folder", "root", "start")
_ALONE = ("supervised=none", "policy_weight=1.0")
"""Without recorded faces there is no supervised term, so a ratio to it means nothing."""
_CAREFUL = ("policy_weight=2.0",)
"""A reward that does not know what is said: at the recipe's 8 the lip error of a weak start rose by an eighth."""
_ANCHORS = {
    True: "The supervised error on {n} recordings of the training speakers, and the KL to the start, held it near.",
    False: "No recording with a mesh was at hand (--corpus), so the KL to the start alone held it near.",
}
_NO_WORDS = (
    "The words of {n} of {all} sentences were not known (--text): there the perceptual reward alone was at work."
)


def adapt(
    actor: str | Path,
    sounds: Sequence[str | os.PathLike[str]],
    out: str | Path,
    reward: str | Path,
    text: str | Path | None = None,
    articulation: str | Path | None = None,
    corpus: str | Path | None = None,
    style: str | None = None,
    hold_back: int | None = None,
    judge: str | Path | None = None,
    pronunciations: str | Path | None = None,
    retime: bool = False,
    film: bool = True,
    settings: Sequence[str] = (),
    topology: str | None = None,
    device: str = "auto",
) -> str:
    """Tune an actor to recordings of voices that have no meshes, and report what that did.

    Writes into ``out``: ``corpus/`` (what was trained on), ``run/`` (the run of ``recipes/gdpo.py``), ``actor.pt`` (the
    tuned actor, alone in a file), ``sequences.csv`` (a row per sentence, before and after), ``report.md``,
    ``report.html`` and ``film.mp4``. The same call goes on where it was stopped.

    The tuned actor is the run's last state, not the best by reward: that would be the best cheat.

    Args:
        actor: checkpoint to start from, see :func:`~s2f_rl.models.checkpoint.load_actor`.
        sounds: recordings, any rate; above 10 s they are cut in their pauses, if their words are known.
        out: folder to write.
        reward: folder of the perceptual reward.
        text: their words, see :func:`~s2f_rl.adaptation.takes.read_words`; None: the perceptual reward alone.
        articulation: folder of an articulation reward; None with ``text``: lips that close on /m b p/ are rewarded.
        corpus: the actor's training corpus, of which as many recordings join as there are sentences to adapt to.
        style: training subject (or column) whose face and way of speaking to use; None: the first.
        hold_back: how many sentences training does not hear, evenly; None: a fifth, see
            :func:`~s2f_rl.adaptation.corpus.held_back_takes`.
        judge: folder of a reward or judge that training does not see.
        pronunciations: see :class:`~s2f_rl.data.alignment.Aligner`.
        retime: move the boundaries of the phones to where the package's recogniser hears them, see
            :class:`~s2f_rl.models.retiming.Retimer`; then the articulation reward should have such phones as well.
        film: also make a film, where the extra ``render`` is installed.
        settings: of the recipe, ``key=value``.
        topology: see :class:`~s2f_rl.data.FaceCorpus`.
        device: see :func:`~s2f_rl.runs.pick_device`.

    Returns:
        The verdict of the report.

    Raises:
        UserError: recordings, words or models that cannot be used or do not fit each other, or an ``out`` that was made
            from others.
    """
    out, files = Path(out), named_sounds(sounds)
    for item in settings:
        if item.partition("=")[0].lstrip("+~") in _OURS:
            raise UserError(f"{item}: adapt sets this itself; leave it out")
    if articulation is not None and text is None:
        raise UserError("--articulation: needs the words that are spoken; give --text")
    words = read_words(text, list(files))
    made_from: dict[str, object] = {
        "recordings": {name: file_hash(path) for name, path in files.items()},
        "words": words,
        "pronunciations": file_hash(Path(pronunciations)) if words and pronunciations is not None else None,
        "style": style,
        "hold_back": hold_back,
        "corpus": None if corpus is None else str(corpus),
        **({"retime": True} if words and retime else {}),
    }
    overrides = _overrides(actor, out, reward, articulation, corpus is not None, bool(words))
    overrides += [*settings, f"device={device}"]
    recipe = load_recipe(_RECIPE)
    config = plain(recipe.compose(overrides))  # a mistake in the settings is told before work
    root = out / CORPUS
    if root.exists():
        roles = read_roles(root, made_from)
    else:
        faces = faces_of(actor, corpus, style, topology)
        takes = read_takes(files, words, pronunciations, Retimer() if words and retime else None)
        roles = write_corpus(root, takes, faces, hold_back, made_from)
    whole, where = FaceCorpus(root, "all"), pick_device(device)
    built = build_reward(config, whole, whole, where)
    models = {"train": built.transform.parts.rewards}
    scorer = Scorer(models if judge is None else {**models, "judge": load_scorer(judge, where)}, whole)
    try:
        recipe.run(overrides)
    except UserError as error:  # a run that goes on keeps its settings; its name is not the user's to choose
        raise UserError(str(error).replace("start a new run with name=...", "choose another --out")) from error

    said = {**roles.adapted, **roles.held_back}
    unknown = sum(whole[name].phones is None for name in said)
    notes = [_NO_WORDS.format(n=unknown, all=len(said))] if unknown else []
    for note in notes:
        logger.warning("%s", note)
    last = out / RUN / "last.pt"
    export_actor(last, out / ACTOR)
    files_of_actors = {BEFORE: actor_file(actor), AFTER: last}
    subject = whole[whole.index(next(iter(roles.adapted)))].subject
    rows = before_and_after(files_of_actors, whole, roles, subject, scorer, where)
    write_rows(out / "sequences.csv", rows)
    rewarded = frozenset(name for name, weight in built.transform.weights.items() if weight)
    filmed = film and _film(files_of_actors, whole, roles, subject, out / FILM)
    anchored = config["supervised"]["mode"] != "none" and bool(roles.recordings)
    page = Page(
        changes(rows),
        rewarded,
        about=[
            ("actor", str(actor)),
            ("face and way of speaking", subject),
            ("sentences", f"{len(roles.adapted)} adapted, {len(roles.held_back)} held back"),
            ("reward", f"{reward}, parts {', '.join(config['reward']['parts']) or 'none'}"),
            ("judge", "none" if judge is None else str(judge)),
            ("training", f"{_RECIPE}, {config['iterations']} iterations of {config['lanes']} utterances"),
            ("settings", " ".join(settings) or "as they come"),
        ],
        notes=[_ANCHORS[anchored].format(n=len(roles.recordings)), *notes],
        film=FILM if filmed else None,
    )
    write_page(out, page)
    return verdict(page)


def _overrides(
    actor: str | Path, out: Path, reward: str | Path, articulation: str | Path | None, anchored: bool, spoken: bool
) -> list[str]:
    """Of the recipe; those of the person come after them."""
    parts: dict[str, object] = {}
    if articulation is not None:
        parts["articulation"] = {"kind": "articulation", "folder": str(articulation), "weight": 2.0}
    elif spoken:
        parts["closure"] = {"kind": "closure", "weight": 0.5}
    given: Mapping[str, object] = {
        "corpus": {"root": str(out / CORPUS), "topology": None},
        "start": str(actor),
        "root": str(out),
        "name": RUN,
        "resume": True,
        "page": "none",
        "reward": {"folder": str(reward), "parts": parts},
    }
    near = () if articulation is not None and anchored else _CAREFUL if anchored else _ALONE
    return ["+experiment=adapt", *as_overrides(given), *near]


def _film(actors: Mapping[str, str | Path], corpus: FaceCorpus, roles: Roles, subject: str, out: Path) -> bool:
    """Film the first sentence held back, else the first, before and after; False where the extra is missing."""
    from s2f_rl.render import corpus_look, render_film
    from s2f_rl.render.extras import import_extra

    try:
        for module in ("numba", "av", "PIL"):
            import_extra(module)
    except UserError as error:
        logger.warning("no film: %s", error)
        return False
    index = corpus.index(next(iter({**roles.held_back, **roles.adapted})))
    utterance, column = corpus[index], corpus.subjects.index(subject)
    motions = []
    for checkpoint in actors.values():
        actor, _ = load_actor_for(checkpoint, corpus)
        found = next(predict_corpus(actor, CachedAudio(actor.audio_encoder, corpus), [index], [[column]]))
        motions.append((found.displacement[0] + utterance.template).numpy())
    faces = None if corpus.faces is None else corpus.faces.numpy()
    sound = (torch.as_tensor(utterance.waveform_raw).numpy(), utterance.sample_rate)
    look = corpus_look(corpus, motions, subject)
    render_film(motions, list(actors), faces, sound, corpus.fps, out, size=384, **look)
    return True
