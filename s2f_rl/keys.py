"""Every TensorDict key of the project: name, shape, dtype, unit.

Shapes are per step with B lanes; a collected batch inserts T after B. ``frame_mask`` is True on valid frames,
everywhere. Keys marked "next" are found under ``("next", key)`` in collected data.

| key              | shape      | dtype   | meaning                                                              |
|------------------|------------|---------|----------------------------------------------------------------------|
| audio            | [B, A, D]  | float32 | audio encoder output of the current frame                            |
| style            | [B, S]     | float32 | weights over the training subjects' styles (one-hot in the reference) |
| utterance        | [B, 1]     | int64   | index into the corpus                                                |
| frame_mask       | [B, 1]     | bool    | the lane still has a frame to animate                                |
| frame_index      | [B, 1]     | int64   | index of the current frame, 0 at the start of an utterance           |
| action           | [B, V*3]   | float32 | displacement from the template, metres; not in the batches of        |
|                  |            |         | recipes whose output map is frozen: ``latent`` says the same         |
| latent           | [B, H]     | float32 | sampled motion latent z (``vertex`` exploration: [B, V*3], metres;   |
|                  |            |         | a policy of codes: [B, Q] int64)                                     |
| latent_log_prob  | [B]        | float32 | log-density of ``latent``, nats; 0 where ``frame_mask`` is False     |
| logits           | [B, Q, K]  | float32 | of each of the Q codes over the K of the codebook (a policy of codes) |
| fed_back         | [B, W]     | float32 | the frame before in the codebook's decoder, before its output map: a |
|                  |            |         | policy of codes is fed it; 0 in the first frame                      |
| loc, scale       | as latent  | float32 | mean and standard deviation of ``latent`` (a Gaussian's parameters)  |
| lip_score (next) | [B, 1]     | float32 | lip-sync score of the 5 frames that end here                         |
| real_score (next)| [B, 1]     | float32 | realism score of the 5 frames that end here                          |
| SCORE (next)     | [B, 1]     | float32 | any other score of a reward, under the name that it gives            |
| SCORE_mask (next)| [B, 1]     | bool    | the frame has that score; absent where that is score_mask            |
| score_mask (next)| [B, 1]     | bool    | the frame has a score                                                |
| reward (next)    | [B, 1]     | float32 | weighted sum of the scores; 0 where ``score_mask`` is False          |
| mesh_feature     | [B, E]     | float32 | (next) unit mesh feature of that clip, on demand; 0 without a clip   |
| audio_feature    | [B, E]     | float32 | (next) unit audio feature of that clip, on demand                    |
| state_value      | [B, 1]     | float32 | critic's estimate of the return                                      |
| advantage        | [B, 1]     | float32 | advantage of the action                                              |
| value_target     | [B, 1]     | float32 | regression target of the critic                                      |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

AUDIO = "audio"
STYLE = "style"
UTTERANCE = "utterance"
FRAME_MASK = "frame_mask"
FRAME_INDEX = "frame_index"
ACTION = "action"
LATENT = "latent"
LATENT_LOG_PROB = "latent_log_prob"
LOGITS = "logits"
FED_BACK = "fed_back"
LOC = "loc"
SCALE = "scale"
LIP_SCORE = "lip_score"
REAL_SCORE = "real_score"
SCORE_MASK = "score_mask"
REWARD = "reward"
MESH_FEATURE = "mesh_feature"
AUDIO_FEATURE = "audio_feature"
STATE_VALUE = "state_value"
ADVANTAGE = "advantage"
VALUE_TARGET = "value_target"


def own_mask(score: str) -> str:
    """The key of a score's own mask."""
    return f"{score}_mask"


def mask_of(scored: Mapping[str, Tensor], score: str) -> Tensor:
    """The mask of a score: its own if there is one, else ``score_mask``. ``scored``: a mapping with both."""
    own = scored.get(own_mask(score), None)
    return scored[SCORE_MASK] if own is None else own
