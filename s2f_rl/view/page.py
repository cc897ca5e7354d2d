"""The page: faces, sound, curves and a table in one file that asks nothing of the network."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from s2f_rl.data.files import atomic_write_text, require_target
from s2f_rl.errors import UserError
from s2f_rl.pages import escape
from s2f_rl.render.camera import Camera, frame_camera
from s2f_rl.render.colours import check_colours, region_colours
from s2f_rl.render.faces import check_faces, outward
from s2f_rl.render.frames import load_sequences
from s2f_rl.render.meshes import Sequence3D
from s2f_rl.render.points import dot_radii, estimate_normals
from s2f_rl.render.sound import Audio, load_sound
from s2f_rl.view.compress import ERROR_MM, Packed, pack
from s2f_rl.view.curves import Curve, draw, plots_style, rounded_up
from s2f_rl.view.measures import Measured
from s2f_rl.view.sound import sound_url

_SCRIPTS = ("decode.js", "faces.js", "draw.js", "orbit.js", "clock.js", "page.js")
_HEAT_SHARE = 99.5  # per cent of the distances that the scale reaches
_FRAMES_LOOKED_AT = 100
_SUFFIX = ".html"


@dataclass(frozen=True)
class Table:
    """Below the curves: ``rows`` is row -> column -> text, ``title`` what its figures are of."""

    title: str
    rows: Mapping[str, Mapping[str, str]]


def write_page(
    sequences: Sequence[Sequence3D],
    captions: Sequence[str],
    faces: np.ndarray | None,
    audio: Audio | None,
    fps: float,
    out: str | os.PathLike[str],
    *,
    title: str = "Faces",
    camera: Camera | None = None,
    colours: np.ndarray | None = None,
    measured: Sequence[Measured] = (),
    phones: Sequence[tuple[str, float, float]] = (),
    table: Table | None = None,
    error_mm: float = ERROR_MM,
    names: Sequence[str] | None = None,
) -> Packed:
    """Write sequences side by side as one page that plays them.

    It lasts as long as the longest sequence; shorter ones keep their last frame, and the sound is cut or padded with
    silence. The motion is stored as :func:`~s2f_rl.view.compress.pack` makes it; the page says how far that is off.

    Args:
        sequences: each [T, V*3] or [T, V, 3] in metres (array, tensor, or path of an npy file), of one V. Distances
            are those to the first.
        captions: one name for each sequence.
        faces: integer triangles [F, 3]; None draws dots.
        audio: sound file, or (waveform [N], rate in Hz); None for a silent page.
        fps: frames per second of the sequences.
        out: the page, a name that ends in .html; its folder is made.
        title: of the page.
        camera: None frames all sequences from the front.
        colours: uint8 [V, 3], sRGB, of the vertices; None for skin throughout.
        measured: curves below the faces.
        phones: (phone, start, end) in seconds.
        table: below the curves.
        error_mm: wanted mean distance between a shown and a true vertex.
        names: what to call the sequences in messages.

    Returns:
        what is stored, with its errors.

    Raises:
        UserError: shapes, numbers, files or options that cannot be used.
    """
    out = page_target(out)
    if not 1 <= fps <= 1000:
        raise UserError(f"fps is {fps}; pass 1 to 1000 frames per second")
    if len(captions) != len(sequences):
        raise UserError(f"{len(captions)} captions for {len(sequences)} sequences; pass one for each")
    loaded = load_sequences(sequences, names)
    captions = _unlike(captions)
    n_frames = max(map(len, loaded))
    sound = None if audio is None else _sound(audio, n_frames / fps)
    packed = pack(loaded, error_mm)
    heat_mm = rounded_up(_usual_distance_mm(packed))
    data = {
        "fps": float(fps),
        "n_frames": n_frames,
        "n_vertices": loaded[0].shape[1],
        "sequences": [{"name": name, "frames": len(each)} for name, each in zip(captions, loaded, strict=True)],
        "phones": [[name, round(start, 4), round(end, 4)] for name, start, end in phones],
        "values": [[None if v is None else _plain(v) for v in each.values] for each in measured],
        "heat_mm": heat_mm,
        **_stored(packed),
        **_look(loaded, faces, camera, colours),
    }
    text = Template(_read("page.html")).substitute(
        title=escape(title),
        css=plots_style() + _read("page.css"),
        panels="".join(_panel(number, name) for number, name in enumerate(captions)),
        heat=f"{heat_mm:g}",
        first=escape(captions[0]),
        plots=_plots(measured, captions, n_frames, fps, phones),
        table="" if table is None else _table(table),
        about=_about(packed, captions),
        sound="" if sound is None else f'<audio id="sound" preload="auto" src="{sound}"></audio>',
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        script="".join(_read(name) for name in _SCRIPTS),
    )
    atomic_write_text(out, text)
    return packed


def page_target(out: str | os.PathLike[str]) -> Path:
    """``out`` if a page may be written there. Raises UserError for another name than .html, and where it may not."""
    if Path(out).suffix.lower() != _SUFFIX:
        raise UserError(f"{out}: a page is written as html; choose a name that ends in {_SUFFIX}")
    return require_target(out)


def _read(name: str) -> str:
    return files("s2f_rl.view").joinpath(name).read_text(encoding="utf-8")


def _unlike(captions: Sequence[str]) -> list[str]:
    """The captions, those that are there already with a number."""
    found: list[str] = []
    for caption in captions:
        name, number = caption, 1
        while name in found:
            number += 1
            name = f"{caption} ({number})"
        found.append(name)
    return found


def _sound(audio: Audio, seconds: float) -> str:
    """The sound exactly as long as the motion, so that it can be the clock to the end."""
    waveform, rate = load_sound(audio)
    length = round(seconds * rate)
    return sound_url(np.pad(waveform[:length], (0, max(0, length - len(waveform)))), rate)


def _text(array: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype=kind).tobytes()).decode()


def _stored(packed: Packed) -> dict[str, str]:
    return {
        "mean": _text(packed.mean, "<f4"),
        "basis": _text(packed.basis, "<i2"),
        "scale": _text(packed.scale, "<f4"),
        "coefficients": _text(packed.coefficients, "<i2"),
    }


def _look(
    sequences: Sequence[np.ndarray], faces: np.ndarray | None, camera: Camera | None, colours: np.ndarray | None
) -> dict[str, object]:
    """Lens, triangles (or normals and radius of dots), and colours with the share of the sky as a fourth channel."""
    first = np.asarray(sequences[0][0], np.float64)
    n_vertices = len(first)
    camera = camera or frame_camera(sequences)
    srgb = region_colours(n_vertices, {}) if colours is None else check_colours(colours, n_vertices)
    sky = np.ones(n_vertices)
    shape: dict[str, object] = {"faces": None, "normals": None, "dot_radius": 0.0}
    if faces is None:
        shape["normals"] = _text(estimate_normals(first), "<f4")
        shape["dot_radius"] = float(np.percentile(dot_radii(first), 75))
    else:
        triangles = outward(check_faces(faces, n_vertices), first)
        shape["faces"] = _text(triangles, "<u4")
        try:
            from s2f_rl.render.occlusion import sky_share

            sky = sky_share(first, triangles)
        except (ImportError, UserError):  # the extra is missing: hollows are as bright as the rest
            pass
    return {
        **shape,
        "colours": _text(np.concatenate([srgb, np.rint(255 * sky)[:, None]], 1), "u1"),
        "camera": {
            "centre": camera.centre,
            "half_height": camera.half_height,
            "distance": camera.distance,
            "yaw": camera.yaw_degrees,
            "pitch": camera.pitch_degrees,
        },
    }


def _usual_distance_mm(packed: Packed) -> float:
    """What nearly all distances to the first sequence stay below."""
    starts = np.cumsum((0, *packed.lengths))
    found = [np.zeros(1)]
    for start, length in zip(starts[1:-1], packed.lengths[1:], strict=True):
        for t in np.unique(np.linspace(0, length - 1, _FRAMES_LOOKED_AT).astype(int)):
            true = min(t, packed.lengths[0] - 1)
            apart = packed.frames(start + t, start + t + 1) - packed.frames(true, true + 1)
            found.append(1000 * np.linalg.norm(apart[0], axis=-1))
    return float(np.percentile(np.concatenate(found), _HEAT_SHARE))


def _plain(values: np.ndarray) -> list[float | None]:
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]


def _panel(number: int, caption: str) -> str:
    name = escape(caption)
    about = f'class="panel c{number % 8 + 1}" role="img" aria-label="face {number + 1}: {name}"'
    return f'<div {about}><p title="{name}">{name}</p></div>'


def _plots(
    measured: Sequence[Measured],
    captions: Sequence[str],
    n_frames: int,
    fps: float,
    phones: Sequence[tuple[str, float, float]],
) -> str:
    end = max(n_frames - 1, 1) / fps
    curves = []
    for each in measured:
        values = [np.empty(0) if v is None else v for v in each.values]
        series = {name: (np.arange(len(v)) / fps, v) for name, v in zip(captions, values, strict=True)}
        curves.append(draw(Curve(each.title, each.unit, series), (0.0, end)))
    spans = [
        f'<span title="{escape(name)}" style="left:{100 * start / end:.3f}%;width:{100 * (stop - start) / end:.3f}%">'
        f"{escape(name)}</span>"
        for name, start, stop in phones
    ]
    line = f'<div id="phones" aria-hidden="true">{"".join(spans)}</div>' if spans else ""
    return f'<section id="plots" aria-label="curves">{line}{"".join(curves)}</section>' if line or curves else ""


def _table(table: Table) -> str:
    columns = list(dict.fromkeys(column for row in table.rows.values() for column in row))
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    rows = []
    for name, row in table.rows.items():
        cells = "".join(f"<td>{escape(row.get(column, '-'))}</td>" for column in columns)
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return (
        f'<div class="wide"><table><caption>{escape(table.title)}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _about(packed: Packed, captions: Sequence[str]) -> str:
    worst = int(np.argmax(packed.mean_error_mm))
    return (
        f"Motion is stored as {len(packed.scale)} components: vertices are off by {packed.mean_error_mm[worst]:.3f} mm "
        f"on average (of {escape(captions[worst])}, the worst) and {packed.max_error_mm:.2f} mm at most."
    )
