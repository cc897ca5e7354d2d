"""Files of a phone recogniser: weights, and beside them how they were made. One comes with the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from s2f_rl.data.content import stream_hash
from s2f_rl.data.files import atomic_write_json, load_json
from s2f_rl.data.soundness import float_weights
from s2f_rl.data.tensor_files import load_tensors, save_safetensors
from s2f_rl.errors import UserError
from s2f_rl.models.recogniser import PhoneRecogniser

WEIGHTS, ABOUT = "recogniser.safetensors", "recogniser.json"
SHIPPED = "shipped"
"""Name of the one that comes with the package."""
_MOST_MELS = 257


def save_recogniser(folder: Path, recogniser: PhoneRecogniser, about: Mapping[str, object]) -> None:
    """Write weights (float16) and ``about`` them, with their sha256, into a folder."""
    save_safetensors(folder / WEIGHTS, {name: each.half() for name, each in recogniser.state_dict().items()})
    atomic_write_json(folder / ABOUT, {**about, "sha256": _sha256(folder / WEIGHTS)})


def load_recogniser(where: str | Path = SHIPPED) -> PhoneRecogniser:
    """A recogniser in evaluation mode, frozen, float32.

    Args:
        where: a folder that ``recipes/listener.py`` wrote, or :data:`SHIPPED`.

    Raises:
        UserError: a file is missing or damaged, or the weights are not those that the other file tells of.
    """
    folder, about = _folder(where), about_recogniser(where)
    tensors = load_tensors(folder / WEIGHTS, remedy="make it with recipes/listener.py")
    if about.get("sha256") != _sha256(folder / WEIGHTS):
        raise UserError(
            f"{folder / WEIGHTS}: is not the file that {ABOUT} tells of; make both with recipes/listener.py"
        )
    try:
        width, n_bands = tensors["input.weight"].shape
        if n_bands > 2 * _MOST_MELS:
            raise ValueError(f"{n_bands // 2} mel bands")
        n_layers = sum(name.startswith("convolutions.") and name.endswith(".weight") for name in tensors)
        sizes = (len(tensors["phones.bias"]), width, n_layers, n_bands // 2)
        with torch.device("meta"):  # names and shapes first: a small file cannot ask for a large model
            expected = PhoneRecogniser(*sizes)
        weights = float_weights(tensors, expected.state_dict(), str(folder / WEIGHTS))
        expected.load_state_dict(weights, assign=True)
        with torch.random.fork_rng(devices=[]):  # its first weights are replaced
            recogniser = PhoneRecogniser(*sizes)
        recogniser.load_state_dict(weights)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{folder}: no phone recogniser ({reason}); make it with recipes/listener.py") from error
    return recogniser.eval().requires_grad_(False)


def about_recogniser(where: str | Path = SHIPPED) -> Mapping[str, object]:
    """How a recogniser was made: command, seed, versions, held-out variants, accuracy on unheard voices and texts.

    Raises UserError for a file that is missing, or no dictionary.
    """
    path = _folder(where) / ABOUT
    about = load_json(path)
    if not isinstance(about, dict):
        raise UserError(f"{path}: tells of no phone recogniser; make it with recipes/listener.py")
    return about


def _folder(where: str | Path) -> Path:
    return Path(__file__).parent if where == SHIPPED else Path(where)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return stream_hash(file)
