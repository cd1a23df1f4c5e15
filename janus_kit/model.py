"""Janus: a Llama-style decoder that reads text, features and codes, and writes text or codes.

Follows deepseek-ai/Janus (modeling_vlm.py) and Touvron et al., "LLaMA" (2023): no biases in the
decoder, RMSNorm, rotary positions, gated SiLU; separate heads for text and for image codes.
Parameter names are ours; checkpoint.py maps the published ones.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_kit.config import JanusConfig, LanguageConfig
from janus_kit.generation import native
from janus_kit.generation.vq import VQTokenizer
from janus_kit.linears import Linear, slim, widens
from janus_kit.vision.encoder import Projector, VisionEncoder, attend_to_learn, learns_on_cpu

__all__ = ["Batch", "Cache", "Janus", "Language", "Loss"]

IGNORE = -100  # a label that no loss counts
SPAN = 64  # attention reads the cache up to the next multiple of this, so that shapes recur


@dataclass(frozen=True)
class Cache:
    """Keys and values of every layer, preallocated; all methods leave shapes fixed.

    keys, values: [layers, b, kv_heads, slots, head_dim]; slot i of row r counts when
    bias[r, ..., i] is 0. A step writes one slot and opens it.
    """

    keys: Tensor
    values: Tensor
    bias: Tensor  # [b, kv_heads, 1, slots]: -inf where a slot is batch padding or not yet written
    padding: Tensor  # int64 [b]: slots of batch padding at the start of a row
    angles: Tensor  # fp32 [slots, 2, head_dim]: cos and sin of every position

    @classmethod
    def empty(cls, config: LanguageConfig, mask: Tensor, slots: int, dtype: torch.dtype) -> "Cache":
        """Room for slots positions of b rows; mask bool [b, t] says which of the t are real."""
        rows, t = mask.shape
        device = mask.device
        shape = (config.layers, rows, config.kv_heads, slots, config.head_dim)
        bias = torch.full((rows, 1, 1, slots), float("-inf"), dtype=dtype, device=device)
        bias[:, 0, 0, :t].masked_fill_(mask, 0)
        cos, sin = angles(config, torch.arange(slots, device=device), torch.float32)
        keys, values = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
        for store in (keys, values):  # the first t are written before they are read
            store[:, :, :, t:].zero_()
        return cls(
            keys,
            values,
            bias.repeat(1, config.kv_heads, 1, 1),
            (~mask).sum(1),
            torch.stack((cos, sin), 1),
        )

    @property
    def slots(self) -> int:
        return self.keys.shape[3]

    def pick(self, rows: Tensor) -> "Cache":
        """The cache of the given rows (int64 [b]), repeated where rows repeat."""
        kept = (self.keys[:, rows], self.values[:, rows], self.bias[rows], self.padding[rows])
        return Cache(*kept, self.angles)


def angles(config: LanguageConfig, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rotary angles of int64 positions [...] -> cos and sin [..., head_dim]; see rotate."""
    size = config.head_dim
    steps = torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size
    turns = positions.unsqueeze(-1).float() * (config.rope_theta**-steps)
    cos, sin = turns.cos(), turns.sin()
    return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al., "RoFormer", 2021), halves layout: [..., head_dim].

    The first half of sin is negative, which saves turning a half of x.
    """
    half = x.shape[-1] // 2
    turned = torch.cat((x[..., half:], x[..., :half]), -1)
    return (x * cos).addcmul_(turned, sin)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Causal attention; bias, if any, is the whole mask: [b, heads, t, head_dim] -> the same.

    A single query is the last position and sees all.
    """
    if widens(q):
        return attend(q.float(), k.float(), v.float(), bias).to(q.dtype)
    shared = q.shape[1] != k.shape[1]
    causal = bias is None and q.shape[2] > 1
    if causal and native.attends(q, k, v):
        return native.attend(q, k, v)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=bias, is_causal=causal, enable_gqa=shared
    )


