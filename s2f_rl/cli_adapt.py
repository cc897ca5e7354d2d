"""The subcommand ``s2f-rl adapt``: an actor tuned to recordings without meshes."""

from __future__ import annotations

import argparse

from s2f_rl.cli_commands import Commands

_EXAMPLE = """examples:
  s2f-rl adapt checkpoints/supervised take.wav --text take.txt --reward checkpoints/reward --out adapted
  s2f-rl adapt checkpoints/supervised lines/*.wav --text lines.json --reward checkpoints/reward \\
      --corpus data/vocaset --style FaceTalk_170728_03272_TA --judge checkpoints/judge --out adapted
  then open adapted/report.html, and animate with --checkpoint adapted/actor.pt
"""


def add_adapt(commands: Commands) -> None:
    """``s2f-rl adapt ACTOR SOUND... --text FILE --reward FOLDER --out FOLDER``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.adaptation.run import adapt

        said = adapt(
            options.actor,
            options.sounds,
            options.out,
            options.reward,
            text=options.text,
            articulation=options.articulation,
            corpus=options.corpus,
            style=options.style,
            hold_back=options.hold_back,
            judge=options.judge,
            pronunciations=options.words,
            retime=options.retime,
            film=not options.no_film,
            settings=options.set,
            topology=options.topology,
            device=options.device,
        )
        print(f"{said}\n{options.out}/report.html, and the tuned actor in {options.out}/actor.pt")
        return 0

    description = (
        "Tune an actor to recordings, without meshes, of voices that it does not know; report what that did. "
        "The same command goes on after a stop."
    )
    parser = commands.add_parser(
        "adapt",
        help="tune an actor to recordings without meshes, and report what rose and what fell",
        description=description,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("actor", metavar="ACTOR", help="run folder, its best.pt, or published FaceFormer weights")
    parser.add_argument(
        "sounds", metavar="SOUND", nargs="+", help="recordings (WAV, FLAC, MP3, m4a, ...), 4 to 384 kHz"
    )
    parser.add_argument("--reward", required=True, metavar="FOLDER", help="the perceptual reward")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder for actor, report and what they need")
    parser.add_argument(
        "--text",
        help="the words, in English: a .txt for a single recording; else .json {NAME: words}, .csv or lines "
        "NAME<TAB>words, or a folder of NAME.txt (default: the perceptual reward alone)",
    )
    parser.add_argument("--words", metavar="FILE", help="pronunciations of further words, lines such as: oboe OW B OW")
    parser.add_argument(
        "--retime", action="store_true", help="move the phones' boundaries to where the package's recogniser hears them"
    )
    parser.add_argument("--articulation", metavar="FOLDER", help="an articulation reward, beside the perceptual one")
    parser.add_argument("--corpus", help="the actor's training corpus, some recordings of which hold it near the truth")
    parser.add_argument("--style", help="training subject, or style column, whose face and way of speaking to use")
    parser.add_argument(
        "--hold-back",
        type=int,
        metavar="N",
        help="sentences that training does not hear (default: about a fifth)",
    )
    parser.add_argument("--judge", metavar="FOLDER", help="a reward or judge that training does not see")
    parser.add_argument("--no-film", action="store_true", help="make no film of before and after")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings of the recipe gdpo"
    )
    parser.add_argument("--topology", choices=["vocaset", "biwi"], help="where the files do not tell it")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)")
