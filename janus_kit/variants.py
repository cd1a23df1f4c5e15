"""Other ways to hold a model: fewer bits, fewer parts, or most of it off the device.

Packed weights are made tensor by tensor as a folder is loaded, and kept in a cache file:
$XDG_CACHE_HOME/janus_kit/quantized.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from janus_kit.cache import cache_home
from janus_kit.errors import JanusKitError, OptionError
from janus_kit.generation.native import BITS, Packed, available, free_memory, large
from janus_kit.options import needs
from janus_kit.storage import fingerprint

__all__ = [
    "PARTS",
    "Absent",
    "HostEmbedding",
    "PackedFile",
    "TorchaoFile",
    "Variant",
    "check_offered",
    "is_quantized",
    "measuring",
    "offload",
    "quantize_to",
]

log = logging.getLogger(__name__)

FOLDER: Final = "quantized"  # in the cache
SCHEME: Final = 1  # of packed files; another number where what is in them changes
# What files of the cache that are damaged, or a disk that is full, raise.
BROKEN: Final = (SafetensorError, OSError, RuntimeError, ValueError, EOFError, UnpicklingError)
# What is packed: every matrix that a decoder step reads.
PACKED: Final = re.compile(
    r"(language\.layers\.\d+\.(attention\.qkv|attention\.out|gate_up|down)"
    r"|code_head\.fc[12]|text_head)\.weight"
)
# What each choice of components leaves out.
PARTS: Final = {
    "all": (),
    "draw": ("vision", "vision_aligner", "text_head", "vq.encoder", "vq.to_code"),
    "understand": ("vq", "code_embed", "code_aligner", "code_head"),
}
MODES: Final = ("int8", "int4", "fp8")
# In a model's folder: {"model_hash": …, "refused": {mode: why}}, by what an evaluation has found.
GATE: Final = "quantization.json"

_measuring: ContextVar[bool] = ContextVar("measuring", default=False)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a model is to be held: arguments of JanusPipeline.from_pretrained, and what follows."""

    quantization: str | None = None
    components: str = "all"
    offload: str | None = None
    compile: bool = False
    mapped: bool = True  # whether large weights may stay in their file
    host: bool = False  # whether the embeds of text stay in memory, see HostEmbedding

    def __post_init__(self) -> None:
        if self.quantization not in (None, *MODES):
            raise OptionError(
                f"quantization must be int8, int4, fp8 or None, not {self.quantization!r}"
            )
        if self.components not in PARTS:
            raise OptionError(
                f"components must be all, draw or understand, not {self.components!r}"
            )
        if self.offload not in (None, "cpu"):
            raise OptionError(f"offload must be cpu or None, not {self.offload!r}")

    def check(self, device: torch.device) -> None:
        """Raise OptionError for what a device cannot do."""
        if self.quantization and device.type == "cpu":
            if self.quantization not in BITS:
                raise OptionError(
                    f"quantization={self.quantization!r} needs a GPU; a CPU has int8 and int4"
                )
            if not available():
                raise OptionError(
                    f"quantization={self.quantization!r} on a CPU needs the native step, which was "
                    "not built; install a C compiler and then janus-kit again"
                )
        elif self.quantization:
            self._check_gpu(device)
        if self.offload and device.type != "cuda":
            raise OptionError(f"offload='cpu' is for a GPU, not for {device.type}; leave it out")
        if self.offload and self.quantization:
            raise OptionError("offload and quantization do not go together; leave one out")
        if self.compile and (device.type != "cuda" or self.offload):
            raise OptionError("compile=True is for a GPU that holds the weights; leave it out")

    def _check_gpu(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise OptionError(
                f"quantization is for CPUs and GPUs of NVIDIA, not for {device.type}; leave it out"
            )
        needs("torchao", "gpu")
        if self.quantization == "fp8" and torch.cuda.get_device_capability(device) < (8, 9):
            raise OptionError(
                "quantization='fp8' needs a GPU of compute capability 8.9 or more; take int8"
            )

    @property
    def bits(self) -> int | None:
        """Of packed weights on a CPU."""
        return BITS.get(self.quantization or "")

    def skips(self, name: str) -> bool:
        """Whether a parameter is left out."""
        return any(name.startswith(part + ".") for part in PARTS[self.components])


@contextmanager
def measuring() -> Iterator[None]:
    """Have modes that a model refuses too, to see what they cost it."""
    token = _measuring.set(True)
    try:
        yield
    finally:
        _measuring.reset(token)


def check_offered(folder: Path, quantization: str | None, model_hash: Callable[[], str]) -> None:
    """Raise OptionError for a quantization that a model was found not to stand.

    What the folder says of other weights than its own does not count.
    """
    if quantization is None or _measuring.get():
        return
    try:
        said = json.loads((folder / GATE).read_text(encoding="utf-8"))
        why, about = said["refused"].get(quantization), said["model_hash"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s: cannot be read (%r); every quantization is offered", folder / GATE, error)
        return
    if why and about == model_hash():
        raise OptionError(
            f"quantization={quantization!r} is not offered for this model: {why}; "
            "take another, or leave it out"
        )


class Absent(nn.Module):
    """Stands where a part was left out; OptionError for whoever wants it."""

    def __init__(self, components: str) -> None:
        super().__init__()
        self._components = components

    def _refuse(self) -> OptionError:
        other = "ask about pictures" if self._components == "draw" else "draw"
        return OptionError(
            f"this model was loaded with components={self._components!r} and cannot {other}; "
            "load it with components='all'"
        )

    def forward(self, *args: Any, **options: Any) -> Any:
        raise self._refuse()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattr__(name)
        raise self._refuse()


class HostEmbedding(nn.Embedding):
    """An embedding whose table stays in the host's memory, wherever the rest of a model is.

    Who draws reads a few rows of it once a prompt, and it is 0.8 GB of a 7B model in bfloat16.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens.cpu(), self.weight).to(tokens.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "HostEmbedding":
        kind = fn(self.weight.data[:0]).dtype  # that of a move; its device is not for the table
        self.weight.data = self.weight.data.to(kind)
        return self


class _Kept:
    """What was made of one folder's weights: read where its file is there, else made and written.

    The file of what the folder held before goes when a new one is written.
    """

    suffix = "safetensors"

    def __init__(self, folder: Path, kind: str, *scheme: object) -> None:
        self.place = f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}-{kind}"
        self.name = f"{self.place}-{fingerprint(folder, SCHEME, *scheme)}.{self.suffix}"
        self.found: dict[str, Tensor] = {}
        self.made: dict[str, Tensor] = {}
        try:
            path = cache_home() / FOLDER / self.name
            if path.is_file():
                self.found = self._read(path)
        except (*BROKEN, JanusKitError) as error:
            log.warning("the packed weights cannot be read (%s); they are made again", error)

    def _read(self, path: Path) -> dict[str, Tensor]:
        return load_file(path)  # mapped: pages are read as they are used

    def _write(self, tensors: dict[str, Tensor], path: Path) -> None:
        save_file(tensors, path)

    def write(self) -> None:
        """Keep what was made, whole or not at all; a disk that is full stops nothing."""
        if not self.made:
            return
        partial = None
        try:
            path = cache_home() / FOLDER / self.name
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{self.name}.{os.getpid()}")
            self._write(self.found | self.made, partial)
            partial.replace(path)
            for old in set(path.parent.glob(f"{self.place}-*")) - {path}:
                old.unlink(missing_ok=True)
        except (*BROKEN, JanusKitError) as error:
            log.warning("the packed weights cannot be kept (%s); they are made anew", error)
            with suppress(OSError):
                if partial is not None:
                    partial.unlink()


class PackedFile(_Kept):
    """Packed weights of a CPU, kept for one folder.

    They stay mapped where copies of them would take half of the memory or more.
    """

    def __init__(self, folder: Path, bits: int) -> None:
        self.bits = bits
        super().__init__(folder, f"int{bits}")
        size = sum(tensor.nbytes for tensor in self.found.values())
        self.mapped = 2 * size > (free_memory() or 0)

    def get(self, name: str, shape: tuple[int, ...]) -> Packed | None:
        """The packed matrix of one of our parameters, if the file holds it."""
        packed, scale = (self.found.get(f"{name}.{part}") for part in ("packed", "scale"))
        n, k = shape
        if packed is None or scale is None:
            return None
        sizes = Packed.sizes(n, k, self.bits)
        if not _fits(packed, scale, sizes):
            return None
        if not self.mapped:
            packed = large(packed.nbytes).copy_(packed)
        return Packed(n, k, self.bits, packed, scale)

    def pack(self, name: str, weight: Tensor) -> Packed:
        """Pack a matrix and remember it for the file."""
        made = Packed.of(weight, self.bits)
        self.made |= {f"{name}.packed": made.packed, f"{name}.scale": made.scale}
        return made


class TorchaoFile(_Kept):
    """Matrices as torchao holds them on a GPU, kept for one folder and the versions in use.

    They are written by torch.save, as torchao's documentation has it; only tensors of its classes
    are read.
    """

    suffix = "pt"

    def __init__(self, folder: Path, quantization: str) -> None:
        super().__init__(folder, f"torchao-{quantization}", torch.__version__, version("torchao"))

    def _read(self, path: Path) -> dict[str, Tensor]:
        import torchao.quantization  # noqa: F401  # tells torch that its classes are safe

        # Mapped: pages are read as they go to the device.
        return dict(torch.load(path, map_location="cpu", mmap=True, weights_only=True))

    def _write(self, tensors: dict[str, Tensor], path: Path) -> None:
        torch.save(tensors, path)


def is_quantized(weight: Tensor) -> bool:
    """Whether a parameter is one of torchao's tensors."""
    return type(weight.data) is not Tensor


def _fits(packed: Tensor, scale: Tensor, sizes: tuple[int, tuple[int, ...]]) -> bool:
    return packed.shape == (sizes[0],) and scale.shape == sizes[1]


def quantize_to(model: nn.Module, device: torch.device, quantization: str) -> dict[str, Tensor]:
    """Move a model to a GPU, where the matrices of decoder steps become weight-only int8, int4 or
    fp8 by torchao, one after the other, so that it never holds two of them in full.

    Those that are so already only move; the names of the others, with what they have become, are
    returned. Raises OptionError for int4 of anything but bfloat16, which torch's kernel reads.
    """
    if quantization == "int4" and next(model.parameters()).dtype != torch.bfloat16:
        raise OptionError("quantization='int4' on a GPU needs dtype='bfloat16'; or take int8")
    from torchao.quantization import (
        Float8WeightOnlyConfig,
        Int4WeightOnlyConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

    configs = {
        "int8": Int8WeightOnlyConfig,
        # Tiles that a kernel of torch's own reads; other layouts need a package more.
        "int4": partial(Int4WeightOnlyConfig, int4_packing_format="tile_packed_to_4d"),
        "fp8": Float8WeightOnlyConfig,
    }
    plain = {
        name
        for name, weight in model.named_parameters()
        if PACKED.fullmatch(name) and not is_quantized(weight)
    }
    quantize_(
        model,
        configs[quantization](),
        device=device,
        filter_fn=lambda module, name: isinstance(module, nn.Linear) and f"{name}.weight" in plain,
    )
    weights = {name: model.get_parameter(name) for name in plain}
    return {name: weight.data for name, weight in weights.items() if is_quantized(weight)}


def offload(model: Any, device: torch.device) -> None:
    """Leave the weights in memory; each module's go to device while it works."""
    try:
        from accelerate import cpu_offload
    except ImportError as error:
        raise OptionError("offload='cpu' needs accelerate: pip install 'janus-kit[gpu]'") from error
    dtype = model.dtype
    cpu_offload(model, execution_device=device)
    model.held = (device, dtype)  # its parameters are now on the meta device
