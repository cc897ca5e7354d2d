"""One RL iteration as one would first compose it of published parts, one utterance at a time; equal in output to ours.

What each part mirrors:

* rollout: FaceFormer's ``predict``. For every frame torch's decoder layer runs over all frames so far, the output map
  makes vertices of all of them, and the last are embedded and appended.
* reward: the speech-mesh transformer's own use, clip by clip: five frames through the mesh half, their mel clip through
  the audio half, both features into the head. Layers are torch's.
* update: FaceFormer's ``forward`` without teacher forcing, the loop of the rollout with gradients, fed with what was
  drawn; log-probabilities, PPO's clipped ratio and the squared errors on vertices; one backward pass through it all.

It is not slowed down: no gradient where none is wanted, the output map frozen as in the recipes, speech encoded once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.speed.clock import now
from benchmarks.speed.full_size import EPOCHS, GROUP, Task
from s2f_rl import keys
from s2f_rl.losses import discounted_returns, masked_standardise
from s2f_rl.models.decoder import MotionDecoder, temporal_bias
from s2f_rl.rewards import RewardModel
from s2f_rl.rewards.model.speech_mesh import MEL_PATCH, N_PATCHES, MelPatchEncoder, MeshEncoder

GAMMA, CLIP = 0.7, 0.2
PARTS = ("collect", "reward", "update")


class Rollout(NamedTuple):
    """Of one utterance."""

    motion: Tensor
    latents: Tensor
    log_prob: Tensor
    advantage: Tensor


class Prefix:
    """The decoder of one utterance, run anew over all frames so far."""

    def __init__(self, decoder: MotionDecoder, audio: Tensor, style: Tensor) -> None:
        """Audio features [1, T, 1, D], style [1, S]."""
        self.decoder = decoder
        self.memory = decoder.audio_feature_map(audio.squeeze(2))
        self.style = decoder.obj_vector(style).unsqueeze(1)
        n = audio.shape[1]
        self.bias = temporal_bias(decoder.slopes, n, decoder.period)
        self.others = ~torch.eye(n, dtype=torch.bool, device=audio.device)

    def hidden(self, embedding: Tensor) -> Tensor:
        """Latents [1, t, H] of frames whose inputs are embedded, [1, t, H]."""
        n = embedding.shape[1]
        row = torch.arange(n, device=embedding.device) % self.decoder.period
        return self.decoder.layer(
            embedding + self.decoder.positions[row],
            self.memory,
            tgt_mask=self.bias[:, :n, :n],
            memory_mask=self.others[:n],
        )

    def append(self, embedding: Tensor, displacement: Tensor) -> Tensor:
        """The inputs of one more frame, the last one's displacement [1, V*3] being known."""
        return torch.cat([embedding, self.style + self.decoder.vertice_map(displacement).unsqueeze(1)], dim=1)


