"""Shapes of a Janus model as frozen data, the presets, and both published forms of config.json.

Numbers follow deepseek-ai/Janus and the configs of Janus-1.3B, Janus-Pro-1B and Janus-Pro-7B.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from janus_kit.errors import CheckpointError

__all__ = ["PRESETS", "JanusConfig", "LanguageConfig", "VQConfig", "VisionConfig"]

# No published Janus comes near these; a config.json that exceeds one is damaged or hostile.
_LIMITS = {
    "hidden": 65_536,
    "layers": 512,
    "heads": 1_024,
    "kv_heads": 1_024,
    "head_dim": 1_024,
    "intermediate": 262_144,
    "vocab_size": 1_048_576,
    "max_positions": 1_048_576,
    "image_size": 4_096,
    "patch_size": 256,
    "width": 65_536,
    "codebook_size": 1_048_576,
    "code_dim": 4_096,
    "latent_channels": 16_384,
    "base_channels": 4_096,
    "res_blocks": 64,
}


def _check(config: object) -> None:
    """Raise CheckpointError unless every integer lies in 1…limit and every float is above 0."""
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if field.name in _LIMITS:
            top = _LIMITS[field.name]
            if type(value) is not int or not 1 <= value <= top:
                raise CheckpointError(
                    f"config.json: {field.name} must be a whole number from 1 to {top}, "
                    f"not {value!r}; is the file damaged?"
                )
        elif field.type in (float, "float") and not 0 < value < 1e12:
            raise CheckpointError(f"config.json: {field.name} must be above 0, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """The Llama-style decoder."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab_size: int
    head_dim: int
    rope_theta: float = 10_000.0
    rms_eps: float = 1e-6
    max_positions: int = 16_384

    def __post_init__(self) -> None:
        _check(self)
        if self.heads % self.kv_heads or self.head_dim % 2:
            raise CheckpointError(
                f"config.json: {self.heads} heads cannot share {self.kv_heads} key-value heads "
                f"of width {self.head_dim}"
            )


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The SigLIP-style understanding encoder; features are [n, (image_size/patch_size)², width]."""

    image_size: int = 384
    patch_size: int = 16
    width: int = 1024
    layers: int = 24
    heads: int = 16
    intermediate: int = 4096
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        _check(self)
        if self.image_size % self.patch_size or self.width % self.heads:
            raise CheckpointError(
                f"config.json: image_size {self.image_size} must divide by patch_size "
                f"{self.patch_size}, and width {self.width} by heads {self.heads}"
            )

    @property
    def tokens(self) -> int:
        """Features of one image."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, kw_only=True)
class VQConfig:
    """The VQ tokenizer of LlamaGen (FoundationVision/LlamaGen, VQ-16): pixels ↔ codes."""

    codebook_size: int = 16_384
    code_dim: int = 8
    latent_channels: int = 256
    base_channels: int = 128
    channel_multiplier: tuple[int, ...] = (1, 1, 2, 2, 4)
    res_blocks: int = 2

    def __post_init__(self) -> None:
        _check(self)
        levels = self.channel_multiplier
        if not 1 <= len(levels) <= 8 or any(type(m) is not int or not 1 <= m <= 64 for m in levels):
            raise CheckpointError(f"config.json: channel_multiplier is {levels!r}")
        if self.base_channels % 32:  # every GroupNorm has 32 groups
            raise CheckpointError(
                f"config.json: base_channels must be a multiple of 32, not {self.base_channels}"
            )

    @property
    def stride(self) -> int:
        """Pixels that one code covers on each side."""
        return int(2 ** (len(self.channel_multiplier) - 1))


