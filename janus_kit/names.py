"""The map of parameter names: ours ↔ Hugging Face's layout ↔ deepseek-ai's layout.

Published names appear here and nowhere else. Hugging Face's are those of transformers' Janus,
deepseek-ai's those of deepseek-ai/Janus (modeling_vlm.py, siglip_vit.py, vq_model.py).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from janus_kit.config import JanusConfig
from janus_kit.model import Janus

__all__ = ["HUGGING_FACE", "ORIGINAL", "Piece", "is_leftover", "pieces"]

# A layout is named by the model_type of its config.json.
HUGGING_FACE: Final = "janus"
ORIGINAL: Final = "multi_modality"

_Row = tuple[str, str, str]

# Ours, Hugging Face's, deepseek-ai's. A row names a module or a parameter; what follows it is
# the same in all three, * stands for the same number, and a|b for two tensors that we hold as one.
# The first row that fits decides.
_LANGUAGE: tuple[_Row, ...] = (
    ("embed", "embed_tokens", "embed_tokens"),
    ("layers.*.norm1", "layers.*.input_layernorm", "layers.*.input_layernorm"),
    (
        "layers.*.attention.qkv",
        "layers.*.self_attn.q_proj|k_proj|v_proj",
        "layers.*.self_attn.q_proj|k_proj|v_proj",
    ),
    ("layers.*.attention.out", "layers.*.self_attn.o_proj", "layers.*.self_attn.o_proj"),
    ("layers.*.norm2", "layers.*.post_attention_layernorm", "layers.*.post_attention_layernorm"),
    ("layers.*.gate_up", "layers.*.mlp.gate_proj|up_proj", "layers.*.mlp.gate_proj|up_proj"),
    ("layers.*.down", "layers.*.mlp.down_proj", "layers.*.mlp.down_proj"),
    ("norm", "norm", "norm"),
)
_VISION: tuple[_Row, ...] = (
    ("patch", "embeddings.patch_embedding", "patch_embed.proj"),
    ("positions", "embeddings.position_embedding.weight", "pos_embed"),
    ("blocks.*.norm1", "encoder.layers.*.layer_norm1", "blocks.*.norm1"),
    ("blocks.*.qkv", "encoder.layers.*.self_attn.q_proj|k_proj|v_proj", "blocks.*.attn.qkv"),
    ("blocks.*.out", "encoder.layers.*.self_attn.projection_layer", "blocks.*.attn.proj"),
    ("blocks.*.norm2", "encoder.layers.*.layer_norm2", "blocks.*.norm2"),
    ("blocks.*.fc1", "encoder.layers.*.mlp.fc1", "blocks.*.mlp.fc1"),
    ("blocks.*.fc2", "encoder.layers.*.mlp.fc2", "blocks.*.mlp.fc2"),
    ("norm", "post_layernorm", "norm"),
)
_HEADS: tuple[_Row, ...] = (
    ("text_head", "lm_head", "language_model.lm_head"),
    ("vision_aligner.fc1", "model.aligner.fc1", "aligner.layers.0"),
    ("vision_aligner.fc2", "model.aligner.hidden_layers.0", "aligner.layers.2"),
    ("code_embed", "model.generation_embeddings", "gen_embed"),
    ("code_aligner.fc1", "model.generation_aligner.fc1", "gen_aligner.layers.0"),
    ("code_aligner.fc2", "model.generation_aligner.hidden_layers.0", "gen_aligner.layers.2"),
    ("code_head.fc1", "model.generation_head.proj_out", "gen_head.output_mlp_projector"),
    ("code_head.fc2", "model.generation_head.vision_head", "gen_head.vision_head"),
)
_VQ: tuple[_Row, ...] = (
    ("to_code", "quant_conv", "quant_conv"),
    ("codebook", "quantize.embedding", "quantize.embedding"),
    ("from_code", "post_quant_conv", "post_quant_conv"),
)


def _coder(hf: str, resample: str) -> tuple[_Row, ...]:
    """Rows of the VQ encoder or decoder; level 0 is run first in all three."""
    old = "conv_blocks.*"
    return (
        ("levels.*.blocks.*.shortcut", f"{hf}.block.*.nin_shortcut", f"{old}.res.*.nin_shortcut"),
        ("levels.*.blocks.*", f"{hf}.block.*", f"{old}.res.*"),
        ("levels.*.attention.*.out", f"{hf}.attn.*.proj_out", f"{old}.attn.*.proj_out"),
        ("levels.*.attention.*", f"{hf}.attn.*", f"{old}.attn.*"),
        ("levels.*.conv", f"{hf}.{resample}.conv", f"{old}.{resample}.conv"),
        ("middle.block1", "mid.block_1", "mid.0"),
        ("middle.attention.out", "mid.attn_1.proj_out", "mid.1.proj_out"),
        ("middle.attention", "mid.attn_1", "mid.1"),
        ("middle.block2", "mid.block_2", "mid.2"),
        ("conv_in", "conv_in", "conv_in"),
        ("norm_out", "norm_out", "norm_out"),
        ("conv_out", "conv_out", "conv_out"),
    )


def _under(ours: str, hf: str, original: str, rows: tuple[_Row, ...]) -> list[_Row]:
    """The rows with the names of their parents in front."""
    return [(f"{ours}.{a}", f"{hf}.{b}", f"{original}.{c}") for a, b, c in rows]


_ROWS = [
    *_under("language", "model.language_model", "language_model.model", _LANGUAGE),
    *_under("vision", "model.vision_model", "vision_model.vision_tower", _VISION),
    *_HEADS,
    *_under("vq", "model.vqmodel", "gen_vision_model", _VQ),
    *_under(
        "vq.encoder",
        "model.vqmodel.encoder",
        "gen_vision_model.encoder",
        _coder("down.*", "downsample"),
    ),
    *_under(
        "vq.decoder",
        "model.vqmodel.decoder",
        "gen_vision_model.decoder",
        _coder("up.*", "upsample"),
    ),
]
_PATTERNS = [
    (re.compile(re.escape(ours).replace(r"\*", r"(\d+)") + r"(|\..+)"), hf, original)
    for ours, hf, original in _ROWS
]
# SigLIP's pooling head and two buffers: in original files, of no use to Janus.
_LEFTOVER = re.compile(r"(.+\.)?(attn_pool\..+|quantize\.codebook_used|rotary_emb\.inv_freq)")


@dataclass(frozen=True)
class Piece:
    """A tensor as published: the given rows of one of our parameters."""

    name: str
    shape: tuple[int, ...]
    rows: slice


def is_leftover(name: str) -> bool:
    """Whether a checkpoint may hold a tensor of this name that the model has no place for."""
    return _LEFTOVER.fullmatch(name) is not None


def pieces(model: Janus, layout: str) -> Mapping[str, tuple[Piece, ...]]:
    """Every parameter of model → the published tensors that make it up, in the model's order."""
    return {
        name: tuple(_pieces(model.config, name, tuple(tensor.shape), layout))
        for name, tensor in model.state_dict().items()
    }