@torch.no_grad()
def rollout(decoder: MotionDecoder, audio: Tensor, style: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Displacements [T, V*3] and latents [T, H], from noise [T, H]."""
    prefix = Prefix(decoder, audio, style)
    embedding, motion, latents = prefix.style, [], []
    for drawn in noise:
        outputs = prefix.hidden(embedding)
        decoder.vertice_map_r(outputs)
        latents.append(outputs[:, -1] + drawn)
        motion.append(decoder.vertice_map_r(latents[-1]))
        embedding = prefix.append(embedding, motion[-1])
    return torch.cat(motion), torch.cat(latents)


def half(encoder: MeshEncoder | MelPatchEncoder, tokens: Tensor) -> Tensor:
    """Unit features [1, E] of a clip's tokens [1, n, E]."""
    x = tokens + encoder.positions
    for block in encoder.blocks:
        attention, mlp = block.attn, block.mlp
        bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
        projected = F.linear(block.norm1(x), attention.qkv.weight, bias).unflatten(-1, (3, attention.n_heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        x = x + attention.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2))
        x = x + mlp.fc2(F.gelu(mlp.fc1(block.norm2(x))))
    return F.normalize(encoder.norm(x).mean(1), dim=-1)


@torch.no_grad()
def score(model: RewardModel, vertices: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
    """Lip and real scores [n] of vertices [T, V*3] and mel clips [n, 20, 128], clip by clip."""
    mesh, audio = model.backbone.encoder, model.backbone.encoder_audio
    patch = audio.patch_embed.proj
    assert model.head is not None
    found = []
    for i in range(min(len(mel), len(vertices) - 4)):
        seen = half(mesh, F.linear(vertices[None, i : i + 5], mesh.patch_embed.weight, mesh.patch_embed.bias))
        patches = mel[i].reshape(1, N_PATCHES, MEL_PATCH)
        heard = half(audio, F.linear(patches, patch.weight.flatten(1), patch.bias))
        found.append(torch.stack(model.head.scores(heard, seen)))
    lip, real = torch.stack(found).squeeze(-1).unbind(-1)
    return lip, real


def losses(
    decoder: MotionDecoder, audio: Tensor, style: Tensor, sigma: Tensor, drawn: Rollout, truth: Tensor
) -> tuple[Tensor, Tensor]:
    """PPO's objective and the squared errors (mm^2) of one utterance."""
    prefix = Prefix(decoder, audio, style)
    embedding = prefix.style
    for displacement in drawn.motion[:, None]:
        hidden = prefix.hidden(embedding)
        means = decoder.vertice_map_r(hidden)
        embedding = prefix.append(embedding, displacement)
    log_prob = log_density(drawn.latents, hidden[0], sigma)
    ratio = (log_prob - drawn.log_prob).exp()
    clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
    policy = -torch.minimum(ratio * drawn.advantage, clipped * drawn.advantage).mean()
    error = 1e3 * (means[0] - truth)
    return policy, error.square().mean() + error.diff(dim=0).square().mean()


def log_density(latents: Tensor, means: Tensor, sigma: Tensor) -> Tensor:
    """[T] of latents [T, H]."""
    return (-0.5 * ((latents - means) / sigma).square() - sigma.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def advantages(lip: Tensor, real: Tensor, n_frames: int) -> tuple[Tensor, Tensor]:
    """Standardised returns [T], and rewards [T], the first four frames having none."""
    reward = F.pad(lip + real, (4, n_frames - 4 - len(lip)))
    returns = reward.clone()
    for t in range(n_frames - 2, -1, -1):
        returns[t] = reward[t] + GAMMA * returns[t + 1]
    return (returns - returns.mean()) / (returns.std(correction=0) + 1e-6), reward


def compare(task: Task) -> dict[str, float]:
    """One iteration on one utterance both ways: seconds and frames/s of the reference, and the largest differences."""
    batch = task.env(GROUP).whole_utterances()[:1]
    rolled = task.policy.core.roll_out(batch[keys.AUDIO], batch[keys.STYLE][:, 0])
    for key, value in zip((keys.LATENT, keys.LOC, keys.SCALE), rolled, strict=True):
        batch.set(key, value)
    task.policy.complete(batch)
    n = int(batch[keys.FRAME_MASK].sum())
    batch = task.reward(1)(batch[:, :n])
    utterance = task.corpus[int(batch[keys.UTTERANCE][0, 0, 0])]
    audio, style, mask = batch[keys.AUDIO], batch[keys.STYLE][:, 0], batch[keys.FRAME_MASK]
    sigma = batch[keys.SCALE][0, 0]
    template = utterance.template.to(task.device)
    truth = (utterance.vertices.to(task.device) - template)[:n]
    decoder, row = task.actor.decoder, {"frames": float(n)}

    def clock(part: str) -> None:
        if task.device.type == "cuda":
            torch.cuda.synchronize()
        row[part] = now() - sum(row[key] for key in PARTS if key in row) - began

    began = now()
    motion, latents = rollout(decoder, audio, style, (batch[keys.LATENT] - batch[keys.LOC])[0])
    clock("collect")
    lip, real = score(task.model, template + motion, utterance.mel_clips.to(task.device))
    clock("reward")
    advantage, reward = advantages(lip, real, n)
    drawn = Rollout(motion, latents, log_density(latents, batch[keys.LOC][0], sigma), advantage)
    for _ in range(EPOCHS):
        task.optimizer.zero_grad()
        policy, supervised = losses(decoder, audio, style, sigma, drawn, truth)
        (policy + supervised).backward()
    gradient = {id(p): p.grad.clone() for p in task.parameters if p.grad is not None}
    clock("update")

    # ours, of the same batch
    returns = discounted_returns(batch["next", keys.REWARD], mask, GAMMA)
    batch[keys.ADVANTAGE] = masked_standardise(returns, mask)
    task.optimizer.zero_grad()
    terms = {name: part(batch) for name, part in task.loss.parts.items()}
    ours = (
        terms["policy"]["loss_objective"],
        terms["supervised"]["loss_position"] + terms["supervised"]["loss_velocity"],
    )
    sum(ours).backward()

    def apart(a: Tensor, b: Tensor) -> float:
        return float((a - b).abs().max() / b.abs().max())

    displacement = task.policy.core.decode(batch[keys.LATENT])[0]
    row |= {
        "frames/s": n / sum(row[part] for part in PARTS),
        "motion differs": apart(displacement, motion),
        "log-density differs": apart(batch[keys.LATENT_LOG_PROB].flatten(), drawn.log_prob),
        "reward differs": apart(batch["next", keys.REWARD].flatten(), reward),
        "supervised loss differs": apart(ours[1].detach(), supervised.detach()),
        "policy loss differs": float((ours[0] - policy).abs().detach()),
        "gradient differs": apart(
            torch.cat([p.grad.flatten() for p in task.parameters if id(p) in gradient]),
            torch.cat([gradient[id(p)].flatten() for p in task.parameters if id(p) in gradient]),
        ),
    }
    task.optimizer.zero_grad()
    return row
