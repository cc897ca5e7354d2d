"""The speech-mesh transformer (Chae-Yeon et al., CVPR 2025): one unit feature per 5-frame mesh clip, one per mel clip.

Parameter names and shapes are those of the published checkpoints; every size except the number of heads is read off
the tensors. E is the width of a feature.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.errors import UserError
from s2f_rl.products import linear
from s2f_rl.rewards.model.checkpoint_files import pick, tensors

MEL_SHAPE = (20, 128)
MEL_PATCH = 16
N_PATCHES = MEL_SHAPE[0] * MEL_SHAPE[1] // MEL_PATCH
MESH_CLIPS = 256  # at once on a CPU: what lies between two products stays in its cache
LAYER_NORM_EPS = 1e-6
PRECISIONS = ("float32", "bfloat16")
_MOST_BLOCKS = 1000
# Up to here products and a softmax are faster on CUDA, where cuDNN's attention is made for many tokens.
_FEW_TOKENS = 16


def sinusoid_table(n_positions: int, width: int) -> Tensor:
    """Fixed positions [n_positions, width]: sines in the even columns, cosines in the odd (Vaswani et al., 2017)."""
    column = torch.arange(width, dtype=torch.float64)
    rate = 10000.0 ** (2.0 * torch.div(column, 2, rounding_mode="floor") / width)
    angle = torch.arange(n_positions, dtype=torch.float64)[:, None] / rate
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


class Attention(nn.Module):
    """Self-attention with a bias for queries and values and none for keys, as the checkpoints store it."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = linear(x, self.qkv.weight, bias).view(batch, length, 3, self.n_heads, width // self.n_heads)
        if qkv.dtype == torch.bfloat16 and qkv.device.type == "cpu":
            qkv = qkv.float()  # torch's attention in bfloat16 takes twice the time there
        if qkv.is_cuda and length <= _FEW_TOKENS:
            attended = short_attention(qkv)
        else:
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            attended = F.scaled_dot_product_attention(query, key, value)
        return linear(attended.transpose(1, 2).reshape(batch, length, width), self.proj.weight, self.proj.bias)


def short_attention(qkv: Tensor) -> Tensor:
    """Attention of a few tokens, by two products and a softmax: [M, n, 3, heads, d] -> [M, heads, n, d]."""
    query, key, value = qkv.permute(2, 0, 3, 1, 4).flatten(1, 2).unbind(0)  # one copy for all three
    nothing, scale = query.new_zeros(1, 1, 1), query.shape[-1] ** -0.5
    weight = torch.baddbmm(nothing, query, key.transpose(1, 2), beta=0, alpha=scale).softmax(-1)
    return torch.bmm(weight, value).unflatten(0, (len(qkv), -1))


class Mlp(nn.Module):
    """Two linear layers with GELU between: [.., width] -> [.., width]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return linear(linear(x, self.fc1.weight, self.fc1.bias, gelu=True), self.fc2.weight, self.fc2.bias)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, n_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, n_heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width, mlp_width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _Encoder(nn.Module):
    """Blocks and final norm, mean over the tokens."""

    positions: Tensor
    precision = "float32"

    def __init__(self, width: int, depth: int, n_heads: int, mlp_width: int, n_tokens: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, n_heads, mlp_width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        # not in the published state dicts, hence not persistent
        self.register_buffer("positions", sinusoid_table(n_tokens, width), persistent=False)

    def pool(self, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
        """Embedded tokens [M, n_tokens, E] without positions -> [M, E], not normalised.

        ``kept``: indices of the tokens to look at, all for None. Dropping half of them is a regulariser in training and
        costs less than half (PatchDropout, Liu et al., 2023).
        """
        x = tokens + self.positions
        if kept is not None:
            x = x[:, kept]
        for block in self.blocks if self.precision == "float32" else self._rounded():
            x = block(x)
        return self.norm(x).mean(1)

    def _rounded(self) -> nn.ModuleList:
        """Copies of the blocks as they are now whose products are of bfloat16; norms and sums stay float32."""
        key = [(id(p), p._version, p.device) for p in self.blocks.parameters()]
        known = self.__dict__.get("_copies")  # beside the parameters: no part of the state
        if known is None or known[0] != key:
            copies = copy.deepcopy(self.blocks).requires_grad_(False)
            for module in copies.modules():
                if isinstance(module, nn.Linear):
                    module.bfloat16()
                elif isinstance(module, Attention):
                    module.q_bias.data, module.v_bias.data = module.q_bias.bfloat16(), module.v_bias.bfloat16()
            known = self.__dict__["_copies"] = (key, copies)
        return known[1]


class MeshEncoder(_Encoder):
    """Mesh half: a linear map of each frame, then transformer blocks over the 5 frames."""

    def __init__(self, n_coordinates: int, width: int, depth: int, n_heads: int, mlp_width: int) -> None:
        super().__init__(width, depth, n_heads, mlp_width, CLIP_FRAMES)
        self.patch_embed = nn.Linear(n_coordinates, width)


class PatchEmbed(nn.Module):
    """Mel patches of 1 frame x 16 bins to tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, kernel_size=(1, MEL_PATCH), stride=(1, MEL_PATCH))


