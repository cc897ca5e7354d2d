"""The subcommands of ``s2f-rl``: options on the left, one call into the library on the right."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeAlias

from s2f_rl.errors import UserError, one_line

Run = Callable[[argparse.Namespace], int]
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_synthesize(commands: Commands) -> None:
    """``s2f-rl synthesize OUT``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.data.synthetic import synthesize

        synthesize(
            options.out,
            subjects=options.subjects,
            sentences=options.sentences,
            vertices=options.vertices,
            seed=options.seed,
            audio_only_subjects=options.audio_only_subjects,
            motion=options.motion,
        )
        print(f"{options.out}: written; look it over with: s2f-rl check {options.out}")
        return 0

    parser = _command(commands, "synthesize", run, "write the built-in corpus: synthetic speech and a procedural face")
    parser.add_argument("out", metavar="OUT", help="folder to write")
    parser.add_argument("--subjects", type=_positive, default=12, help="speakers, at least 3 (default: %(default)s)")
    parser.add_argument("--sentences", type=_positive, default=40, help="sentences per speaker (default: %(default)s)")
    parser.add_argument("--vertices", type=_positive, default=600, help="vertices of the face (default: %(default)s)")
    parser.add_argument(
        "--audio-only-subjects", type=int, default=0, help="further speakers without vertices (default: %(default)s)"
    )
    parser.add_argument(
        "--motion", default="vertices", choices=["vertices", "arkit"],
        help="of meshes, or coefficients of ARKit's names with their basis (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: %(default)s)")


def add_prepare(commands: Commands) -> None:
    """``s2f-rl prepare vocaset|biwi RAW OUT``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.data import prepare_biwi, prepare_vocaset

        convert = {"vocaset": prepare_vocaset, "biwi": prepare_biwi}[options.dataset]
        print(convert(options.raw, options.out))
        return 0

    parser = _command(commands, "prepare", run, "convert a downloaded data set into the layout that training reads")
    parser.add_argument("dataset", choices=["vocaset", "biwi"])
    parser.add_argument("raw", metavar="RAW", help="folder with the downloaded files")
    parser.add_argument("out", metavar="OUT", help="corpus folder to write; an interrupted run goes on")


def add_animate(commands: Commands) -> None:
    """``s2f-rl animate SPEECH.wav --checkpoint F --out face.mp4``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.evaluation.animate import animate

        _use_actor(options)
        animate(
            options.speech,
            options.checkpoint,
            options.out,
            corpus=options.corpus,
            subject=options.subject,
            style=options.style,
            size=options.size,
            device=_device(options),
            coefficients=options.coefficients,
            form=options.form,
            **_given(options, "topology"),
        )
        print(options.out)
        return 0

    parser = _command(commands, "animate", run, "animate a face with a recording")
    parser.add_argument(
        "speech", metavar="SPEECH.wav", help="sound file (WAV, FLAC, MP3, m4a, webm, ...), 4 to 384 kHz"
    )
    _add_checkpoint(parser)
    parser.add_argument("--out", required=True, help=".mp4: film, .html: page, .npy: metres, .csv: weights, .glb, .usd")
    parser.add_argument(
        "--form", choices=["livelink"], help="of the .csv: that of Live Link Face, ARKit's shapes alone"
    )
    parser.add_argument("--coefficients", action="store_true", help="of a rig, in the .npy, in place of vertices")
    parser.add_argument("--corpus", help="corpus folder to take the face from; default: the checkpoint's own")
    parser.add_argument("--subject", help="whose face; default: the first training subject")
    parser.add_argument("--style", help="training subject, or style column, whose way of speaking to use")
    parser.add_argument("--size", type=_positive, default=512, help="pixels of the film's side (default: %(default)s)")
    _add_topology(parser)
    _add_device(parser)