def branching(branches: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Positions int64 [b, t] and the mask bool [b, 1, t, t] of rows that fork; see Batch."""
    own = branches[:, :, None] == branches[:, None, :]
    before = torch.ones_like(own[0]).tril()
    if positions is None:
        start = (branches == 0).sum(1, keepdim=True)
        positions = (own & before).sum(2) - 1 + torch.where(branches == 0, 0, start)
    return positions, ((own | (branches == 0)[:, None, :]) & before)[:, None]


class Attention(nn.Module):
    """Causal self-attention with fused q, k, v and shared key-value heads."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        wide = (config.heads + 2 * config.kv_heads) * config.head_dim
        self.qkv = Linear(config.hidden, wide, bias=False)
        self.out = Linear(config.heads * config.head_dim, config.hidden, bias=False)

    def split(self, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[b, t, wide] -> q [b, heads, t, head_dim], k and v with kv_heads, rotated."""
        b, t, _ = qkv.shape
        heads, shared = self.config.heads, self.config.kv_heads
        qkv = qkv.view(b, t, heads + 2 * shared, self.config.head_dim).transpose(1, 2)
        both = rotate(qkv[:, : heads + shared], cos, sin)
        return both[:, :heads], both[:, heads:], qkv[:, heads + shared :]

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None, first: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Whole sequences: [b, t, d] -> ([b, t, d], keys, values); of positions first on only."""
        q, k, v = self.split(self.qkv(x), cos, sin)
        q, bias = q[:, :, first:], None if bias is None else bias[:, :, first:]
        if learns_on_cpu(x) and self.config.heads == self.config.kv_heads:
            t = q.shape[2]
            seen = torch.ones(t, t, dtype=torch.bool).tril() if bias is None else bias
            y = attend_to_learn(q, k, v, seen)
        else:
            y = attend(q, k, v, bias)
        return self.out(y.transpose(1, 2).flatten(2)), k, v

    def step(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        position: Tensor,
        bias: Tensor,
    ) -> Tensor:
        """One position: [b, d] -> [b, d]; writes slot `position` of keys and values.

        cos, sin: [b, 1, head_dim]; bias: [b·kv_heads, 1, span], the slots to attend to.
        """
        heads, shared, size = self.config.heads, self.config.kv_heads, self.config.head_dim
        b, span = len(x), bias.shape[-1]
        qkv = slim(self.qkv, x).reshape(b, heads + 2 * shared, size)
        both = rotate(qkv[:, : heads + shared], cos, sin)
        keys.index_copy_(2, position, both[:, heads:, None])
        values.index_copy_(2, position, qkv[:, heads + shared :, None])
        # With one query, two products read the cache faster than fused attention does on a CPU.
        q = both[:, :heads].reshape(b * shared, heads // shared, size)
        k, v = (slots.flatten(0, 1)[:, :span] for slots in (keys, values))
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=size**-0.5)
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype)
        return slim(self.out, torch.bmm(weights, v).view(b, -1))


class Layer(nn.Module):
    """One decoder block."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(config.hidden, eps=config.rms_eps)
        self.attention = Attention(config)
        self.norm2 = nn.RMSNorm(config.hidden, eps=config.rms_eps)
        self.gate_up = Linear(config.hidden, 2 * config.intermediate, bias=False)
        self.down = Linear(config.intermediate, config.hidden, bias=False)

    def mlp(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        gate = F.silu(gate)
        # Fresh memory for another product of this size costs more than the product.
        gate = gate * up if torch.is_grad_enabled() else gate.mul_(up)
        return self.down(gate)  # type: ignore[no-any-return]

    def step(self, x: Tensor, *given: Tensor) -> Tensor:
        """One position: [b, d] -> [b, d]; given: what the attention's step has besides."""
        x = x + self.attention.step(self.norm1(x), *given)
        gate, up = slim(self.gate_up, self.norm2(x)).chunk(2, -1)
        return x + slim(self.down, F.silu(gate) * up)


class Language(nn.Module):
    """The decoder: embeds [b, t, d] -> hidden states [b, t, d], after the final norm."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.hidden)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden, eps=config.rms_eps)

    def forward(
        self,
        embeds: Tensor,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        branches: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        last: bool = False,
    ) -> Tensor:
        """Read whole rows: embeds [b, t, d], mask bool [b, t] (None: all real) -> [b, t, d].

        Batch padding is on the left or the right; with a cache it must be on the left, and the
        first t slots are filled. Rows of padding come out as numbers without meaning, never NaN.
        branches, in place of mask, and positions with them: see Batch. last: only the last position
        -> [b, 1, d], for which the last layer need not look at the others.
        """
        b, t, _ = embeds.shape
        if branches is not None:
            positions, bias = branching(branches, positions)
        elif mask is None or bool(mask.all()):
            positions = torch.arange(t, device=embeds.device).expand(b, t)
            bias = None
        else:
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            seen = torch.ones(t, t, dtype=torch.bool, device=embeds.device).tril()
            own = torch.eye(t, dtype=torch.bool, device=embeds.device)
            bias = ((seen & mask[:, None, :]) | own)[:, None]
        cos, sin = angles(self.config, positions[:, None], embeds.dtype)
        x = embeds
        for i, layer in enumerate(cast(Iterable[Layer], self.layers)):
            first = t - 1 if last and i == self.config.layers - 1 else 0
            y, keys, values = layer.attention(layer.norm1(x), cos, sin, bias, first)
            if cache is not None:
                cache.keys[i, :, :, :t] = keys
                cache.values[i, :, :, :t] = values
            x = x[:, first:] + y
            x = x + layer.mlp(x)
        return self.norm(x)  # type: ignore[no-any-return]

    def step(
        self,
        embeds: Tensor,
        cache: Cache,
        position: Tensor,
        span: int,
        by: Callable[..., Tensor] = Layer.step,
    ) -> Tensor:
        """Read one position: embeds [b, d] at slot position (int64 [1]) -> [b, d].

        Only the first span slots are attended to, so span must exceed position. Nothing here
        depends on a tensor's value from Python: a fixed span gives a fixed graph. by: Layer.step,
        perhaps compiled.
        """
        cache.bias.index_fill_(3, position, 0)
        bias = cache.bias.flatten(0, 1)[:, :, :span]
        turns = cache.angles[position - cache.padding].to(embeds.dtype)
        cos, sin = turns.unsqueeze(2).unbind(1)
        x = embeds
        for i, layer in enumerate(cast(Iterable[Layer], self.layers)):
            x = by(layer, x, cos, sin, cache.keys[i], cache.values[i], position, bias)
        return self.norm(x)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows to learn from, padded on the right with pad tokens.

    tokens: int64 [b, t]; where codes >= 0 the code is read instead, and where tokens equal
    image_token the next feature of pixels [n, 3, 384, 384] is (row by row). text_labels and
    code_labels: int64 [b, t], the token or code that comes next, IGNORE where none is learnt.
    branches: int64 [b, t] or None: 0 where a row begins, then 1, 2, …: ways of going on from there
    that do not see each other, so that many questions share one picture; -1 is padding.
    looked: bool [n, 576], the places of pixels that rows hold, if not all; then positions, int64
    [b, t], says where tokens stand.
    code_weights: fp32 [b, t] or None: how much each code label counts.
    """

    tokens: Tensor
    codes: Tensor
    text_labels: Tensor
    code_labels: Tensor
    pixels: Tensor | None = None
    image_token: int = -1
    branches: Tensor | None = None
    code_weights: Tensor | None = None
    positions: Tensor | None = None
    looked: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Loss:
    """Mean cross-entropies in nats; total is what an optimiser minimises."""

    total: Tensor
    text: Tensor
    code: Tensor


class Janus(nn.Module):
    """The whole model; every submodule reads and writes the dtype of its weights."""

    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        self.config = config
        d, vq = config.language.hidden, config.vq
        self.language = Language(config.language)
        self.text_head = Linear(d, config.language.vocab_size, bias=False)
        self.vision = VisionEncoder(config.vision)
        self.vision_aligner = Projector(config.vision.width, d, d)
        self.vq = VQTokenizer(vq)
        self.code_embed = nn.Embedding(vq.codebook_size, vq.code_dim)
        self.code_aligner = Projector(vq.code_dim, d, d)
        self.code_head = Projector(d, d, vq.codebook_size)

    compiled = False  # whether steps are compiled; see graphs.py
    held: tuple[torch.device, torch.dtype] | None = None  # of a model whose weights come and go

    @property
    def device(self) -> torch.device:
        return self.held[0] if self.held else self.language.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.held[1] if self.held else self.language.norm.weight.dtype

    def features(self, pixels: Tensor) -> Tensor:
        """Pixels [n, 3, 384, 384] in [-1, 1] -> what the language model reads [n, 576, d]."""
        return self.vision_aligner(self.vision(pixels))  # type: ignore[no-any-return]

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Codes [...] -> embeds [..., d]."""
        return self.code_aligner(self.code_embed(codes))  # type: ignore[no-any-return]

    def code_logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next code: [b, d] -> [b, codebook_size]."""
        return slim(self.code_head.fc2, F.gelu(slim(self.code_head.fc1, hidden)))

    def code_table(self) -> Tensor:
        """Embeds of every code [codebook_size, d]: a pure function of the code, made once."""
        return self.embed_codes(torch.arange(self.config.vq.codebook_size, device=self.device))

    def embed(self, tokens: Tensor, image_token: int, features: Sequence[Tensor]) -> Tensor:
        """Tokens [b, t], with features [576, d] where they are image_token -> [b, t, d]."""
        embeds = self.language.embed(tokens)
        if not features:
            return embeds  # type: ignore[no-any-return]
        filled = torch.cat(list(features)).to(embeds.dtype)
        places = (tokens == image_token).unsqueeze(-1)
        return embeds.masked_scatter(places, filled)  # type: ignore[no-any-return]

    def loss(self, batch: Batch, *, code_weight: float = 1.0) -> Loss:
        """Cross-entropy on answer tokens and image codes, each a mean over its own labels."""
        features = [] if batch.pixels is None else [self.features(batch.pixels).flatten(0, 1)]
        if batch.looked is not None:
            features = [seen[batch.looked.flatten()] for seen in features]
        embeds = self.embed(batch.tokens, batch.image_token, features)
        drawn = batch.codes >= 0
        read = self.embed_codes(batch.codes[drawn]).to(embeds.dtype)
        embeds = embeds.masked_scatter(drawn.unsqueeze(-1), read)
        hidden = self.language(embeds, branches=batch.branches, positions=batch.positions)
        zero = hidden.sum() * 0  # keeps every parameter in the graph for distributed training
        losses = []
        for labels, head, weights in (
            (batch.text_labels, self.text_head, None),
            (batch.code_labels, self.code_head, batch.code_weights),
        ):
            places = labels != IGNORE
            logits = head(hidden[places]).float()
            if not len(logits):
                losses.append(zero)
                continue
            each = F.cross_entropy(logits, labels[places], reduction="none")
            share = torch.ones_like(each) if weights is None else weights[places]
            losses.append((each * share).sum() / share.sum())
        text, code = losses
        return Loss(text + code_weight * code, text, code)