@dataclass(frozen=True, kw_only=True)
class JanusConfig:
    """A whole model."""

    language: LanguageConfig
    vision: VisionConfig
    vq: VQConfig
    template: str = "pro"  # "pro" or "old": the roles and separators of prompts.py

    def __post_init__(self) -> None:
        if self.vision.image_size % self.vq.stride:
            raise CheckpointError(
                f"config.json: image_size {self.vision.image_size} does not divide by the "
                f"{self.vq.stride} pixels of a code"
            )
        if self.template not in ("pro", "old"):
            raise CheckpointError(
                f"config.json: template must be pro or old, not {self.template!r}"
            )

    @property
    def side(self) -> int:
        """Codes along one side of a picture: 24."""
        return self.vision.image_size // self.vq.stride

    @property
    def codes(self) -> int:
        """Codes of one picture: 576."""
        return self.side**2

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "JanusConfig":
        """Read config.json of either published layout.

        Raises CheckpointError for another model_type, for JanusFlow, and for values out of range.
        """
        kind = data.get("model_type")
        try:
            if kind == "janus":
                return _from_hf(data)
            if kind == "multi_modality":
                if "vision_und_enc_config" in data:
                    raise CheckpointError(
                        "config.json: this is a JanusFlow checkpoint, which janus_kit does not "
                        "support yet; Janus-1.3B, Janus-Pro-1B and Janus-Pro-7B are"
                    )
                return _from_original(data)
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise CheckpointError(f"config.json: an entry is missing or wrong ({error})") from error
        raise CheckpointError(
            f"config.json: model_type is {kind!r}, not 'janus' or 'multi_modality'; "
            "is this a Janus checkpoint?"
        )

    def to_dict(self, *, image_token_id: int, dtype: str) -> dict[str, Any]:
        """config.json of the HF layout, as transformers' JanusConfig reads it."""
        text, vision, vq = self.language, self.vision, self.vq
        return {
            "architectures": ["JanusForConditionalGeneration"],
            "model_type": "janus",
            "dtype": dtype,
            "image_token_id": image_token_id,
            # transformers ties the text head to the embedding unless told otherwise.
            "tie_word_embeddings": False,
            "text_config": {
                "model_type": "llama",
                "hidden_size": text.hidden,
                "num_hidden_layers": text.layers,
                "num_attention_heads": text.heads,
                "num_key_value_heads": text.kv_heads,
                "head_dim": text.head_dim,
                "intermediate_size": text.intermediate,
                "vocab_size": text.vocab_size,
                "max_position_embeddings": text.max_positions,
                "rms_norm_eps": text.rms_eps,
                "rope_theta": text.rope_theta,
                "rope_parameters": {"rope_type": "default", "rope_theta": text.rope_theta},
                "hidden_act": "silu",
                "attention_bias": False,
                "mlp_bias": False,
                "tie_word_embeddings": False,
            },
            "vision_config": {
                "model_type": "janus_vision_model",
                "hidden_size": vision.width,
                "num_hidden_layers": vision.layers,
                "num_attention_heads": vision.heads,
                "image_size": vision.image_size,
                "patch_size": vision.patch_size,
                "mlp_ratio": _ratio(vision.intermediate, vision.width),
                "layer_norm_eps": vision.norm_eps,
                "hidden_act": "gelu",
                "projection_dim": text.hidden,
                "depth": 2,
                "num_image_tokens": vision.tokens,
            },
            "vq_config": {
                "model_type": "janus_vqgan",
                "embed_dim": vq.code_dim,
                "num_embeddings": vq.codebook_size,
                "latent_channels": vq.latent_channels,
                "base_channels": vq.base_channels,
                "channel_multiplier": list(vq.channel_multiplier),
                "num_res_blocks": vq.res_blocks,
                "num_patches": self.side,
                "projection_dim": text.hidden,
                "image_token_embed_dim": text.hidden,
            },
            "janus_kit": {"template": self.template},
        }


def _ratio(intermediate: int, width: int) -> float:
    """The factor that makes intermediate of width when the product is cut to a whole number."""
    ratio = intermediate / width
    if int(width * ratio) < intermediate:
        ratio = math.nextafter(ratio, math.inf)
    return ratio


def _language(data: Mapping[str, Any]) -> LanguageConfig:
    """A Llama config; what it leaves out has Llama's own defaults.

    Janus-Pro-7B's published config states only layers, vocabulary and positions.
    """
    heads = data.get("num_attention_heads", 32)
    hidden = data.get("hidden_size", 4096)
    rope = data.get("rope_parameters") or {}
    for key, plain in (("attention_bias", False), ("mlp_bias", False), ("hidden_act", "silu")):
        if data.get(key, plain) != plain:
            raise CheckpointError(f"config.json: {key} is {data[key]!r}; Janus has {plain!r}")
    scaling = data.get("rope_scaling")
    if scaling or rope.get("rope_type", "default") != "default":
        raise CheckpointError(f"config.json: rope scaling {scaling or rope} is not a Janus model's")
    return LanguageConfig(
        hidden=hidden,
        layers=data.get("num_hidden_layers", 32),
        heads=heads,
        kv_heads=data.get("num_key_value_heads") or heads,
        head_dim=data.get("head_dim") or hidden // heads,
        intermediate=data.get("intermediate_size", 11_008),
        vocab_size=data["vocab_size"],
        rope_theta=float(rope.get("rope_theta", data.get("rope_theta", 10_000.0))),
        rms_eps=float(data.get("rms_norm_eps", 1e-6)),
        max_positions=data.get("max_position_embeddings", 16_384),
    )