class MelPatchEncoder(_Encoder):
    """Audio half: 160 mel patches of a clip, then transformer blocks."""

    def __init__(self, width: int, depth: int, n_heads: int, mlp_width: int) -> None:
        super().__init__(width, depth, n_heads, mlp_width, N_PATCHES)
        self.patch_embed = PatchEmbed(width)

    def patches(self, mel: Tensor) -> Tensor:
        """Mel clips [M, 20, 128] -> embedded patches [M, 160, E], time-major.

        A matrix product in place of the stride-16 convolution: same numbers, faster on CPU.
        """
        proj = self.patch_embed.proj
        weight = proj.weight.view(proj.weight.shape[0], MEL_PATCH)
        return linear(mel.reshape(len(mel), N_PATCHES, MEL_PATCH), weight, proj.bias)


class SpeechMeshTransformer(nn.Module):
    """Two encoders that meet in one space: 5 mesh frames, and 160 patches (1 frame x 16 bins) of a mel clip.

    Args:
        n_coordinates: V*3.
        width: E. depth: blocks per encoder. n_heads: attention heads (must divide ``width``).
        mlp_width: hidden width of a block's MLP, 4 E by default.

    Source: Chae-Yeon et al., "Perceptually Accurate 3D Talking Head Generation", CVPR 2025.
    """

    def __init__(
        self, n_coordinates: int, width: int = 512, depth: int = 10, n_heads: int = 8, mlp_width: int | None = None
    ) -> None:
        super().__init__()
        if n_heads < 1 or width % n_heads:
            raise UserError(f"n_heads={n_heads} does not divide the reward model's width {width}: set n_heads to fit")
        mlp_width = mlp_width or 4 * width
        self.n_coordinates, self.width, self.depth = n_coordinates, width, depth
        self.n_heads, self.mlp_width = n_heads, mlp_width
        self.encoder = MeshEncoder(n_coordinates, width, depth, n_heads, mlp_width)
        self.encoder_audio = MelPatchEncoder(width, depth, n_heads, mlp_width)
        self.apply(_initialise)

    @property
    def n_vertices(self) -> int:
        return self.n_coordinates // 3

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, object], n_heads: int = 8, what: str = "speech-mesh state dict"
    ) -> SpeechMeshTransformer:
        """Build the model a state dict belongs to; wrappers are taken off, sizes read off the tensors.

        Raises:
            UserError: an entry is missing, misshapen or not finite; ``what`` names the source in the message.
        """
        state = tensors(state_dict, "encoder.patch_embed.weight", what)
        first, mlp = state["encoder.patch_embed.weight"], state.get("encoder.blocks.0.mlp.fc1.weight")
        if first.ndim != 2 or mlp is None or mlp.ndim != 2:
            raise UserError(f"{what}: 'encoder.patch_embed.weight' or 'encoder.blocks.0.mlp.fc1.weight' is misshapen")
        width, n_coordinates = first.shape
        if n_coordinates % 3:
            raise UserError(f"{what}: takes {n_coordinates} mesh coordinates, no multiple of 3")
        if not 1 <= _depth(state) <= _MOST_BLOCKS:
            raise UserError(f"{what}: has {_depth(state)} blocks; 1 to {_MOST_BLOCKS} are possible")
        # sizes come from a file: build on "meta", so that nothing is allocated or drawn before the shapes are checked
        with torch.device("meta"):
            model = cls(n_coordinates, width, _depth(state), n_heads, mlp.shape[0])
        model.load_state_dict(pick(state, model.state_dict(), what), assign=True)
        for encoder in (model.encoder, model.encoder_audio):
            encoder.positions = sinusoid_table(encoder.positions.shape[0], width)
        return model

    @property
    def precision(self) -> str:
        """``"float32"``, or ``"bfloat16"``: of the products in the blocks of both halves, where weights are frozen."""
        return self.encoder.precision

    @precision.setter
    def precision(self, name: str) -> None:
        if name not in PRECISIONS:
            raise UserError(f"reward.precision={name!r} is unknown: use {' or '.join(PRECISIONS)}")
        self.encoder.precision = self.encoder_audio.precision = name

    def embed_frames(self, vertices: Tensor) -> Tensor:
        """Vertices [..., V*3] in metres -> per-frame embeddings [..., E], shared by the 5 clips that hold the frame."""
        return linear(vertices, self.encoder.patch_embed.weight, self.encoder.patch_embed.bias)

    def pool_mesh(self, frame_embeddings: Tensor) -> Tensor:
        """Embedded clips [M, 5, E] -> [M, E], not normalised."""
        return self.encoder.pool(frame_embeddings)

    def pool_audio(self, mel_clips: Tensor, kept: Tensor | None = None) -> Tensor:
        """Mel clips [M, 20, 128] -> [M, E], not normalised; from the patches ``kept`` only, if given."""
        return self.encoder_audio.pool(self.encoder_audio.patches(mel_clips), kept)

    def encode_mesh(self, vertices: Tensor, max_clips: int | None = None) -> Tensor:
        """Sequences [B, T, V*3] -> unit features [B, T-4, E] of every 5-frame clip (T < 5: [B, 0, E]).

        ``max_clips`` bounds the clips that go through the blocks at once; None: as the device likes.
        """
        return self.encode_frames(self.embed_frames(vertices), max_clips)

    def encode_frames(self, embedded: Tensor, max_clips: int | None = None, stride: int = 1) -> Tensor:
        """:meth:`encode_mesh` of frames [B, T, E] that :meth:`embed_frames` has embedded; every stride-th clip only."""
        batch, n_frames, width = embedded.shape
        if n_frames < CLIP_FRAMES:
            return embedded.new_zeros(batch, 0, width)
        clips = embedded.unfold(1, CLIP_FRAMES, stride).transpose(2, 3)
        return self.encode_embedded(clips.flatten(0, 1), max_clips).view(batch, clips.shape[1], width)

    def encode_embedded(self, clips: Tensor, max_clips: int | None = None) -> Tensor:
        """Embedded clips [M, 5, E] -> unit features [M, E], ``max_clips`` at once (None: what suits the device)."""
        max_clips = max_clips or (MESH_CLIPS if clips.device.type == "cpu" else 64 * MESH_CLIPS)
        return F.normalize(in_chunks(self.pool_mesh, clips, max_clips, self.width), dim=-1)

    def encode_audio(self, mel_clips: Tensor, max_clips: int = 64) -> Tensor:
        """Mel clips [M, 20, 128] -> unit features [M, E], at most ``max_clips`` at once."""
        return F.normalize(in_chunks(self.pool_audio, mel_clips, max_clips, self.width), dim=-1)

    def forward(self, mesh_clips: Tensor, mel_clips: Tensor) -> tuple[Tensor, Tensor]:
        """Mesh clips [M, 5, V*3] or [M, 5, V, 3] and mel clips [M, 1, 20, 128] -> unit features ([M, E], [M, E])."""
        mesh_clips = flat_vertices(mesh_clips, self.n_coordinates)
        mesh = F.normalize(self.pool_mesh(self.embed_frames(mesh_clips)), dim=-1)
        return mesh, F.normalize(self.pool_audio(mel_clips.flatten(0, -3)), dim=-1)


