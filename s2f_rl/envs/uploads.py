"""What an environment brings to its device: the features of new utterances in one copy, kept there within a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from s2f_rl.data.lru import ByteCache
from s2f_rl.device_rows import upload


class KeptFeatures:
    """Features of utterances on a device. On the CPU, or with no room, it keeps none: the source itself is the cache.

    Args:
        load: utterance -> features [T, ..] on the CPU; with no room, on the device itself.
        max_megabytes: what the least recently used utterances leave the device beyond; 0: no room.
    """

    def __init__(self, load: Callable[[int], Tensor], max_megabytes: float) -> None:
        self._load, self._keeps = load, max_megabytes > 0
        self._kept: ByteCache[Tensor] = ByteCache(int(max_megabytes * 2**20))

    def get(self, utterances: Iterable[int], device: torch.device) -> list[Tensor]:
        """Features of each of the utterances; those that are not there yet go up together, in one copy."""
        utterances = list(utterances)
        if device.type == "cpu" or not self._keeps:
            return [self._load(u) for u in utterances]
        features = {u: kept for u in utterances if (kept := self._kept.find((u, device))) is not None}
        missing = [u for u in utterances if u not in features]
        if missing:
            loaded = [self._load(u) for u in missing]
            parts = upload(torch.cat(loaded), device).split([len(each) for each in loaded])
            for u, part in zip(missing, parts, strict=True):
                # a copy, since a part would keep all that came with it
                features[u] = self._kept.get((u, device), part.clone)
        return [features[u] for u in utterances]
