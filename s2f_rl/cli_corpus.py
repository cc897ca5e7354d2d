"""The subcommands that make and look over a corpus: ``s2f-rl corpus new`` and ``s2f-rl check``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from s2f_rl.cli_commands import Commands
from s2f_rl.errors import UserError, one_line

_EXAMPLE = """examples:
  s2f-rl corpus new data/mine --mesh face.obj --recordings takes --motion motion --fps 60 --every 2 --mouth 2831,3645
  s2f-rl corpus new data/mine --mesh painted.ply --recordings takes --subject anna      (no motion: speech alone)
then look at data/mine/regions.png
"""


def add_corpus(commands: Commands) -> None:
    """``s2f-rl corpus new OUT --mesh FACE --recordings DIR --motion DIR``"""
    description = "make a corpus from a mesh, recordings and motion of your own"
    parser = commands.add_parser("corpus", help=description, description=description)
    inner = parser.add_subparsers(dest="corpus_command", required=True, metavar="COMMAND")

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.data import check_corpus, format_faults
        from s2f_rl.data.own.new import new_corpus

        report = new_corpus(
            options.out,
            options.mesh,
            options.recordings,
            options.motion,
            fps=options.fps,
            frame_step=options.every,
            regions=options.regions,
            landmarks=options.landmarks,
            mouth=options.mouth,
            unit=options.unit,
            up=options.up,
            front=options.front,
            templates=options.templates,
            names=options.names,
            subject=options.subject,
            validation=options.validation,
            test=options.test,
            ask=_ask if sys.stdin.isatty() else None,
        )
        print(one_line(options.out) + ": written")
        print("\n".join(one_line(line) for line in str(report).splitlines()))
        faults = check_corpus(options.out, progress=True)
        print(format_faults(faults))
        try:
            print(f"{one_line(_picture(options.out, Path(options.out) / 'regions.png'))}: what was found, look at it")
        except UserError as error:  # the corpus is there all the same
            print(f"no picture of the regions: {error}", file=sys.stderr)
        if faults.has_errors:
            print("mend the errors, remove the folder and run this again")
        elif report.n_recorded:
            print(f"next: s2f-rl recipe supervised corpus.root={one_line(options.out)}")
        else:
            print("next: speech alone joins RL's training; an actor for this mesh needs motion, see docs/how-to")
        return int(faults.has_errors)

    new = inner.add_parser(
        "new",
        help=description,
        description="Make a corpus from a mesh, recordings and motion: regions, unit and axes found, all in metres, "
        "y up; written whole or not at all, then checked.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    new.set_defaults(run=run)
    new.add_argument("out", metavar="OUT", help="corpus folder to write; must not exist")
    new.add_argument("--mesh", required=True, metavar="FACE", help="the face at rest: .obj, .ply, .glb or .npy [V, 3]")
    new.add_argument("--recordings", required=True, metavar="DIR", help="folder of sound files, SUBJECT_sentence01.wav")
    new.add_argument(
        "--motion",
        metavar="DIR",
        help="folder of NAME.npy [T, V*3] or NAME/ with a mesh a frame; default: speech alone",
    )
    new.add_argument("--fps", type=float, help="frames per second of the motion")
    new.add_argument("--every", type=_step, default=1, metavar="N", help="use every N-th frame (default: %(default)s)")
    mouth = new.add_argument_group("where the mouth is (else painted on the mesh, or asked for)")
    mouth.add_argument("--mouth", metavar="A,B", help="vertex numbers, from 0, of the two corners of the mouth")
    mouth.add_argument("--landmarks", metavar="FILE", help="68 vertex numbers or points (iBUG): .json, .npy or .txt")
    mouth.add_argument("--regions", metavar="FILE", help="{region: vertex numbers} (.json, .pkl), or the lips (.txt)")
    how = new.add_argument_group("how the mesh lies (guessed and shown)")
    how.add_argument("--unit", help="metres, cm, mm, inches, ...")
    how.add_argument("--up", metavar="AXIS", help="x, y, z, -x, -y or -z; with =, as --up=-y")
    how.add_argument("--front", metavar="AXIS", help="where the face looks, likewise")
    who = new.add_argument_group("who speaks")
    who.add_argument("--templates", metavar="DIR", help="SUBJECT.obj (.ply, ...): faces at rest that differ from FACE")
    who.add_argument("--subject", help="all recordings are this speaker's; they are numbered")
    who.add_argument("--names", metavar="FILE", help="names of the utterances: .csv file,SUBJECT_sentence01 or .json")
    who.add_argument("--validation", type=_names, default=(), metavar="S,T", help="subjects that validate")
    who.add_argument("--test", type=_names, default=(), metavar="S,T", help="subjects to test on")


def add_check(commands: Commands) -> None:
    """``s2f-rl check CORPUS``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.data import check_corpus, format_faults

        if not Path(options.corpus).is_dir():
            raise UserError(f"{options.corpus}: no such corpus folder; check the path")
        faults = check_corpus(options.corpus, options.topology, progress=True)
        print(format_faults(faults))
        if options.picture is not None:
            print(f"{one_line(_picture(options.corpus, options.picture, options.topology))}: written")
        return int(faults.has_errors)

    description = "list every fault of a corpus at once; exit code 1 if there are errors, 0 with warnings only"
    parser = commands.add_parser("check", help=description, description=description)
    parser.set_defaults(run=run)
    parser.add_argument("corpus", metavar="CORPUS", help="corpus folder")
    parser.add_argument("--picture", metavar="OUT.png", help="draw the regions on the face at rest")
    parser.add_argument(
        "--topology",
        choices=["vocaset", "biwi"],
        help="frame rate and layout where the files do not tell them (then vocaset)",
    )


def _picture(corpus: str, out: str | Path, topology: str | None = None) -> str:
    from s2f_rl.render.regions import corpus_regions_picture

    corpus_regions_picture(corpus, out, topology)
    return str(out)


def _ask(question: str) -> str:
    try:
        return input(question)
    except EOFError:
        raise UserError("--mouth: no answer; give it as an option") from None


def _step(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


COMMANDS = (add_corpus, add_check)
