"""The environment: one lane is one utterance, one step is one frame, the action is that frame's displacement."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Composite, Unbounded
from torchrl.envs import EnvBase

from s2f_rl import keys
from s2f_rl.data.contract import Corpus
from s2f_rl.device_rows import upload
from s2f_rl.envs.draws import UtteranceDraws
from s2f_rl.envs.uploads import KeptFeatures
from s2f_rl.errors import UserError
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.audio_encoders import AudioEncoder

DONE = ("done", "terminated", "truncated")
DEVICE_CACHE_MB = 4096.0


@runtime_checkable
class AudioSource(Protocol):
    """Audio features of a corpus by utterance; :class:`s2f_rl.models.CachedAudio` is one."""

    def get(self, utterance: int) -> Tensor:
        """[T, A, D]."""


class SpeechToFaceEnv(EnvBase):
    """Speech in, face motion out, as a TorchRL environment with ``B`` lanes in lockstep.

    Observations (``s2f_rl.keys``): ``audio`` [B, A, D] of the current frame, ``style`` [B, S], ``utterance`` [B, 1],
    ``frame_mask`` [B, 1] (the lane still has a frame to animate), ``frame_index`` [B, 1] (held at its last value
    afterwards). The action is the displacement from the template, [B, V*3] in metres. The reward is zero:
    :class:`s2f_rl.envs.FrozenRewardTransform` writes it. No vertices are read, so audio-only corpora work.

    **Idle lanes.** ``done`` fires once per lane, after its last frame. The automatic partial reset of TorchRL's
    rollouts and collectors (a ``_reset`` mask) parks that lane: it goes on with ``frame_mask`` False and zero audio
    until a full reset starts new utterances for all lanes. So one rollout of :attr:`horizon` steps with
    ``break_when_any_done=False`` holds exactly one whole utterance per row.

    **Which utterances.** ``reset()`` draws: every epoch is one seeded permutation of the corpus
    (:class:`s2f_rl.envs.draws.UtteranceDraws`). ``reset(TensorDict({"utterance": ids}, [B]))`` with ``ids`` [B, 1]
    starts chosen utterances and uses up no draw; a ``style`` [B, S] beside it overrides the styles. A TensorDict taken
    from a rollout carries both, and so starts the same utterances again.

    Args:
        corpus: a :class:`s2f_rl.data.FaceCorpus`.
        audio_encoder: a frozen :class:`s2f_rl.models.AudioEncoder`, whose output is computed once per utterance, or
            any object with ``get(utterance) -> [T, A, D]``, such as a shared :class:`s2f_rl.models.CachedAudio`.
        batch_size: B, the number of lanes.
        group_size: G adjacent lanes share utterance and style (group-relative advantages); divides ``batch_size``.
        style: ``"own"``: the speaker's own style where there is one (training subjects), else a random one;
            an index of a training subject; ``"random"``; ``"all"``: in turn, so that S epochs show every utterance in
            every style (for chosen utterances: in turn over the groups of lanes).
        max_frames: only the first ``max_frames`` frames of every utterance.
        seed: of the draws.
        times: how often each utterance is in an epoch of draws, [N]; None: once.
        device: where observations live.
        cache_folder: where audio features are kept on disk; None keeps them in memory only.
        device_cache_mb: what audio features take at most on a device that is not the CPU; the least recently used go
            first. 0: the source is asked every time, for features on that device (an encoder that trains).

    Raises:
        UserError: an unknown style, a ``group_size`` that does not divide ``batch_size``, a chosen utterance that
            does not exist, an utterance too short for one frame.
    """

    def __init__(
        self,
        corpus: Corpus,
        audio_encoder: AudioEncoder | AudioSource,
        batch_size: int = 1,
        group_size: int = 1,
        style: str | int = "own",
        max_frames: int | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        cache_folder: str | Path | None = None,
        device_cache_mb: float = DEVICE_CACHE_MB,
        times: Sequence[int] | None = None,
    ) -> None:
        n_lanes = int(batch_size)
        if n_lanes < 1:
            raise UserError(f"batch_size={batch_size}: at least one lane")
        if group_size < 1 or n_lanes % group_size:
            raise UserError(f"group_size={group_size} must divide batch_size={n_lanes}: groups are whole")
        if max_frames is not None and max_frames < 1:
            raise UserError(f"max_frames={max_frames}: at least 1, or null for whole utterances")
        super().__init__(device=device, batch_size=torch.Size([n_lanes]))
        self.corpus = corpus
        # A plain attribute: the encoder is frozen and shared, and belongs to the policy's state_dict, not to ours.
        self.__dict__["audio_source"] = (
            audio_encoder
            if isinstance(audio_encoder, AudioSource)
            else CachedAudio(audio_encoder, corpus, folder=cache_folder)
        )
        self._on_device = KeptFeatures(self._features, device_cache_mb)
        self.group_size = int(group_size)
        self.n_styles = len(corpus.subjects)
        self.draws = UtteranceDraws(_own_styles(corpus), self.n_styles, style, seed, times)
        self._n_frames = _frame_counts(corpus, max_frames)
        self._time: int | None = None  # None before the first reset
        self._end = 0  # frames of the longest lane
        self._table = TensorDict({}, [0])  # [end + 2, B] what is observed at every step; empty before reset
        self._rows: tuple[TensorDict, ...] | None = None  # the table's, each handed out once
        self._make_spec(n_lanes)

    @property
    def horizon(self) -> int:
        """Frames of the longest utterance: a rollout of this many steps finishes every lane."""
        return max(self._n_frames)

    @property
    def all_idle(self) -> bool:
        """True once every lane has ended; answered without waiting for the device."""
        return self._time is not None and self._time >= self._end

    def n_frames(self, utterance: int) -> int:
        """Frames of an utterance, after the cut to ``max_frames``."""
        return self._n_frames[utterance]

    def draw_state(self) -> dict[str, int]:
        """The state of the draws, plain numbers; see :meth:`load_draw_state`."""
        return self.draws.state()

    def load_draw_state(self, state: dict[str, int]) -> None:
        """The next ``reset()`` draws what it would have drawn when ``state`` was taken."""
        self.draws.load_state(state)

    def _make_spec(self, n_lanes: int) -> None:
        n_features = int(self.corpus.audio_features_per_frame)
        width = getattr(self.audio_source, "width", None)
        width = int(self.audio_source.get(0).shape[-1] if width is None else width)
        shape, device = torch.Size([n_lanes]), self.device
        # Like PendulumEnv's angle: also in the state, because a TransformedEnv hands only the state on to _reset.
        utterance = Bounded(0, len(self.corpus) - 1, (n_lanes, 1), dtype=torch.int64, device=device)
        style = Unbounded((n_lanes, self.n_styles), dtype=torch.float32, device=device)
        index = Bounded(0, self.horizon - 1, (n_lanes, 1), dtype=torch.int64, device=device)
        flag = Binary(1, (n_lanes, 1), dtype=torch.bool, device=device)
        observation = {
            keys.AUDIO: Unbounded((n_lanes, n_features, width), dtype=torch.float32, device=device),
            keys.STYLE: style,
            keys.UTTERANCE: utterance,
            keys.FRAME_MASK: flag.clone(),
            keys.FRAME_INDEX: index,
        }
        self.observation_spec = Composite(observation, shape=shape, device=device)
        state = {keys.STYLE: style.clone(), keys.UTTERANCE: utterance.clone()}
        self.state_spec = Composite(state, shape=shape, device=device)
        action = Unbounded((n_lanes, 3 * self.corpus.n_vertices), dtype=torch.float32, device=device)
        self.action_spec = Composite({keys.ACTION: action}, shape=shape, device=device)
        reward = Unbounded((n_lanes, 1), dtype=torch.float32, device=device)
        self.reward_spec = Composite({keys.REWARD: reward}, shape=shape, device=device)
        done = {name: flag.clone() for name in DONE}
        self.full_done_spec = Composite(done, shape=shape, device=device)

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self.draws.set_seed(seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: object) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        if mask is not None and self._time is not None:
            self._park(mask.view(-1), self._time)
            # What the step before handed out stays as it was.
            row = self._row(self._time).clone()
            for name in DONE:
                row.get(name).zero_()
        else:
            self._start(tensordict)
            row = self._row(0)
        return row.exclude(keys.REWARD)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        if self._time is None:
            raise RuntimeError("SpeechToFaceEnv: step before the first reset")
        # The table has one row of idle lanes at its end: stay there.
        self._time = min(self._time + 1, self._end + 1)
        row = self._row(self._time)
        return row.clone() if self._time > self._end else row

    def whole_utterances(self) -> TensorDict:
        """Begin new utterances in all lanes and go to their end at once: [B, T], T frames of the longest.

        No action changes an observation here, so this is what a rollout of all steps observes: observations before each
        action, ``done`` and the reward after it under ``"next"``. Nothing waits for the device.
        """
        self._start(None)
        n = self._time = self._end

        def rows(key: str, first: int) -> Tensor:
            return self._table[key][first : first + n].transpose(0, 1).contiguous()

        after = {key: rows(key, 1) for key in (*DONE, keys.REWARD)}
        now = {key: rows(key, 0) for key in self.observation_spec.keys()}
        now |= {key: torch.zeros_like(after[key]) for key in DONE}  # a lane that is done is reset, that is, parked
        return TensorDict({**now, "next": after}, [self.batch_size[0], n], device=self.device)

    def _row(self, t: int) -> TensorDict:
        """What is observed at time ``t``. Whoever writes into it changes no other row."""
        if self._rows is None:
            self._rows = self._table.unbind(0)
        return self._rows[t].copy()

    def to(self, device: str | torch.device) -> SpeechToFaceEnv:
        """Move the environment, a rollout under way included."""
        super().to(device)
        self._table, self._rows = self._table.to(self.device), None
        return self

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_rows": None}  # views of the table, which would each be stored with all of it

    def _start(self, tensordict: TensorDictBase | None) -> None:
        """Begin new utterances in all lanes and lay out a table with one row per time step, [end + 2, B]."""
        n_lanes = self.batch_size[0]
        ids = None if tensordict is None else tensordict.get(keys.UTTERANCE, None)
        if ids is None:
            drawn = self.draws.draw(n_lanes // self.group_size)
            pairs = [pair for pair in drawn for _ in range(self.group_size)]
        else:
            pairs = self.draws.choose(self._check_ids(ids), self.group_size)
        utterances = [utterance for utterance, _ in pairs]
        lengths = [self._n_frames[u] for u in utterances]
        end = max(lengths)
        known = sorted(set(utterances))
        # all features one after the other and a frame of zeros, from which every lane takes its own
        parts = self._on_device.get(known, self.device)
        features = torch.cat([*parts, torch.zeros_like(parts[0][:1])])
        ends = dict(zip(known, itertools.accumulate(self._n_frames[u] for u in known), strict=True))
        lanes = [(u, n - 1, ends[u] - n) for u, n in zip(utterances, lengths, strict=True)]
        chosen, last, first = upload(torch.tensor(lanes).T.contiguous(), self.device).view(3, 1, -1, 1)
        time = torch.arange(end + 2, device=self.device).view(-1, 1, 1)
        place = torch.where(time <= last, first + time, len(features) - 1)
        audio = features[place.squeeze(-1)]
        # A style without an utterance is an observation of the past, not a choice.
        given = None if ids is None or tensordict is None else tensordict.get(keys.STYLE, None)
        style = self._styles(pairs, given)
        done = time == last + 1
        observed = {
            keys.AUDIO: audio,
            keys.STYLE: style.expand(end + 2, *style.shape).clone(),
            keys.UTTERANCE: chosen.repeat(end + 2, 1, 1),
            keys.FRAME_MASK: time <= last,
            keys.FRAME_INDEX: torch.minimum(time, last),
            keys.REWARD: torch.zeros(done.shape, device=self.device),
        }
        observed |= dict(zip(DONE, (done, done.clone(), torch.zeros_like(done)), strict=True))
        self._table, self._rows = TensorDict(observed, [end + 2, n_lanes], device=self.device), None
        self._time, self._end = 0, end

    def _park(self, lanes: Tensor, t: int) -> None:
        """Let ``lanes`` [B] (bool) idle from time ``t`` on. A lane that has ended idles already."""
        lanes = lanes & self._table[keys.FRAME_MASK][t].squeeze(-1)
        if not bool(lanes.any()):
            return
        table = self._table.clone()
        table[keys.AUDIO][t:, lanes] = 0.0
        for name in (keys.FRAME_MASK, *DONE):
            table[name][t:, lanes] = False
        table[keys.FRAME_INDEX][t:, lanes] = table[keys.FRAME_INDEX][max(t - 1, 0), lanes]
        self._table, self._rows = table, None

    def _features(self, utterance: int) -> Tensor:
        features = self.audio_source.get(utterance)[: self._n_frames[utterance]]
        if len(features) < self._n_frames[utterance]:
            raise UserError(
                f"{self.corpus.names[utterance]}: {len(features)} frames of audio features, expected "
                f"{self._n_frames[utterance]}; was the audio encoder made for {self.corpus.clock}?"
            )
        return features

    def _check_ids(self, ids: Tensor) -> Sequence[int]:
        n_lanes, n_utterances = self.batch_size[0], len(self.corpus)
        if ids.numel() != n_lanes or ids.is_floating_point():
            raise UserError(f"utterance has shape {tuple(ids.shape)}: expected integers [{n_lanes}, 1]")
        chosen = ids.flatten().tolist()
        for i in chosen:
            if not 0 <= i < n_utterances:
                raise UserError(f"utterance={i}: the corpus has {n_utterances} utterances, use 0 to {n_utterances - 1}")
        return chosen

    def _styles(self, pairs: Sequence[tuple[int, int]], given: Tensor | None) -> Tensor:
        n_lanes = self.batch_size[0]
        if given is not None:
            if given.shape != (n_lanes, self.n_styles):
                raise UserError(f"style has shape {tuple(given.shape)}: expected [{n_lanes}, {self.n_styles}]")
            return given.to(self.device, torch.float32, copy=True)
        return upload(torch.eye(self.n_styles)[[style for _, style in pairs]], self.device)


def _own_styles(corpus: Corpus) -> list[int | None]:
    columns = {subject: i for i, subject in enumerate(corpus.subjects)}
    return [columns.get(corpus[i].subject) for i in range(len(corpus))]


def _frame_counts(corpus: Corpus, max_frames: int | None) -> list[int]:
    counts = [int(corpus.n_frames(i)) for i in range(len(corpus))]
    for name, count in zip(corpus.names, counts, strict=True):
        if count < 1:
            raise UserError(f"{name}: too short for one frame; remove it from the corpus")
    return counts if max_frames is None else [min(count, max_frames) for count in counts]
