"""A rollout's recursion as a CUDA graph: some twenty tiny kernels a frame, started at once instead of one by one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor

Recursion = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, ...]]

_ROUND = 32  # frames: utterances of about one length share a graph
_MOST = 16  # graphs kept, the last used


class RolloutGraphs:
    """Graphs of one recursion, by number of lanes and of frames (rounded up). Holds none at first.

    A graph reads the parameters where they were when it was captured, so those that an optimizer changes in place are
    seen, and others (after ``.to`` or loading by assignment) get a graph of their own.
    """

    def __init__(self) -> None:
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()

    def run(
        self, recursion: Recursion, reads: Iterable[Tensor], heard: Tensor, style: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, ...]:
        """``recursion(heard, style, noise)``, without waiting for the device once there is a graph.

        Args:
            recursion: a frame depends on those before it only; asks nothing of the device.
            reads: whatever else it reads.
            heard: [B, T, ..]. style: [B, S]. noise: [T, B, H] or None.

        Returns:
            its results [B, T, ..], copies.
        """
        n_frames = heard.shape[1]
        room = -(-n_frames // _ROUND) * _ROUND
        key = (room, heard.shape[:1] + heard.shape[2:], noise is None, *(each.data_ptr() for each in reads))
        graph = self._graphs.pop(key, None) or _Graph(recursion, heard, style, noise, room)
        self._graphs[key] = graph
        if len(self._graphs) > _MOST:
            self._graphs.popitem(last=False)
        return graph.replay(heard, style, noise)


class _Graph:
    def __init__(self, recursion: Recursion, heard: Tensor, style: Tensor, noise: Tensor | None, room: int) -> None:
        self.heard = heard.new_zeros(len(heard), room, *heard.shape[2:])
        self.style = style.clone()
        self.noise = None if noise is None else noise.new_zeros(room, *noise.shape[1:])
        stream = torch.cuda.Stream(heard.device)
        stream.wait_stream(torch.cuda.current_stream(heard.device))
        with torch.cuda.stream(stream):  # libraries load and allocate what they need at their first call
            recursion(self.heard, self.style, self.noise)
        torch.cuda.current_stream(heard.device).wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.results = recursion(self.heard, self.style, self.noise)

    def replay(self, heard: Tensor, style: Tensor, noise: Tensor | None) -> tuple[Tensor, ...]:
        n_frames = heard.shape[1]
        self.heard[:, :n_frames].copy_(heard)  # what is left behind it is seen by no frame of this rollout
        self.style.copy_(style)
        if self.noise is not None and noise is not None:
            self.noise[:n_frames].copy_(noise)
        self.graph.replay()
        return tuple(each[:, :n_frames].clone() for each in self.results)
