"""What a corpus holds, as one hash per part, without reading gigabytes again at every start.

Every file is hashed whole, once: the sha256 is kept in ``.content.json`` of the folder with the file's size, times of
change and inode number, and holds as long as these do. A file that was copied or touched is read again and found to be
the same. What is not seen: a file changed behind the back of its file system, without a new time of change.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING

from s2f_rl.data.coefficients.basis import FILE as BASIS_FILE
from s2f_rl.data.coefficients.rig import FILE as RIG_FILE
from s2f_rl.data.description import FILE
from s2f_rl.data.files import atomic_write_text, load_json, require_file
from s2f_rl.data.regions import LANDMARKS_FILE, MASKS_FILE, TEXT_LISTS
from s2f_rl.errors import UserError
from s2f_rl.signs import watched

if TYPE_CHECKING:
    from s2f_rl.data.corpus import FaceCorpus

STORE = ".content.json"
_COMMON = {
    "templates": ("templates.pkl",),
    "regions": (MASKS_FILE, LANDMARKS_FILE, *TEXT_LISTS.values()),
    "faces": (
        "faces.npy",
        *(f"{place}{name}.ply" for place in ("", "templates/") for name in ("FLAME_sample", "BIWI")),
    ),
}
_FRESH_NS = 2 * 10**9
"""A file this young could change once more within one tick of the file system's clock: it is not remembered."""


def corpus_content(corpora: Sequence[FaceCorpus], spare: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """Hashes of all that a run reads of some splits of one corpus; where the folder lies does not enter.

    Args:
        corpora: the splits.
        spare: folder for the remembered hashes where the corpus cannot be written.

    Returns:
        sha256 as hex by part: ``description`` (``corpus.json`` without the splits), ``utterances`` (their names, by
        split), ``templates``, ``regions``, ``faces``, ``phones``, ``wav``, ``vertices_npy`` and, where motion is
        coefficients, ``coefficients``. Clips of ``wav_npy`` are
        derived from the sound and not counted.

    Raises:
        UserError: a file cannot be read.
    """
    root = corpora[0].root
    parts: dict[str, list[Path]] = {part: _present(root, names) for part, names in _COMMON.items()}
    utterances = {name: (corpus, i) for corpus in corpora for i, name in enumerate(corpus.names)}
    parts["phones"] = _present(root, (f"phones/{name}.json" for name in utterances))
    parts["wav"] = [corpus.wav(i) for corpus, i in utterances.values()]
    motion = [corpus.motion_file(i) for corpus, i in utterances.values() if corpus.has_vertices(i)]
    parts["vertices_npy"] = motion if corpora[0].rig is None else []
    if corpora[0].rig is not None:
        parts["coefficients"] = [*_present(root, (RIG_FILE, BASIS_FILE)), *motion]
    hashes = file_hashes(root, [file for files in parts.values() for file in files], spare)
    description = load_json(root / FILE) if (root / FILE).exists() else None
    if isinstance(description, dict):
        description.pop("splits", None)
    names = {corpus.split: corpus.names for corpus in corpora}
    found = {"description": _of_json(description), "utterances": _of_json(names)}
    for part, files in parts.items():
        found[part] = _of_json(sorted((str(file.relative_to(root)), hashes[file]) for file in files))
    return found


def _present(root: Path, names: Iterable[str]) -> list[Path]:
    return [root / name for name in names if (root / name).is_file()]


def _of_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_hashes(root: Path, files: Sequence[Path], spare: str | os.PathLike[str] | None = None) -> dict[Path, str]:
    """sha256 as hex of files below ``root``, remembered there, or in ``spare`` if it cannot be written.

    Raises:
        UserError: a file cannot be read.
    """
    stores = [root / STORE, *([Path(spare) / STORE] if spare is not None else [])]
    known: dict[str, list[object]] = {}
    for store in reversed(stores):
        known |= _remembered(store)
    found: dict[Path, str] = {}
    unknown = []
    for file in files:
        entry = known.get(str(file.relative_to(root)))
        if entry is not None and entry[:-1] == _stamp(file):
            found[file] = str(entry[-1])
        else:
            unknown.append(file)
    # hashlib lets go of the interpreter, so that reading and hashing of several files overlap
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        hashed = pool.map(_hash_file, unknown)
        bar = watched(hashed, "read corpus", len(unknown), leave=False, delay=2, unit="file")
        added = False
        for file, (stamp, digest) in zip(unknown, bar, strict=True):
            found[file] = digest
            if time.time_ns() - max(stamp[1:3]) > _FRESH_NS:
                known[str(file.relative_to(root))] = [*stamp, digest]
                added = True
    if added:
        _remember(stores, known)
    return found


def _stamp(file: Path) -> list[int]:
    try:
        stat = require_file(file).stat()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _hash_file(file: Path) -> tuple[list[int], str]:
    stamp = _stamp(file)  # before reading: a change in between is then noticed at the next start
    try:
        with open(file, "rb") as stream:
            return stamp, stream_hash(stream)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error


def stream_hash(stream: IO[bytes]) -> str:
    """sha256 as hex of what is left of an open file, read a block at a time."""
    digest = hashlib.sha256()
    for block in iter(lambda: stream.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def _remembered(store: Path) -> dict[str, list[object]]:
    try:
        content = load_json(store)
        return {
            str(name): entry
            for name, entry in content.items()
            if isinstance(entry, list) and len(entry) == 5 and isinstance(entry[-1], str)
        }
    except (UserError, AttributeError):  # not there, or no store of ours
        return {}


def _remember(stores: Sequence[Path], known: dict[str, list[object]]) -> None:
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(known.items()))
    for store in stores:
        try:
            atomic_write_text(store, f"{{\n{lines}\n}}\n")
            return
        except (UserError, OSError):
            continue