def _pieces(config: JanusConfig, name: str, shape: tuple[int, ...], layout: str) -> Iterator[Piece]:
    names = _published(name, layout)
    start = 0
    for published, rows in zip(names, _heights(config, name, shape[0], len(names)), strict=True):
        stored = (rows, *shape[1:])
        if name == "vision.positions" and layout == ORIGINAL:
            stored = (1, *stored)  # kept there with a batch dimension
        yield Piece(published, stored, slice(start, start + rows))
        start += rows


def _published(name: str, layout: str) -> list[str]:
    """The published names of our parameter: one, or those of its parts in order."""
    for pattern, hf, original in _PATTERNS:
        if match := pattern.fullmatch(name):
            *numbers, rest = match.groups()
            parent, _, last = (hf if layout == HUGGING_FACE else original).rpartition(".")
            full = [f"{parent}.{part}" if parent else part for part in last.split("|")]
            for number in numbers:
                full = [part.replace("*", number, 1) for part in full]
            return [part + rest for part in full]
    raise AssertionError(f"names.py has no row for {name}")


def _heights(config: JanusConfig, name: str, rows: int, count: int) -> list[int]:
    """Rows of each part of a parameter of so many rows: queries may outnumber keys and values."""
    if name.startswith("language.") and count == 3:
        text = config.language
        return [n * text.head_dim for n in (text.heads, text.kv_heads, text.kv_heads)]
    return [rows // count] * count
