"""``s2f-rl coefficients``: recordings of blendshape coefficients into a corpus."""

from __future__ import annotations

import argparse

from s2f_rl.cli_commands import Commands
from s2f_rl.errors import UserError


def add_coefficients(commands: Commands) -> None:
    """``s2f-rl coefficients SOURCE OUT``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.data.coefficients.convert import convert_coefficients

        if options.fps is not None and not 1 <= options.fps <= 1000:
            raise UserError(f"--fps {options.fps:g}: must be a number from 1 to 1000")
        report = convert_coefficients(
            options.source, options.out, names=options.names, fps=options.fps, basis=options.basis,
            subject=options.subject, sounds=options.sounds,
        )  # fmt: skip
        print(f"{report}\nlook it over with: s2f-rl check {options.out}")
        return 0

    what = "make a corpus of recordings of coefficients: Live Link Face or other CSV, BEAT's JSON, npy, FLAME's npz"
    parser = commands.add_parser("coefficients", help=what, description=what)
    parser.set_defaults(run=run)
    parser.add_argument("source", metavar="SOURCE", help="folder of recordings, each with a sound file of its name")
    parser.add_argument("out", metavar="OUT", help="corpus folder to write, new or empty")
    parser.add_argument("--names", metavar="FILE", help="a name per line, where files do not name columns")
    parser.add_argument("--fps", type=float, help="frames per second, where files do not tell (default: by the sound)")
    parser.add_argument("--basis", help="basis.npz of the face that the coefficients move; see the how-to")
    parser.add_argument("--subject", help="who speaks in all of them (default: by name or folder)")
    parser.add_argument("--sounds", metavar="FOLDER", help="of the sound files, if they do not lie beside")
