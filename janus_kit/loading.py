"""Where a model is and where it goes: ids and folders, devices and dtypes."""

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch

from janus_kit import checkpoint, graphs, variants
from janus_kit.errors import CheckpointError, DeviceError, OptionError
from janus_kit.generation.sampling import SamplingOptions
from janus_kit.model import Janus
from janus_kit.storage import read_generation
from janus_kit.variants import Variant

__all__ = [
    "EMBEDDED",
    "device_of",
    "digest",
    "drawing_defaults",
    "dtype_of",
    "find",
    "locate",
    "move",
    "open_model",
    "version",
]

EMBEDDED = "janus-kit-embedded"

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}


@cache
def version() -> str:
    """The version of janus_kit."""
    return metadata.version("janus-kit")


def digest(folder: Path, quantization: str | None) -> str:
    """What names a model's numbers: ten digits of the weights' sha256, and "-int8" behind them."""
    return checkpoint.checksum(folder)[:10] + (f"-{quantization}" if quantization else "")


def drawing_defaults(folder: Path) -> SamplingOptions:
    """How a model draws unless told: guidance and temperature of its generation_config.json.

    They are guidance_scale and temperature there, as transformers has them; what it does not say is
    as published, 5 and 1. Raises CheckpointError for a value that cannot be one.
    """
    said = read_generation(folder)
    given = {"guidance": said.get("guidance_scale"), "temperature": said.get("temperature")}
    try:
        return SamplingOptions(**{k: v for k, v in given.items() if v is not None})
    except OptionError as error:
        raise CheckpointError(f"{folder}/generation_config.json: {error}") from None


def find(
    id_or_folder: str | os.PathLike[str] | None,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | None = None,
) -> tuple[Path, str]:
    """The folder of a model and its name; a hub id is downloaded first.

    Raises CheckpointError when there is neither such a folder nor such an id.
    """
    if id_or_folder is None:
        return Path(str(resources.files("janus_kit.weights"))), EMBEDDED
    text = os.fspath(id_or_folder)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder, folder.resolve().name
    is_id = text.count("/") <= 1 and not text.startswith((".", "/", "~")) and "\\" not in text
    if not is_id or folder.exists() or isinstance(id_or_folder, os.PathLike) or "/" not in text:
        raise CheckpointError(
            f"{text}: no such folder; give a model's folder or a hub id such as "
            "deepseek-community/Janus-Pro-1B"
        )
    return _download(text, revision, local_files_only, token), text


def locate(given: Mapping[str, Any]) -> tuple[Path, tuple[str, str]]:
    """A model's folder, and its name with its digest, without loading it.

    given: model, revision and quantization, as the command line has them.
    """
    folder, name = find(given["model"], revision=given["revision"])
    return folder, (name, digest(folder, given["quantization"]))


def _download(repository: str, revision: str | None, local: bool, token: str | None) -> Path:
    from huggingface_hub import constants, snapshot_download

    # The root of all errors of the HTTP client, which is httpx or httpx2.
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    def fetch(*patterns: str) -> Path:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                local_files_only=local,
                token=token,
                allow_patterns=["*.json", "*.jinja", *patterns],
            )
        )

    try:
        checkpoint.read_config(fetch())  # refuses another model before its weights are fetched
        folder = fetch("*.safetensors")
        # deepseek-ai's own Janus-Pro repositories hold .bin files only.
        return folder if any(folder.glob("*.safetensors")) else fetch("*.bin")
    except HFValidationError as error:
        raise CheckpointError(f"{repository}: neither a folder nor a hub id ({error})") from error
    # A SOCKS proxy without its package is an ImportError; hf_xet raises RuntimeError.
    except (HTTPError, ImportError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if constants.HF_HUB_OFFLINE:
            remedy = "unset HF_HUB_OFFLINE to fetch it"
        elif local:
            remedy = "leave local_files_only out to fetch it"
        else:
            remedy = (
                "check the id and the network, or set HF_HUB_OFFLINE=1 to use only what is cached"
            )
        raise CheckpointError(
            f"{repository}: no such folder, and it could not be fetched from the hub ({reason}); "
            f"{remedy}"
        ) from error


def device_of(device: str | torch.device) -> torch.device:
    """A device that is there; "auto" takes CUDA, then MPS, then the CPU. Raises DeviceError."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"device must be auto, cpu, cuda, cuda:N or mps, not {device!r}"
        ) from error
    there = {
        "cpu": True,
        "meta": False,
        "cuda": torch.cuda.is_available() and (found.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(found.type, False):
        raise DeviceError(f"device {device!s} is not there on this machine; try auto or cpu")
    return found


def dtype_of(dtype: str | torch.dtype, device: torch.device) -> torch.dtype | None:
    """A dtype by name; None means that of the weights. Raises DeviceError."""
    if dtype == "auto":
        # Half precision on a CPU is slow or coarse; elsewhere the published dtype is right.
        return torch.float32 if device.type == "cpu" else None
    found = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found not in _DTYPES.values():
        raise DeviceError(f"dtype must be auto, float32, bfloat16 or float16, not {dtype!s}")
    return found


def move(
    model: Janus,
    fixed: bool,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
) -> None:
    """Move a model to a device and a dtype; None leaves either as it is.

    fixed: its weights are packed. Packed ones have a layout of their device and scales of their own
    dtype, and offloaded ones come and go: such a model can only stay, or OptionError.
    """
    place = model.device if device is None else device_of(device)
    kind = None if dtype is None else dtype_of(dtype, place)
    if not (fixed or model.held):
        graphs.forget(model)
        model.to(place, kind)
        return
    here = place.type == model.device.type and place.index in (None, model.device.index)
    if not here or kind not in (None, model.dtype):
        wanted = str(kind or model.dtype).removeprefix("torch.")
        raise OptionError(
            "a quantized or offloaded model stays as it was loaded; load it again with "
            f"device={str(place)!r} and dtype={wanted!r}"
        )


def open_model(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype | None,
    verify: bool,
    variant: Variant,
) -> Janus:
    """A folder's model, ready to run on device. Raises as JanusPipeline.from_pretrained does."""
    variant.check(device)
    read, place, bits = variant, device, variant.quantization
    if variant.offload or (bits and device.type == "cuda"):  # both want modules of their own kind
        read, place = replace(variant, quantization=None, mapped=False), torch.device("cpu")
    if variant.components == "draw" and device.type == "cuda" and not variant.offload:
        read = replace(read, host=True)
    kept = variants.TorchaoFile(folder, bits) if bits and device.type == "cuda" else None
    model, _ = checkpoint.load(
        folder,
        device=place,
        dtype=dtype,
        verify=verify,
        variant=read,
        given=kept.found if kept else None,
    )
    model.eval().requires_grad_(False)
    if kept and bits:
        kept.made = variants.quantize_to(model, device, bits)
        kept.write()
    if variant.offload:
        variants.offload(model, device)
    model.compiled = variant.compile
    return model
