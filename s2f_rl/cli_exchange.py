"""The subcommands ``s2f-rl blendshapes`` and ``s2f-rl convert``: motion for other tools."""

from __future__ import annotations

import argparse

from s2f_rl.cli_commands import Commands
from s2f_rl.errors import UserError

_BLENDSHAPES = """examples:
  s2f-rl blendshapes take.npy --basis face.glb --fps 30 --out take.csv
  s2f-rl blendshapes predictions --basis basis.npz --corpus data/demo --form livelink --out weights
  s2f-rl blendshapes --basis face.glb --names-template names.csv     then edit it, and give it with --names
"""
_CONVERT = """examples:
  s2f-rl convert take.npy --corpus data/demo --out take.usdc
  s2f-rl convert predictions --corpus data/demo --form glb --out scenes
"""


def add_blendshapes(commands: Commands) -> None:
    """``s2f-rl blendshapes MESHES --basis FACE.glb --out weights.csv``"""

    def run(options: argparse.Namespace) -> int:
        if options.names_template is not None:
            from s2f_rl.data.coefficients.basis_files import read_basis
            from s2f_rl.exchange.names import write_names

            if options.meshes or options.out is not None:
                raise UserError("--names-template writes the table alone; give no sequences and no --out")
            rig = read_basis(options.basis, options.mesh, unit=options.basis_unit)
            write_names(options.names_template, rig.names)
            print(f"{options.names_template}: edit its second column, then give it with --names")
            return 0
        from s2f_rl.exchange.command import blendshapes

        if not options.meshes or options.out is None:
            raise UserError("give sequences and --out, or --names-template")
        for line in blendshapes(
            options.meshes,
            options.basis,
            options.out,
            form=options.form,
            corpus=options.corpus,
            topology=options.topology,
            fps=options.fps,
            rest=options.rest,
            unit=options.unit,
            mesh=options.mesh,
            basis_unit=options.basis_unit,
            names=options.names,
            triangles=options.triangles,
            audio=options.audio,
            weights=options.weights,
            smooth=options.smooth,
            sparse=options.sparse,
            residual=options.residual,
        ):
            print(line)
        return 0

    parser = _command(
        commands, "blendshapes", run, "fit the weights of a rig's shapes to mesh sequences", _BLENDSHAPES, "*"
    )
    parser.add_argument("--basis", required=True, metavar="FILE", help="the rig: .glb with morph targets, or basis.npz")
    parser.add_argument(
        "--out", help=".csv, .json, .npy, .glb, .usdc or .usda to write; a folder for several (with --form)"
    )
    parser.add_argument(
        "--form",
        choices=["csv", "livelink", "json", "npy", "glb", "usdc", "usda", "usd"],
        help="what to write (default: told by --out); livelink is the CSV of Live Link Face",
    )
    _add_source(parser)
    parser.add_argument("--rest", metavar="FILE", help=".npy, .obj, .ply or .glb: face at rest, if not the basis's")
    parser.add_argument("--mesh", metavar="NAME", help="which mesh of the .glb")
    parser.add_argument("--basis-unit", metavar="UNIT", help="of the .glb (default: told from the size of the face)")
    parser.add_argument("--names", metavar="TABLE.csv", help="names of the shapes outside: two columns")
    parser.add_argument("--names-template", metavar="TABLE.csv", help="write such a table, to be edited")
    parser.add_argument("--weights", action="store_true", help="MESHES are weights [T, K] of the rig: fit nothing")
    parser.add_argument("--smooth", type=float, default=0.0, help="weight of the temporal term (default: %(default)s)")
    parser.add_argument("--sparse", type=float, default=1e-6, help="weight of the sparsity term (default: %(default)s)")
    parser.add_argument("--residual", metavar="FILE.csv", help="write mean and greatest distance of every frame, mm")


def add_convert(commands: Commands) -> None:
    """``s2f-rl convert MESHES --out face.usdc``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.exchange.command import convert

        for line in convert(
            options.meshes,
            options.out,
            form=options.form,
            corpus=options.corpus,
            topology=options.topology,
            fps=options.fps,
            unit=options.unit,
            triangles=options.triangles,
            audio=options.audio,
            error_mm=options.error,
        ):
            print(line)
        return 0

    parser = _command(commands, "convert", run, "write mesh sequences as USD, GLB or OBJ files", _CONVERT, "+")
    parser.add_argument("--out", required=True, help=".usdc, .usda or .glb to write; a folder for OBJ or several")
    parser.add_argument(
        "--form", choices=["usdc", "usda", "usd", "glb", "obj"], help="what to write (default: told by --out)"
    )
    _add_source(parser)
    parser.add_argument(
        "--error",
        type=float,
        default=0.01,
        metavar="MM",
        help="how far a vertex of a GLB may be off (default: %(default)s)",
    )


def _command(
    commands: Commands, name: str, run: object, description: str, examples: str, n: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=description,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "meshes", metavar="MESHES", nargs=n, help="sequences [T, V*3], .npy or .npz, or folders of them"
    )
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", help="corpus folder of the mesh: rate, unit, triangles, colours, sound, faces")
    parser.add_argument("--fps", type=float, help="frames per second, where there is no corpus")
    parser.add_argument(
        "--unit", help="of the files' lengths: m, cm, mm, ... (default: told from the size of the face)"
    )
    parser.add_argument(
        "--triangles", metavar="FILE", help=".obj, .ply, .glb or .npy that has them, if not in basis or corpus"
    )
    parser.add_argument("--audio", help="sound that a USD file refers to (default: the corpus's)")
    parser.add_argument("--topology", choices=["vocaset", "biwi"], help="where the files do not tell it")


COMMANDS = (add_blendshapes, add_convert)