def add_score(commands: Commands) -> None:
    """``s2f-rl score MESHES --corpus C --reward FOLDER --out scores.csv``, or ``--wavs FOLDER`` for ``--corpus``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.evaluation.score import score_folder

        rows = score_folder(
            options.meshes if len(options.meshes) > 1 else options.meshes[0],
            options.corpus,
            options.reward,
            options.out,
            device=_device(options),
            wavs=options.wavs,
            fps=options.fps,
            cache_folder=options.cache,
            **_given(options, "topology"),
        )
        print(f"{options.out}: {len(rows)} sequences scored")
        return 0

    parser = _command(commands, "score", run, "score mesh sequences with a reward model or a judge")
    parser.add_argument("meshes", metavar="MESHES", nargs="+", help="folder of .npy or .npz sequences, or such files")
    speech = parser.add_mutually_exclusive_group(required=True)
    speech.add_argument("--corpus", help="corpus folder with their speech")
    speech.add_argument("--wavs", help="folder of NAME.wav, where there is no corpus")
    parser.add_argument("--fps", type=float, help="with --wavs: frames per second of the motion, if not the reward's")
    parser.add_argument("--reward", required=True, help="folder of the reward model or a judge; or a kind of reward")
    parser.add_argument("--out", required=True, help="csv file to write; the same command goes on after a stop")
    parser.add_argument("--cache", help="folder to keep audio features in, for further calls")
    _add_topology(parser)
    _add_device(parser)


def add_render(commands: Commands) -> None:
    """``s2f-rl render A.npy [B.npy ...] --corpus C --audio F --out film.mp4``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.render import cli_render

        cli_render(
            options.meshes,
            options.corpus,
            options.audio,
            options.out,
            captions=options.captions,
            size=options.size,
            curves=options.curves,
            **_given(options, "topology"),
        )
        print(options.out)
        return 0

    parser = _command(commands, "render", run, "film mesh sequences side by side, with sound")
    parser.add_argument("meshes", metavar="MESH.npy", nargs="+", help="vertices [T, V*3], metres; one panel each")
    parser.add_argument("--corpus", required=True, help="corpus folder, for the triangles and the frame rate")
    parser.add_argument("--audio", help="sound file, 4 to 384 kHz; without one the film is silent")
    parser.add_argument("--out", required=True, help=".mp4 to write")
    parser.add_argument("--curves", action="store_true", help="draw lip opening and phones under the faces")
    parser.add_argument("--captions", nargs="+", metavar="TEXT", help="one per panel; default: the file names")
    parser.add_argument("--size", type=_positive, default=512, help="pixels of a panel's side (default: %(default)s)")
    _add_topology(parser)


def add_evaluate(commands: Commands) -> None:
    """``s2f-rl evaluate --checkpoint F --corpus C --out FOLDER``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.evaluation import evaluate_checkpoint
        from s2f_rl.evaluation.summary import described

        _use_actor(options)
        summary = evaluate_checkpoint(
            options.checkpoint,
            options.corpus,
            options.out,
            split=options.split,
            reward=options.reward,
            judge=options.judge,
            conditions=options.conditions,
            save_predictions=not options.no_predictions,
            device=_device(options),
            rows_format=options.rows_format,
            true_distance=options.true_distance,
            measures=options.measure,
            predictions=options.predictions,
            cache=options.cache,
            **_given(options, "topology"),
        )
        for kind in ("style_dependent", "style_independent"):
            for name, value, words in described(summary, kind):
                print(f"{kind:18} {name:24} {value:<12.6g} {words}".rstrip())
        written = ["summary.json", "sequences.csv", f"measures.{options.rows_format}"]
        print(f"{options.out}: {', '.join(written + ([] if options.no_predictions else ['predictions/']))}")
        return 0

    parser = _command(commands, "evaluate", run, "predict and measure a split in every style condition")
    _add_checkpoint(parser)
    parser.add_argument("--corpus", required=True, help="corpus folder")
    parser.add_argument("--out", required=True, help="folder for summary, rows and predictions")
    parser.add_argument("--split", default="test", choices=["train", "validation", "test", "test_seen", "all"])
    parser.add_argument("--reward", help="folder of the reward model that training used")
    parser.add_argument("--judge", help="folder of a reward model that training never saw")
    parser.add_argument(
        "--conditions",
        type=_conditions,
        default="all",
        help="styles to predict with: all, own, or columns such as 0,2 (default: %(default)s)",
    )
    parser.add_argument(
        "--rows-format", default="csv", choices=["csv", "parquet"], help="of the row per value (default: %(default)s)"
    )
    parser.add_argument(
        "--true-distance",
        default="false",
        choices=["true", "false", "auto"],
        help="distance to the nearest plausible motion, built-in corpus only (default: %(default)s)",
    )
    parser.add_argument(
        "--measure",
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help="one of your own (repeatable; see examples/metric)",
    )
    parser.add_argument("--no-predictions", action="store_true", help="do not write the predicted vertices")
    parser.add_argument(
        "--predictions",
        default="float32",
        choices=["float32", "float16"],
        help="write vertices (.npy), or offsets from the face at rest (.npz, half the size) (default: %(default)s)",
    )
    parser.add_argument("--cache", help="folder to keep audio features in, for further calls")
    _add_topology(parser)
    _add_device(parser)


def add_export(commands: Commands) -> None:
    """``s2f-rl export --checkpoint F --out ACTOR.pt``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.models.checkpoint import export_actor

        _use_actor(options)
        print(export_actor(options.checkpoint, options.out))
        return 0

    parser = _command(commands, "export", run, "write a run's actor to one file that stands alone, to be passed on")
    _add_checkpoint(parser, "run folder, or its best.pt")
    parser.add_argument("--out", required=True, help=".pt file to write")


