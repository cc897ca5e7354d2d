"""Which vertices are lips, upper face, upper lip and lower lip."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from s2f_rl.data.files import is_there, load_json, load_plain_pickle, read_text
from s2f_rl.errors import UserError

MASKS_FILE = "FLAME_masks.pkl"
LANDMARKS_FILE = "landmarks.json"
TEXT_LISTS = {"lips": "regions/lve.txt", "upper_face": "regions/fdd.txt"}
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}")
UPPER_FACE_PARTS = ("forehead", "eye_region", "left_eye_region", "right_eye_region")
"""FLAME's regions that make up the upper face: all that blinks, frowns and raises brows, and nothing that speaks."""
_REMEDY = {
    "lips": f"put FLAME's {MASKS_FILE} into the corpus folder, or {TEXT_LISTS['lips']} with vertex numbers",
    "upper_face": f"put FLAME's {MASKS_FILE} into the corpus folder, or {TEXT_LISTS['upper_face']} with vertex numbers",
    "upper_lip": f"write {LANDMARKS_FILE} with upper_lip and lower_lip, or provide the lips region",
    "lower_lip": f"write {LANDMARKS_FILE} with upper_lip and lower_lip, or provide the lips region",
}


class Regions(dict[str, torch.Tensor]):
    """Vertex indices by region, int64 [n]. A missing region raises a UserError that says which file provides it.

    ``regions.get(name)`` gives None instead, and ``name in regions`` tells.
    """

    def __init__(self, root: Path, regions: Mapping[str, torch.Tensor]) -> None:
        super().__init__(regions)
        self.root = root

    def __missing__(self, name: str) -> torch.Tensor:
        remedy = _REMEDY.get(name, f"known here are: {', '.join(sorted(self)) or 'none'}")
        raise UserError(f"{self.root}: has no region {name!r}; {remedy}")

    def __reduce__(self) -> tuple[type[Regions], tuple[Path, dict[str, torch.Tensor]]]:
        return (Regions, (self.root, dict(self)))


def load_regions(
    root: Path,
    n_vertices: int,
    template: np.ndarray | None = None,
    on_fault: Callable[[Path, UserError], None] | None = None,
) -> Regions:
    """Collect the regions of a corpus.

    - every region of ``FLAME_masks.pkl`` under its own name;
    - ``lips``: from there, else from ``regions/lve.txt``; ``upper_face``: FLAME's forehead and eye region, else
      ``regions/fdd.txt`` (the index lists published with CodeTalker: numbers separated by commas or spaces);
    - ``upper_lip`` and ``lower_lip``, at the middle of each lip: from ``landmarks.json``, else derived from the lips
      and a template by :func:`lip_centres`.

    Args:
        root: the corpus folder.
        n_vertices: V; every index must be below it.
        template: [V, 3], any unit; without it no lip centres are derived.
        on_fault: called with a file and what is wrong with it, instead of raising; that part is then left out.

    Raises:
        UserError: a file that is there cannot be used (unless there is ``on_fault``).
    """
    regions: dict[str, torch.Tensor] = {}

    def tell(path: Path, error: UserError) -> None:
        if on_fault is None:
            raise error
        on_fault(path, error)

    def read_named(file: str, reader: Callable[[Path], object]) -> None:
        """Add every {region: indices} of a file that are right; tell of the others."""
        path = root / file
        if not is_there(path):
            return
        try:
            content = reader(path)
            if not isinstance(content, dict) or not content:
                raise UserError(f"{path}: not of the form {{region: vertex numbers}}; mend or delete it")
        except UserError as error:
            tell(path, error)
            return
        for name, value in content.items():
            try:
                regions[str(name)] = checked_indices(value, n_vertices, f"{path}: {name}")
            except UserError as error:
                tell(path, error)

    read_named(MASKS_FILE, load_plain_pickle)
    parts = [regions[part] for part in UPPER_FACE_PARTS if part in regions]
    if "upper_face" not in regions and parts:
        regions["upper_face"] = torch.cat(parts).unique()
    for name, file in TEXT_LISTS.items():
        if name not in regions:
            read_named(file, lambda path, name=name: {name: read_index_list(path)})  # type: ignore[misc]
    read_named(LANDMARKS_FILE, load_json)
    if template is not None and "lips" in regions and not {"upper_lip", "lower_lip"} <= regions.keys():
        centres = lip_centres(template, regions["lips"].numpy(), _numpy(regions.get("upper_face")))
        if centres is not None:
            for name, index in zip(("upper_lip", "lower_lip"), centres, strict=True):
                regions.setdefault(name, torch.tensor([index]))
    return Regions(root, regions)


