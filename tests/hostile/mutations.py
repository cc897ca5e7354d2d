"""Ways to spoil a file. Each takes a seeded generator and a path, changes what is there and says how."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import socket
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUMBERS = [
    "0", "-1", "1", "2", "3", "1000000", "2147483648", "4294967295", "1000000000000", "9223372036854775808",
    "18446744073709551616", "9" * 30, "9" * 5000, "1e999", "-1e999", "NaN", "Infinity", "1e-320", "0.5", "-0.0",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 7, 10**6, 4 * 10**6, 10**12, 2**63, 2**70, 10**400, 0.5, -0.5, 1e308, float("nan"),
    float("inf"), "", "x", "0", "\x1b[2J", "a\nb", "\u202egnp", "../..", "\ud800", "x" * 5000, [], [1, 2], {}, {"a": 1},
]  # fmt: skip
Mutation = Callable[[random.Random, Path], str]


def flip(rng: random.Random, path: Path) -> str:
    """Some bytes become others."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        if content:
            content[rng.randrange(len(content))] = rng.choice([0, 255, rng.randrange(256)])
    path.write_bytes(content)
    return "bytes flipped"


def flip_head(rng: random.Random, path: Path) -> str:
    """As :func:`flip`, but where formats keep their headers."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 4])):
        if content:
            content[rng.randrange(min(len(content), 200))] = rng.choice([0, 255, rng.randrange(256)])
    path.write_bytes(content)
    return "bytes of the header flipped"


def lie(rng: random.Random, path: Path) -> str:
    """Four or eight bytes become a number at the border of its type."""
    content = bytearray(path.read_bytes())
    number = rng.choice([0, 1, -1, 2**31 - 1, -(2**31), 2**24])
    at = rng.randrange(max(1, len(content) - 8))
    content[at : at + 4] = struct.pack("<i", number)
    path.write_bytes(content)
    return f"{number} at byte {at}"


def truncate(rng: random.Random, path: Path) -> str:
    """The file ends early."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])
    return "truncated"


def splice(rng: random.Random, path: Path) -> str:
    """A piece is taken out, repeated, or put elsewhere."""
    content = path.read_bytes()
    a, b = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    at = rng.randrange(len(content) + 1)
    piece = content[a:b]
    how = rng.choice(["cut", "repeated", "inserted"])
    spoiled = {
        "cut": content[:a] + content[b:],
        "repeated": content[:b] + piece * rng.choice([1, 3]) + content[b:],
        "inserted": content[:at] + piece + content[at:],
    }
    path.write_bytes(spoiled[how])
    return f"a piece {how}"


def number(rng: random.Random, path: Path) -> str:
    """A decimal number in the text becomes another."""
    content = path.read_bytes()
    found = list(re.finditer(rb"-?[0-9]+(\.[0-9]+)?", content))
    if not found:
        return flip(rng, path)
    match, value = rng.choice(found), rng.choice(NUMBERS)
    path.write_bytes(content[: match.start()] + value.encode() + content[match.end() :])
    return f"{match.group()[:20]!r} became {value[:20]}"


def encoding(rng: random.Random, path: Path) -> str:
    """The text is saved in another encoding."""
    content = path.read_bytes()
    how = rng.choice(["utf-16", "latin-1 byte", "NUL"])
    path.write_bytes(
        content.decode("utf-8", "replace").encode("utf-16") if how == "utf-16"
        else content + (b"\xe4" if how == "latin-1 byte" else b"\0")
    )  # fmt: skip
    return f"as {how}"


def byte_order_mark(rng: random.Random, path: Path) -> str:
    """Saved by Windows Notepad: still right."""
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    return "with byte order mark and CRLF"


def behind_a_link(rng: random.Random, path: Path) -> str:
    """The file lies elsewhere and a link leads to it: still right."""
    elsewhere = path.with_name(f"real_{path.name}.elsewhere")
    path.rename(path.parent.parent / elsewhere.name)
    path.symlink_to(path.parent.parent / elsewhere.name)
    return "behind a link"


SPECIAL = ["fifo", "zero", "null", "loop", "nowhere", "folder", "socket", "sparse", "empty"]


