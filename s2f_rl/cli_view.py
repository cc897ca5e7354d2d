"""The subcommand ``s2f-rl view``: faces on a page."""

from __future__ import annotations

import argparse

from s2f_rl.cli_commands import Commands

_EXAMPLE = """examples:
  s2f-rl view truth.npy ppo.npy --corpus data/vocaset --out compare.html
  s2f-rl view truth.npy ppo.npy --corpus data/vocaset --reward checkpoints/judge --captions truth PPO --out compare.html
  s2f-rl view face.npy --mesh head.obj --fps 60 --audio take.wav --out face.html
"""


def add_view(commands: Commands) -> None:
    """``s2f-rl view A.npy [B.npy ...] --out compare.html``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.view import cli_view

        cli_view(
            options.meshes,
            options.out,
            corpus_root=options.corpus,
            audio=options.audio,
            captions=options.captions,
            mesh=options.mesh,
            fps=options.fps,
            reward=options.reward,
            topology=options.topology,
            error_mm=options.error,
        )
        print(options.out)
        return 0

    description = (
        "Mesh sequences side by side on one page, with sound and curves; it opens from disk, without a network."
    )
    parser = commands.add_parser(
        "view",
        help="mesh sequences side by side on a page that plays and turns them",
        description=description,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "meshes", metavar="MESH.npy", nargs="+", help="vertices [T, V*3], metres; distances to the first"
    )
    parser.add_argument("--out", required=True, help=".html to write")
    parser.add_argument(
        "--corpus",
        help="their corpus, for triangles, rate, colours, lips; phones and sound of the first file's utterance",
    )
    parser.add_argument("--audio", help="sound file, 4 to 384 kHz (default: the utterance's, where there is a corpus)")
    parser.add_argument("--captions", nargs="+", metavar="TEXT", help="one per face; default: the file names")
    parser.add_argument("--mesh", help=".obj, .ply, .glb or .npy with the triangles, without a corpus (default: dots)")
    parser.add_argument("--fps", type=float, help="frames per second, without a corpus (default: 30)")
    parser.add_argument("--reward", metavar="FOLDER", help="a reward or a judge whose scores to draw")
    parser.add_argument(
        "--error",
        type=float,
        default=0.005,
        metavar="MM",
        help="wanted mean error of the stored vertices (default: %(default)s)",
    )
    parser.add_argument("--topology", choices=["vocaset", "biwi"], help="where the files do not tell it")