def _from_hf(data: Mapping[str, Any]) -> JanusConfig:
    text, vision, vq = data["text_config"], data["vision_config"], data["vq_config"]
    language = _language(text)
    width = vision.get("hidden_size", 1024)
    for name, part, key in (
        ("vision_config", vision, "projection_dim"),
        ("vq_config", vq, "projection_dim"),
        ("vq_config", vq, "image_token_embed_dim"),
    ):
        if part.get(key, 2048) != language.hidden:
            raise CheckpointError(
                f"config.json: {name}.{key} is {part.get(key, 2048)!r}, "
                f"but text_config.hidden_size is {language.hidden}"
            )
    for part, key, plain in (
        (vision, "depth", 2),
        (vision, "use_qk_norm", False),
        (vision, "attention_bias", True),
        (vision, "hidden_act", "gelu"),
        (vq, "num_hidden_layers", 2),
        (vq, "double_latent", False),
        (vq, "hidden_act", "gelu"),
    ):
        if part.get(key, plain) != plain:
            raise CheckpointError(f"config.json: {key} is {part[key]!r}; Janus has {plain!r}")
    return JanusConfig(
        language=language,
        vision=VisionConfig(
            image_size=vision.get("image_size", 384),
            patch_size=vision.get("patch_size", 16),
            width=width,
            layers=vision.get("num_hidden_layers", 24),
            heads=vision.get("num_attention_heads", 16),
            intermediate=int(width * vision.get("mlp_ratio", 4.0)),
            norm_eps=float(vision.get("layer_norm_eps", 1e-6)),
        ),
        vq=VQConfig(
            codebook_size=vq.get("num_embeddings", 16_384),
            code_dim=vq.get("embed_dim", 8),
            latent_channels=vq.get("latent_channels", 256),
            base_channels=vq.get("base_channels", 128),
            channel_multiplier=tuple(vq.get("channel_multiplier", (1, 1, 2, 2, 4))),
            res_blocks=vq.get("num_res_blocks", 2),
        ),
        template=data.get("janus_kit", {}).get("template", "pro"),
    )


def _from_original(data: Mapping[str, Any]) -> JanusConfig:
    language = _language(data["language_config"])
    vision = data["vision_config"]["params"]
    codes = data["gen_vision_config"]["params"]
    if vision.get("model_name", "siglip_large_patch16_384") != "siglip_large_patch16_384":
        raise CheckpointError(f"config.json: vision model {vision['model_name']!r} is not Janus's")
    for key in ("aligner_config", "gen_aligner_config", "gen_head_config"):
        width = data[key]["params"]["n_embed"]
        if width != language.hidden:
            raise CheckpointError(
                f"config.json: {key}.n_embed is {width}, but the language model's width is "
                f"{language.hidden}"
            )
    # Only Janus-1.3B's config asks for flash attention; older copies of its processor_config.json
    # name Pro's template (deepseek-ai/Janus issue 5), so either mark suffices: see checkpoint.py.
    old = data["language_config"].get("_attn_implementation") == "flash_attention_2"
    return JanusConfig(
        language=language,
        vision=VisionConfig(image_size=vision.get("image_size", 384)),
        vq=VQConfig(
            codebook_size=codes.get("image_token_size", 16_384), code_dim=codes.get("n_embed", 8)
        ),
        template=data.get("janus_kit", {}).get("template", "old" if old else "pro"),
    )


def _janus(hidden: int, layers: int, heads: int, intermediate: int, template: str) -> JanusConfig:
    language = LanguageConfig(
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=128,
        intermediate=intermediate,
        vocab_size=102_400,
    )
    return JanusConfig(language=language, vision=VisionConfig(), vq=VQConfig(), template=template)


PRESETS: Mapping[str, JanusConfig] = {
    "janus-1.3b": _janus(2048, 24, 16, 5632, "old"),
    "janus-pro-1b": _janus(2048, 24, 16, 5632, "pro"),
    "janus-pro-7b": _janus(4096, 30, 32, 11_008, "pro"),
    # Small enough to train on two CPU cores in two hours and to ship in the package.
    "tiny": JanusConfig(
        language=LanguageConfig(
            hidden=256,
            layers=5,
            heads=4,
            kv_heads=4,
            head_dim=64,
            intermediate=576,
            vocab_size=1024,
            max_positions=4096,
            # One of the angles then turns once in a row of 24 codes: a model can tell columns.
            rope_theta=(24 / math.tau) ** 8,
        ),
        vision=VisionConfig(width=192, layers=4, heads=6, intermediate=576),
        vq=VQConfig(
            codebook_size=11264,
            code_dim=56,  # so that a code's vector says what it looks like, see quantizer.py
            # 64, because 32 groups of one channel each would lose a picture's absolute colours.
            base_channels=64,
            latent_channels=64,
            channel_multiplier=(1, 1, 1, 2, 2),
            res_blocks=1,
        ),
    ),
}
