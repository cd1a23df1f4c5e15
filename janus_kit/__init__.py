"""janus_kit: run, judge and teach DeepSeek's Janus models.

from janus_kit import JanusPipeline
pipe = JanusPipeline.from_pretrained()
pipe("three red apples", seed=1).images[0].show()
"""

import os
from typing import TYPE_CHECKING, Any

# How often a waiting thread of GNU's OpenMP looks again before it sleeps; read once, when torch is
# loaded. Its own 300,000 keep a busy machine from its work (benchmarks/NOTES.md).
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "5000"

if TYPE_CHECKING:
    from janus_kit.batch.captions import caption_folder, caption_stream
    from janus_kit.batch.drawings import draw_file
    from janus_kit.batch.ledger import Shard
    from janus_kit.batch.run import Outcome
    from janus_kit.config import JanusConfig
    from janus_kit.drawing import DrawingOutput
    from janus_kit.errors import (
        BatchError,
        CheckpointError,
        DeviceError,
        GenerationError,
        ImageError,
        JanusKitError,
        OptionError,
        PromptError,
        ScoringError,
    )
    from janus_kit.imaging import load_image, make_image_grid
    from janus_kit.metadata import Settings, png_bytes, read_settings, save_png
    from janus_kit.model import Janus
    from janus_kit.pipeline import JanusPipeline

__all__ = [
    "BatchError",
    "CheckpointError",
    "DeviceError",
    "DrawingOutput",
    "GenerationError",
    "ImageError",
    "Janus",
    "JanusConfig",
    "JanusKitError",
    "JanusPipeline",
    "OptionError",
    "Outcome",
    "PromptError",
    "ScoringError",
    "Settings",
    "Shard",
    "caption_folder",
    "caption_stream",
    "draw_file",
    "load_image",
    "make_image_grid",
    "png_bytes",
    "read_settings",
    "save_png",
]

_HOMES = {
    "DrawingOutput": "drawing",
    "Janus": "model",
    "JanusConfig": "config",
    "JanusPipeline": "pipeline",
    "Outcome": "batch.run",
    "Settings": "metadata",
    "Shard": "batch.ledger",
    "caption_folder": "batch.captions",
    "caption_stream": "batch.captions",
    "draw_file": "batch.drawings",
    "load_image": "imaging",
    "make_image_grid": "imaging",
    "png_bytes": "metadata",
    "read_settings": "metadata",
    "save_png": "metadata",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that importing the package stays instant."""
    if name not in __all__:
        raise AttributeError(f"module 'janus_kit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"janus_kit.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
