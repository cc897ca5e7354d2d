"""Speech in, film or page out: what `s2f-rl animate` does."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.data.audio import SPEECH_RATE_HZ, normalise, read_wav, resample
from s2f_rl.data.files import atomic_save_npy, atomic_save_npy_parts, require_target
from s2f_rl.errors import NotFinite, UserError
from s2f_rl.evaluation.coefficients import predicted_coefficients, rig_of, save_coefficients
from s2f_rl.exchange.face import Face
from s2f_rl.exchange.scene import SUFFIXES, require_scene, write_rig, write_scene
from s2f_rl.models import windowed_audio
from s2f_rl.models.checkpoint import MOUTH, load_actor
from s2f_rl.models.contract import Actor
from s2f_rl.models.latent_actor import LatentActor
from s2f_rl.models.latent_stream import can_stream, stream_latents
from s2f_rl.models.meeting import animated_mesh, load_actor_of, refuse_other_mesh
from s2f_rl.render.camera import face_camera
from s2f_rl.render.colours import find_colours
from s2f_rl.render.faces import outward
from s2f_rl.render.frames import load_sequences
from s2f_rl.render.meshes import FramesOnDemand
from s2f_rl.signs import Watch

ENDINGS = {".mp4": "film", ".html": "page", ".npy": "vertices", ".csv": "coefficients"}


def animate(
    speech: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    corpus: str | Path | None = None,
    subject: str | None = None,
    style: str | int | None = None,
    size: int = 512,
    topology: str | None = None,
    device: str = "cpu",
    coefficients: bool = False,
    form: str | None = None,
) -> Path:
    """Animate a face with a recording.

    Args:
        speech: sound file from 4 to 384 kHz, mono or stereo; with the ``render`` extra also m4a, mp4 and webm.
        checkpoint: see :func:`~s2f_rl.models.checkpoint.load_actor`. Published weights carry no template: give
            ``corpus``.
        out: ``.mp4`` (film with sound), ``.html`` (page with sound, see :mod:`s2f_rl.view`), ``.npy`` (vertices
            [T, V*3], float32, metres), ``.csv``: coefficients of an actor that animates a rig, see
            :func:`~s2f_rl.evaluation.coefficients.save_coefficients`; ``.glb``, ``.usdc``, ``.usda`` or ``.usd``: see
            :mod:`s2f_rl.exchange`.
        corpus: corpus folder of the same mesh whose templates and triangles to use instead of the checkpoint's.
        subject: whose face; default: the first training subject.
        style: training subject (name or column) whose way of speaking to use; default: the subject's own, else the
            first.
        size: height and width of the film in pixels.
        form: of a ``.csv``: "livelink" is the CSV of Live Link Face.
        coefficients: an ``.npy`` holds coefficients [T, K] in place of vertices; so it does where there is no mesh.

    Raises:
        UserError: a file, subject or style that does not exist, a corpus of another mesh, or sound that cannot be
            read whole.
        NotFinite: the actor's motion is not finite.

    The film runs at the actor's own frame rate. Sound longer than a minute is encoded in windows
    (:data:`~s2f_rl.models.windowed_audio.LONG`), and its frames are made as they are written.
    """
    out = Path(out)
    if out.suffix not in (*ENDINGS, *SUFFIXES):
        ours = ", ".join(f"{ending} ({what})" for ending, what in ENDINGS.items())
        raise UserError(f"--out {out}: give a name that ends in {ours}, {', '.join(SUFFIXES)}")
    if form is not None and (form, out.suffix) != ("livelink", ".csv"):
        raise UserError(f"--form {form}: is a .csv; end --out in .csv, or leave out --form, and the name tells it")
    if out.suffix in SUFFIXES:
        require_scene(out)
    require_target(out)
    opened = None if corpus is None else FaceCorpus(corpus, split="all", topology=topology)
    if opened is None:
        actor, about = load_actor(checkpoint, topology or "vocaset")
    else:
        actor, about = load_actor_of(checkpoint, opened)
        refuse_other_mesh(actor, opened, str(checkpoint), "give a corpus of the actor's mesh")
    controls = getattr(actor, "controls", None)
    if coefficients and out.suffix not in (".csv", ".npy"):
        raise UserError(f"--out {out}: no file for coefficients; leave out --coefficients, or give a .csv or .npy")
    coefficients = coefficients or out.suffix == ".csv"
    if coefficients and controls is None:
        told = "animates vertices, so there are no coefficients; give --out a .npy, then fit them: s2f-rl blendshapes"
        raise UserError(f"{checkpoint}: {told}")
    if controls is not None and not controls.has_mesh:
        if out.suffix not in (".csv", ".npy"):
            raise UserError(f"{checkpoint}: animates coefficients without a face; give --out a .csv or .npy")
        coefficients = True
    actor.to(device)
    templates, faces, subjects = about.get("templates") or {}, about.get("faces"), list(about.get("subjects") or [])
    if opened is not None:
        subjects = subjects or list(opened.subjects)
        names = [subject] if subject is not None else list(opened.subjects)[:1]
        templates, faces = {name: opened.template(name) for name in names}, opened.faces
    if not templates:
        raise UserError(f"{checkpoint}: holds no template face; give --corpus, whose templates.pkl has one")
    subject = next(iter(templates)) if subject is None else subject
    if subject not in templates:
        raise UserError(f"--subject {subject}: unknown; the checkpoint has {', '.join(templates)} (more with --corpus)")
    colours, camera, surface = None, None, None
    if opened is not None and out.suffix in (".mp4", ".html", *SUFFIXES):
        colours = find_colours(opened.root, actor.n_vertices, opened.regions, subject)
        camera = face_camera(load_sequences([opened.template(subject).numpy()[None]]), opened.regions)
    if out.suffix in SUFFIXES:
        if faces is None:
            raise UserError(f"{checkpoint}: knows no triangles; give --corpus, or --out face.npy")
        outside = outward(torch.as_tensor(faces).numpy(), torch.as_tensor(templates[subject]).numpy().reshape(-1, 3))
        surface = Face(outside, colours, animated_mesh(actor).up, Path(speech))
    column = _style_column(style, subject, subjects, actor.n_styles)

    waveform, rate = read_wav(speech)
    minutes = len(waveform) / rate / 60
    samples = resample(waveform, rate, SPEECH_RATE_HZ)
    long = len(samples) > windowed_audio.LONG.total_s * SPEECH_RATE_HZ and can_stream(actor)
    sound: str | Path | tuple[np.ndarray, int] = speech if long else (waveform, rate)
    del waveform  # an hour at 48 kHz is 700 MB; a film reads it again
    signal = torch.as_tensor(normalise(samples)).float()
    del samples
    style_weights = torch.nn.functional.one_hot(torch.tensor(column), actor.n_styles).float()
    template = torch.as_tensor(templates[subject]).float().flatten()
    try:
        if coefficients or (controls is not None and surface is not None):
            values = predicted_coefficients(actor, signal.to(device), style_weights.to(device), long)
            if surface is not None:
                write_rig(out, rig_of(actor, template), values, actor.fps, surface)
            else:
                save_coefficients(out, actor, values, form)
            return out
        motion = (_long_motion if long else _motion)(actor, signal, template.to(device), style_weights.to(device))
        if motion is not None and surface is not None:
            # frames on demand are indexed as an array is
            frames = motion if isinstance(motion, FramesOnDemand) else motion.reshape(len(motion), -1, 3)
            write_scene(out, cast(np.ndarray, frames), actor.fps, surface)
            return out
    except (MemoryError, RuntimeError) as error:  # what torch raises has no type of its own on every device
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        raise UserError(f"{speech}: {minutes:.1f} min of sound need more memory than there is; cut it up") from error
    if motion is None:
        raise NotFinite(f"{checkpoint}: the predicted motion is not finite, so the actor has diverged; use another one")
    triangles = None if faces is None else torch.as_tensor(faces).numpy()
    if out.suffix == ".mp4":
        from s2f_rl.render import render_film

        render_film([motion], None, triangles, sound, actor.fps, out, size, camera=camera, colours=colours)
    elif out.suffix == ".html":
        from s2f_rl.view import write_page
        from s2f_rl.view.measures import face_measures

        known = about if opened is None else opened.regions
        mouth = {name: torch.as_tensor(known[name]).numpy() for name in MOUTH if known.get(name) is not None}
        measured = face_measures(load_sequences([motion]), subject, mouth)
        write_page(
            [motion], [subject], triangles, sound, actor.fps, out,
            title=Path(speech).stem, camera=camera, colours=colours, measured=measured,
        )  # fmt: skip
    elif isinstance(motion, FramesOnDemand):
        shape = (len(motion), 3 * actor.n_vertices)
        atomic_save_npy_parts(out, shape, (part.reshape(len(part), -1) for part in motion.parts()))
    else:
        atomic_save_npy(out, motion)
    return out


def _motion(actor: Actor, signal: Tensor, template: Tensor, style: Tensor) -> np.ndarray | None:
    """Vertices [T, V*3]; None where they are not finite."""
    vertices = actor.predict(signal[None].to(template.device), template[None], style[None], progress=True)[0].cpu()
    return vertices.numpy() if bool(torch.isfinite(vertices).all()) else None


def _long_motion(actor: Actor, signal: Tensor, template: Tensor, style: Tensor) -> FramesOnDemand | None:
    """The same in windows, of which only the latents are kept."""
    assert isinstance(actor, LatentActor)
    parts = []
    with Watch("frames", actor.audio_encoder.n_frames(len(signal)), "frame", leave=False, delay=2) as watch:
        for part in stream_latents(actor, signal, style, windowed_audio.LONG):
            parts.append(part)
            watch.update(len(part))
    latents = torch.cat(parts)

    @torch.no_grad()
    def frames(index: int | slice | np.ndarray) -> np.ndarray:
        which = torch.as_tensor(index) if isinstance(index, np.ndarray) else index
        return (actor.decode(latents[which]) + template).unflatten(-1, (-1, 3)).cpu().numpy()

    motion = FramesOnDemand(len(latents), actor.n_vertices, frames)
    return motion if all(np.isfinite(part).all() for part in motion.parts()) else None


def _style_column(style: str | int | None, subject: str, subjects: list[str], n_subjects: int) -> int:
    if style is None:
        return subjects.index(subject) if subject in subjects else 0
    if str(style) in subjects:
        return subjects.index(str(style))
    try:
        column = int(style)
    except ValueError:
        column = -1
    if not 0 <= column < n_subjects:
        known = ", ".join(subjects) if subjects else "none by name"
        raise UserError(f"--style {style}: unknown; use a column below {n_subjects} or a training subject ({known})")
    return column