def add_align(commands: Commands) -> None:
    """``s2f-rl align CORPUS --text transcripts.json`` and ``s2f-rl align --wav F --text "..." --out F``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.data.alignment import REPORT, align_corpus, align_file

        retime = None
        if options.retime:
            from s2f_rl.models.retiming import Retimer

            retime = Retimer()
        if options.wav is not None:
            if options.corpus is not None or options.text is None or options.out is None:
                raise UserError("--wav aligns one recording: give --text WORDS and --out FILE, and no corpus")
            phones = align_file(options.wav, options.text, options.out, options.words, retime)
            print(f"{options.out}: {len(phones)} phones")
            return 0
        if options.corpus is None:
            raise UserError("name a corpus folder (its timings go to its own phones/), or --wav, --text and --out")
        report = align_corpus(
            options.corpus,
            options.text,
            pronunciations=options.words,
            overwrite=options.overwrite,
            retime=retime,
            **_given(options, "topology", "out"),
        )
        if report.unheard:
            print(f"{len(report.unheard)} were not recognised and kept the aligner's times (named in {REPORT})")
        for name, reason in report.failed.items():
            print(one_line(f"{name}: {reason}"))
        print(
            f"{options.corpus}: {len(report.written)} aligned, {len(report.kept)} had timings, "
            f"{len(report.failed)} failed" + (f" (also in {REPORT})" if report.failed else "")
        )
        return int(bool(report.failed))

    parser = _command(
        commands,
        "align",
        run,
        "find the phones of known English words in speech, so that closure can be measured; exit code 1 if some failed",
    )
    parser.add_argument("corpus", metavar="CORPUS", nargs="?", help="corpus folder; its phones/ is written")
    parser.add_argument(
        "--text",
        help="the words: .json {NAME: words}, .csv or lines NAME<TAB>words, a folder of NAME.txt or of SUBJECT.txt "
        "with a sentence per line (default: the corpus's transcripts.json); with --wav, the sentence itself",
    )
    parser.add_argument("--wav", help="one sound file in place of a corpus")
    parser.add_argument(
        "--out", help="with --wav: .json file to write; else a folder for the timings, those of the corpus then stay"
    )
    parser.add_argument(
        "--retime", action="store_true", help="put the boundaries where the package's phone recogniser hears them"
    )
    parser.add_argument("--words", metavar="FILE", help="pronunciations of further words, lines such as: oboe OW B OW")
    parser.add_argument("--overwrite", action="store_true", help="replace timings that are there")
    _add_topology(parser)


COMMANDS = (
    add_synthesize, add_prepare, add_animate, add_score, add_render, add_evaluate, add_export, add_align,
)  # fmt: skip


def _command(commands: Commands, name: str, run: Run, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=description, description=description)
    parser.set_defaults(run=run)
    return parser


def _add_checkpoint(
    parser: argparse.ArgumentParser, what: str = "run folder, its best.pt, or published weights (CodeTalker: stage 2)"
) -> None:
    parser.add_argument("--checkpoint", required=True, help=what)
    parser.add_argument(
        "--actor-kind", metavar="MODULE:NAME", help="class of an actor of your own, whose kind the checkpoint names"
    )


def _use_actor(options: argparse.Namespace) -> None:
    if options.actor_kind is not None:
        from s2f_rl.models.actors import use_actor

        use_actor(options.actor_kind)


def _add_topology(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--topology",
        choices=["vocaset", "biwi"],
        help="frame rate and layout where the files do not tell them (then vocaset)",
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)")


def _device(options: argparse.Namespace) -> str:
    from s2f_rl.runs.device import pick_device

    return str(pick_device(options.device))


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Options that the user gave; the library's own defaults stand for the others."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _conditions(text: str) -> str | list[int]:
    if text in ("all", "own"):
        return text
    try:
        return [int(column) for column in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not all, own or a list of columns such as 0,2") from None