def flat_vertices(vertices: Tensor, n_coordinates: int) -> Tensor:
    """Meshes [..., V*3] or [..., V, 3] -> [..., V*3].

    Raises:
        UserError: the mesh has another number of vertices than the model was trained for.
    """
    if vertices.ndim and vertices.shape[-1] == n_coordinates:
        return vertices
    if vertices.ndim > 1 and vertices.shape[-1] == 3 and vertices.shape[-2] * 3 == n_coordinates:
        return vertices.flatten(-2)
    raise UserError(
        f"the reward model scores meshes of {n_coordinates // 3} vertices, not an array of shape "
        f"{list(vertices.shape)}: use a reward model that was trained on this topology"
    )


def in_chunks(function: Callable[[Tensor], Tensor], rows: Tensor, size: int, width: int) -> Tensor:
    """``function`` over at most ``size`` rows at a time, concatenated; [0, width] when there are none."""
    if not len(rows):
        return rows.new_zeros(0, width)
    parts = [function(part) for part in rows.split(size)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def info_nce(mesh_feature: Tensor, audio_feature: Tensor, temperature: float = 0.07) -> Tensor:
    """Symmetric InfoNCE of M pairs of unit features [M, E]: mean of the two cross-entropies of the similarity matrix.

    The perceptual loss of Chae-Yeon et al. (CVPR 2025); pair i is the positive of row and column i.
    """
    logits = mesh_feature @ audio_feature.T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def _depth(state_dict: Mapping[str, Tensor]) -> int:
    """Number of block indices that occur; were one left out, its entries would be reported as missing."""
    prefix = "encoder.blocks."
    found = {name[len(prefix) :].split(".")[0] for name in state_dict if name.startswith(prefix)}
    return len(found)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