def special(rng: random.Random, path: Path, kinds: list[str] | None = None) -> str:
    """Something that is no regular file, or no honest one, takes its place."""
    how = rng.choice(kinds or SPECIAL)
    path.unlink()
    if how == "fifo":
        os.mkfifo(path)
    elif how == "device":
        _device(path)
    elif how in ("zero", "null"):
        path.symlink_to(f"/dev/{how}")
    elif how == "loop":
        path.symlink_to(path)
    elif how == "nowhere":
        path.symlink_to(path.with_name("absent"))
    elif how == "folder":
        path.mkdir()
    elif how == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's whole path may have 108 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
        os.chdir(here)
    else:
        path.touch()
        os.truncate(path, 2**40 if how == "sparse" else 0)
    return how


def _device(path: Path) -> None:
    """A device of its own: where the code is broken, root would replace the system's."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:  # then /dev/null cannot be replaced either
        path.symlink_to("/dev/null")


def odd_name(rng: random.Random, path: Path) -> str:
    """A file beside it with a name that a terminal would obey."""
    name = rng.choice(["\x1b[2J\x1b[31m", "line\nbreak", "\u202etxt", "\udcff\udcfe", "a b", "\x07\x08", "<b>&amp;"])
    twin = path.with_name(f"{name}_sentence01{path.suffix}")
    twin.write_bytes(path.read_bytes()[: rng.choice([10, 10**6])])
    return f"a twin called {ascii(twin.name)}"


def structure(rng: random.Random, path: Path) -> str:
    """A value somewhere in a JSON file becomes another, or its key is lost."""
    content = json.loads(path.read_text())
    where = _somewhere(rng, content)
    if where is None:
        return flip(rng, path)
    holder, key = where
    value = rng.choice(VALUES)
    if isinstance(holder, dict) and rng.random() < 0.2:
        del holder[key]
        change = "lost"
    else:
        holder[key], change = value, f"became {ascii(value)[:40]}"
    path.write_text(json.dumps(content), encoding="utf-8", errors="surrogatepass")
    return f"{key} {change}"


def _somewhere(rng: random.Random, value: Any) -> tuple[Any, Any] | None:
    places = []
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            places.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                waiting.append(holder[key])
    return rng.choice(places) if places else None


def zip_lies(rng: random.Random, path: Path) -> str:
    """A zip with packed zeros, an entry twice, one that is missing, or one of another size."""
    with zipfile.ZipFile(path) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    how = rng.choice(["packed", "bomb", "twice", "missing", "longer", "shorter", "comment"])
    at = rng.randrange(len(entries))
    name, content = entries[at]
    if how == "missing":
        del entries[at]
    elif how == "twice":
        entries.append((name, b"\x80\x02N."))
    elif how == "longer":
        entries[at] = (name, content + bytes(100))
    elif how == "shorter":
        entries[at] = (name, content[: len(content) // 2])
    with zipfile.ZipFile(
        path, "w", zipfile.ZIP_DEFLATED if how in ("packed", "bomb") else zipfile.ZIP_STORED
    ) as archive:
        for name, content in entries:
            archive.writestr(name, content)
        if how == "bomb":
            archive.writestr(name + "0", bytes(200 * 2**20))
        if how == "comment":
            archive.comment = b"PK\x05\x06" + bytes(18)
    return f"zip: {how}"


def npy_header(rng: random.Random, path: Path) -> str:
    """An array whose header states another shape, type or order, or is no header."""
    shape = rng.choice(["()", "(0,)", "(-1, 3)", "(3, 0xffffffffffff)", "(1e9,)", "(True, 3)", "'x'", "(3, 4, 5, 6)"])
    if rng.random() < 0.3:
        shape = rng.choice(["(0x" + "f" * 5000 + ",)", "(" + "9" * 5000 + ",)", "(2,)" * 3000, "(" * 90 + ")" * 90])
    kind = rng.choice(["<f4", "<f8", "<i8", "|O", "<U7", "|S0", "<c16", "|b1", ">f2", "<M8[D]", "x"])
    text = (
        f"{{'descr': {kind!r}, 'fortran_order': {rng.choice(['False', 'True', '7'])}, 'shape': {shape}, }}\n".encode()
    )
    content = path.read_bytes()
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content[128:])
    return f"{kind} {shape[:40]}"


def pickle_program(rng: random.Random, path: Path) -> str:
    """A pickle of random instructions, or one of the known bombs."""
    path.write_bytes(_program(rng) if rng.random() < 0.5 else _bomb(rng))
    return "a hostile pickle"


def _bomb(rng: random.Random) -> bytes:
    """Shared parts that double 60 times, in a place where they are hashed, copied, flattened or shown."""
    pair = rng.choice([b"h%ch%c\x86", b"](h%ch%ce", b"(h%ch%c\x91"])
    levels = b"".join(pair.replace(b"%c", bytes([k - 1])) + b"q" + bytes([k]) for k in range(1, 60))
    start = rng.choice([b")q\x00", b"K\x01q\x00", b"X\x01\x00\x00\x00aq\x00", b"]q\x00"])
    use = rng.choice(
        [b"}h;K\x01s.", b"\x8f(h;\x90.", b"(h;\x91.", b"}X\x01\x00\x00\x00ah;s.", b"h;.", b"}(h;K\x01u.", b"(h;K\x01d."]
    )
    shared = b"\x80\x04" + start + levels + use
    length = 10**5
    huge = b"\x80\x02\x8b" + struct.pack("<i", length) + b"\xff" * length + b"."
    digits = rng.choice([b"I" + b"9" * 5000 + b"\n.", b"L" + b"9" * 5000 + b"L\n.", b"I0x" + b"f" * 10**5 + b"\n."])
    copies = b"\x80\x02X" + struct.pack("<I", 10**5) + b"x" * 10**5 + b"q\x000"
    copies += b"(" + b"c_codecs\nencode\nh\x00\x85R" * 10**4 + b"l."
    return rng.choice([shared, shared, shared, huge, digits, copies])


def _program(rng: random.Random) -> bytes:
    pieces = [
        b"N", b"K\x01", b"K\x05", b"]", b"}", b")", b"(", b"l", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u",
        b"h\x00", b"h\x01", b"q\x00", b"q\x01", b"\x8f", b"\x90", b"\x91", b"d", b"2", b"0", b"R", b"b", b"\x81",
        b"X\x01\x00\x00\x00a", b"X\x02\x00\x00\x00f8", b"C\x08abcdefgh", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n",
        b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\nscalar\n", b"c_codecs\nencode\n",
        b"c__builtin__\nset\n", b"ccollections\nOrderedDict\n", b"c__builtin__\ncomplex\n", b"Q",
        b"\x8a\x09" + b"\xff" * 9, b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n",
        b"J\xff\xff\xff\x7f", b"\x94", b"\x89",
    ]  # fmt: skip
    return b"\x80\x04" + b"".join(rng.choice(pieces) for _ in range(rng.randrange(5, 60))) + b"."


def own_pickle(rng: random.Random, path: Path) -> str:
    """A value somewhere in one of our own pickles of plain containers becomes another."""
    content = pickle.loads(path.read_bytes())
    where = _somewhere(rng, content) if isinstance(content, dict) else None
    if where is None:
        return flip(rng, path)
    holder, key = where
    value = rng.choice(VALUES)
    holder[key] = value
    path.write_bytes(pickle.dumps(content, protocol=rng.choice([0, 2, 4])))
    return f"{key} became {ascii(value)[:40]}"


def glb_tree(rng: random.Random, path: Path) -> str:
    """The tree of a GLB is spoilt as JSON is; its lengths are right."""
    content = path.read_bytes()
    length = struct.unpack_from("<I", content, 12)[0]
    tree = path.with_suffix(".json")
    tree.write_bytes(content[20 : 20 + length])
    done = rng.choice([structure, structure, number])(rng, tree)
    text = tree.read_bytes() if tree.is_file() else b"{}"
    rest = content[20 + length :]
    head = struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON")
    path.write_bytes(head + text + rest)
    return done


BYTES: list[Mutation] = [flip, flip, flip_head, flip_head, lie, lie, truncate, splice, number]
HARMLESS: list[Mutation] = [byte_order_mark, behind_a_link]


def spoil(rng: random.Random, path: Path, more: list[Mutation]) -> str:
    """One of the ways that suit the file, or one of ``more``; the name of the file and what was done."""
    ways = [*BYTES, special, special, *more]
    if path.suffix == ".json":
        ways += [structure] * 6 + [encoding]
    elif path.suffix == ".txt":
        ways += [number, encoding]
    elif path.suffix == ".pkl":
        ways += [pickle_program] * 4 + [own_pickle] * 4
    elif path.suffix == ".npy":
        ways += [npy_header] * 4
    elif path.suffix in (".pt", ".pth", ".npz"):
        ways += [zip_lies] * 3
    return f"{path.name}: {rng.choice(ways)(rng, path)}"