def read_index_list(path: Path) -> list[int]:
    """Read vertex numbers (from 0) separated by commas, spaces or line ends. Raises UserError."""
    words = re.split(r"[\s,;]+", read_text(path).strip("[]\n\t ,;"))
    wrong = next((word for word in words if word and not _NUMBER.fullmatch(word)), None)
    if wrong is not None:
        raise UserError(f"{path}: not a list of vertex numbers ({wrong[:40]!r}); write numbers and commas")
    return [int(word) for word in words if word]


def checked_indices(value: object, n_vertices: int, what: str) -> torch.Tensor:
    """Return vertex indices as int64 [n]; UserError when they are no whole numbers in 0..V-1, or none at all."""
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(_flat(value))
    except (ValueError, OverflowError):
        array = np.asarray([""])
    array = array.reshape(-1)
    if array.dtype.kind == "f" and len(array) and (np.abs(array) < 2**53).all() and (array == np.round(array)).all():
        array = array.astype(np.int64)  # some published masks hold whole numbers as floats
    if len(array) == 0 or array.dtype.kind not in "iu":
        raise UserError(f"{what}: not a list of vertex numbers; write whole numbers from 0 to {n_vertices - 1}")
    if array.min() < 0 or array.max() >= n_vertices:
        outside = array.min() if array.min() < 0 else array.max()
        raise UserError(
            f"{what}: names vertex {outside}, but the mesh has {n_vertices}; use the masks of this topology"
        )
    return torch.from_numpy(array.astype(np.int64))


def _flat(value: object) -> list[object]:
    """A list of numbers, or of lists of the same length; numpy would follow a list that holds itself for ever."""
    rows = value if isinstance(value, (list, tuple)) else [value]
    if len({len(row) if isinstance(row, (list, tuple)) else -1 for row in rows}) > 1:
        raise ValueError("rows of unequal lengths")
    items = [item for row in rows for item in (row if isinstance(row, (list, tuple)) else [row])]
    if not all(isinstance(item, (int, float, np.integer, np.floating)) for item in items):
        raise ValueError("no numbers")
    return items


def lip_centres(template: np.ndarray, lips: np.ndarray, upper_face: np.ndarray | None = None) -> tuple[int, int] | None:
    """The most protruding vertex in the middle of the upper and of the lower lip.

    Of the lip vertices in the middle fifth of the mouth's width those above and below half height are taken apart, and
    of each the foremost is chosen. Front is where the lips lie from the middle of the whole mesh; up is where the upper
    face lies from the lips, or +y where it is not known. x runs across the face, y up or down, z to the front or back,
    as in both published topologies.

    Returns:
        (upper, lower) vertex numbers; None when the lips are too few or too flat to tell them apart.
    """
    points = np.asarray(template, dtype=np.float64).reshape(-1, 3)
    mouth = points[lips]
    x, y, z = mouth.T
    width, height = np.ptp(x), np.ptp(y)
    if width <= 0 or height <= 0:
        return None
    front = 1.0 if z.mean() >= points[:, 2].mean() else -1.0
    up = 1.0 if upper_face is None or points[upper_face, 1].mean() >= y.mean() else -1.0
    off_centre = np.abs(x - (x.max() + x.min()) / 2)
    for share in (0.1, 0.2, 0.4):  # a coarse mesh may have no vertex very near the middle
        middle = off_centre <= share * width
        if not middle.any():
            continue
        half = (y[middle].max() + y[middle].min()) / 2
        above, below = middle & (up * (y - half) > 0), middle & (up * (y - half) < 0)
        if above.any() and below.any():
            return tuple(int(lips[np.where(part, front * z, -np.inf).argmax()]) for part in (above, below))  # type: ignore[return-value]
    return None


def _numpy(tensor: torch.Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.numpy()
