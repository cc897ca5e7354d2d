"""What every metric does first: meshes and vertex indices in one shape, mistakes told by the argument's name."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from s2f_rl.errors import UserError

ArrayLike: TypeAlias = "np.ndarray | Tensor"
Indices: TypeAlias = "np.ndarray | Tensor | list[int] | tuple[int, ...] | int"


def as_tensor(values: object, argument: str) -> Tensor:
    """Array or tensor to a real-valued tensor on the same device; no copy when none is needed."""
    if isinstance(values, Tensor):
        tensor = values
    else:
        array = np.asarray(values)
        if array.dtype.kind not in "fiub":
            raise UserError(f"{argument} has dtype {array.dtype}; pass an array of real numbers")
        if not array.flags.writeable or any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
            # torch.from_numpy shares memory: it warns about read-only maps and refuses the other two.
            array = np.array(array, dtype=array.dtype.newbyteorder("="))
        tensor = torch.from_numpy(array)
    if tensor.is_complex():
        raise UserError(f"{argument} is complex; pass an array of real numbers")
    return tensor


def as_frames(vertices: object, argument: str) -> Tensor:
    """[.., T, V*3] or [.., T, V, 3] to [.., T, V, 3] (a last dimension of 3 below two others means [.., V, 3])."""
    tensor = as_tensor(vertices, argument)
    if tensor.ndim >= 3 and tensor.shape[-1] == 3:
        frames = tensor
    elif tensor.ndim >= 2 and tensor.shape[-1] >= 3 and tensor.shape[-1] % 3 == 0:
        frames = tensor.unflatten(-1, (-1, 3))
    else:
        raise UserError(f"{argument} has shape {list(tensor.shape)}; expected [.., T, V*3] or [.., T, V, 3]")
    if frames.shape[-2] == 0:
        raise UserError(f"{argument} has shape {list(tensor.shape)}: no vertices")
    return frames


def as_pair(prediction: object, truth: object) -> tuple[Tensor, Tensor]:
    """Two sequences of one shape and device; a difference in frames or vertices is the caller's mistake."""
    a, b = as_frames(prediction, "prediction"), as_frames(truth, "truth")
    if a.shape[-2] != b.shape[-2]:
        raise UserError(f"prediction has {a.shape[-2]} vertices and truth {b.shape[-2]}; they must be one topology")
    if a.shape[-3] != b.shape[-3]:
        raise UserError(
            f"prediction has {a.shape[-3]} frames and truth {b.shape[-3]}; cut both to the shorter one before measuring"
        )
    if a.shape != b.shape:
        raise UserError(f"prediction and truth have batch shapes {list(a.shape[:-3])} and {list(b.shape[:-3])}")
    return a, b.to(a.device)


def as_template(template: object, frames: Tensor, argument: str = "template") -> Tensor:
    """[.., V*3] or [.., V, 3] to [.., 1, V, 3] in float64, ready to subtract from ``frames`` [.., T, V, 3]."""
    tensor = as_tensor(template, argument)
    n_vertices = frames.shape[-2]
    if tensor.ndim >= 2 and tuple(tensor.shape[-2:]) == (n_vertices, 3):
        pass
    elif tensor.ndim >= 1 and tensor.shape[-1] == 3 * n_vertices:
        tensor = tensor.unflatten(-1, (n_vertices, 3))
    else:
        raise UserError(
            f"{argument} has shape {list(tensor.shape)}; expected [.., {3 * n_vertices}] "
            f"or [.., {n_vertices}, 3] as the vertices have"
        )
    tensor = tensor.to(device=frames.device, dtype=torch.float64).unsqueeze(-3)
    batch = tuple(tensor.shape[:-3])
    if batch and batch != tuple(frames.shape[:-3]):
        raise UserError(f"{argument} has batch shape {list(batch)}; the vertices have {list(frames.shape[:-3])}")
    return tensor


def as_indices(indices: object, frames: Tensor, argument: str) -> Tensor:
    """Vertex indices (one, several, or a boolean mask [V]) to int64 [K]; order and repetitions are kept."""
    tensor = as_tensor(indices, argument)  # stays where it is, usually the CPU: its check waits for no device there
    n_vertices = frames.shape[-2]
    if tensor.dtype == torch.bool:
        if tuple(tensor.shape) != (n_vertices,):
            raise UserError(f"{argument} is a mask of shape {list(tensor.shape)}; expected [{n_vertices}]")
        tensor = tensor.nonzero().squeeze(-1)
    if tensor.numel() == 0:
        raise UserError(f"{argument} is empty; pass at least one vertex index")
    if tensor.is_floating_point():
        raise UserError(f"{argument} holds {tensor.dtype} values; pass integer vertex indices or a boolean mask")
    tensor = tensor.reshape(-1).long()
    low, high = int(tensor.min()), int(tensor.max())
    if low < 0 or high >= n_vertices:
        raise UserError(f"{argument} holds index {low if low < 0 else high}; the meshes have {n_vertices} vertices")
    return tensor


def select(frames: Tensor, indices: Tensor) -> Tensor:
    """Chosen vertices [.., T, K, 3] in float64: select first, so that a full-size float64 copy is never made."""
    return frames.index_select(-2, indices.to(frames.device)).double()
