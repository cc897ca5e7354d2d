"""A corpus for adaptation on audio alone: the speakers of a split join training with their voices, without meshes.

    python benchmarks/adaptation.py data/benchmark data/adaptation

Sentences that the split does not test go into training as audio-only utterances of new subjects (NEW_S09_F, ..), next
to a few sentences of the old training speakers with their meshes; validation and test stay as they are. The split
``adapted`` has the same sentences with their meshes, to be measured on. Nothing but reinforcement learning can use the
audio-only utterances: a supervised term has nothing to say about them.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import json
import pickle
import shutil
import sys
from pathlib import Path

from benchmarks.further_voices import add
from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import atomic_write_json, load_json
from s2f_rl.data.splits import parse_name
from s2f_rl.errors import UserError

NEW = "NEW_"
ADAPTED = "adapted"
KEPT = ("FLAME_masks.pkl", "faces.npy", "landmarks.json", "colours.npy", "speakers.json")


def make(
    source: str | Path,
    out: str | Path,
    split: str = "validation",
    sentences: int = 5,
    new: int = 20,
    voices: int | None = None,
    spoken: int | None = None,
) -> Path:
    """Write the corpus.

    Args:
        source: a corpus with ``corpus.json``, such as the built-in one. out: a folder that does not exist yet.
        split: whose speakers join training. sentences: of every old training speaker, the first so many.
        new: sentences of every new voice, the first so many, which must not be among those that the split tests.
        voices: that many new ones, more than the split has, of which espeak-ng speaks the others; None: the split's.
        spoken: sentences of every new voice, what the corpus has and what espeak-ng says beside it, of texts that
            training speakers say; at most 64. None: what the corpus has, and ``new`` for further voices.

    Raises:
        UserError: no such split, ``out`` exists, or there are no sentences left for training.
    """
    source, out = Path(source), Path(out)
    if out.exists():
        raise UserError(f"{out}: exists already; name another folder or delete it")
    tested = {name: FaceCorpus(source, split=name) for name in ("validation", "test")}
    if split not in tested:
        raise UserError(f"split={split}: use validation or test")
    train = FaceCorpus(source, split="train")
    own = dict.fromkeys(tested[split][i].subject for i in range(len(tested[split])))
    if voices is not None and voices < len(own):
        raise UserError(f"voices={voices}: the {split} split has {len(own)}, which all join")
    copies = {name: name for corpus in tested.values() for name in corpus.names}
    copies |= {name: name for name in train.names if (parse_name(name)[1] or 0) <= sentences}
    silent = {}
    for name in FaceCorpus(source, split="all").names:
        subject, sentence = parse_name(name)
        if subject in own and name not in copies and (sentence or 0) <= new:
            silent[NEW + name] = name
    if not silent:
        raise UserError(f"{source}: every sentence of the {split} speakers is tested; nothing is left to adapt on")

    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in ("wav", "vertices_npy", "phones", "hidden"):
        (partial / folder).mkdir(parents=True)
    copies |= {name: name for name in silent.values()}
    for name, old in (copies | silent).items():
        for folder, kind in (("wav", "wav"), ("vertices_npy", "npy"), ("phones", "json"), ("hidden", "npz")):
            file = source / folder / f"{old}.{kind}"
            if file.exists() and not (name in silent and folder == "vertices_npy"):
                shutil.copy2(file, partial / folder / f"{name}.{kind}")
    for file in (source / name for name in KEPT):
        if file.exists():
            shutil.copy2(file, partial / file.name)
    if (source / "transcripts.json").exists():
        said = load_json(source / "transcripts.json")
        said = {name: said[old] for name, old in (copies | silent).items() if old in said}
        atomic_write_json(partial / "transcripts.json", said)
    templates = {subject: train.template(subject).view(-1, 3).numpy() for subject in train.subjects}
    for corpus in tested.values():
        for subject in dict.fromkeys(corpus[i].subject for i in range(len(corpus))):
            templates[subject] = corpus.template(subject).view(-1, 3).numpy()
    templates |= {NEW + subject: templates[subject] for subject in own}
    description = load_json(source / "corpus.json")
    joined = [NEW + voice for voice in own]
    if voices is not None or spoken is not None:
        spared = [s for s in templates if s not in train.subjects and not s.startswith(NEW) and s not in own]
        seed = description["synthesis"]["seed"]
        further = add(partial, seed, NEW, list(own), voices or len(own), spoken or new, spared)
        templates |= further
        joined += further
    (partial / "templates.pkl").write_bytes(pickle.dumps(templates, protocol=2))
    last = max(new, sentences, spoken or 0)
    description["splits"]["train"] = {"subjects": [*train.subjects, *joined], "sentences": [1, last]}
    first = min(parse_name(name)[1] or 0 for name in tested[split].names)
    description["splits"][ADAPTED] = {"subjects": list(own), "sentences": [1, min(new, first - 1)]}
    description["audio_only_subjects"] = joined
    description["adapted_from"] = {"split": split, "sentences": sentences, "new": new}
    if voices is not None or spoken is not None:
        description["adapted_from"] |= {"voices": len(joined), "spoken": spoken or new}
    atomic_write_json(partial / "corpus.json", description)
    partial.rename(out)
    return out


def main() -> int:
    """Run; a mistake ends in one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="corpus folder with corpus.json")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--split", default="validation", help="whose speakers join training (default: %(default)s)")
    parser.add_argument("--sentences", type=int, default=5, help="of every old speaker (default: %(default)s)")
    parser.add_argument("--new", type=int, default=20, help="sentences of every new voice (default: %(default)s)")
    parser.add_argument("--voices", type=int, help="new voices in all; espeak-ng speaks those beyond the split's")
    parser.add_argument("--spoken", type=int, help="sentences of every new voice; espeak-ng says those that lack")
    options = parser.parse_args()
    try:
        out = make(**vars(options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    corpus = FaceCorpus(out, split="train")
    recorded = sum(corpus.has_vertices(i) for i in range(len(corpus)))
    print(json.dumps({"corpus": str(out), "recorded": recorded, "audio_only": len(corpus) - recorded}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
