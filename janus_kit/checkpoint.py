"""Folder ↔ Janus. Names, shapes and dtypes are checked before memory is taken for a model.

Reads both published layouts (names.py) from whole files (storage.py); writes Hugging Face's
layout, which transformers reads too.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor

from janus_kit.cache import recall, remember
from janus_kit.config import JanusConfig
from janus_kit.errors import CheckpointError, OptionError
from janus_kit.generation.native import Packed
from janus_kit.linears import Stacked, Unfilled
from janus_kit.model import Janus
from janus_kit.names import HUGGING_FACE, Piece, is_leftover, pieces
from janus_kit.settings import write_json, write_settings
from janus_kit.storage import (
    DTYPES,
    INDEX,
    WEIGHTS,
    Stored,
    checksum,
    fingerprint,
    read_generation,
    read_json,
    some,
    stored_tensors,
    weight_files,
)
from janus_kit.variants import (
    PACKED,
    PARTS,
    Absent,
    HostEmbedding,
    PackedFile,
    Variant,
    is_quantized,
)

__all__ = ["checksum", "convert", "load", "read_config", "save"]

MAPPED: Final = 2**28  # bytes of weights from which on they are mapped, not read
SHARD: Final = 5 * 2**30  # bytes of a file of weights, as transformers divides them
_TEMPORARY: Final = ".janus-model-"  # folders being written; one that stays behind is from a crash


def load(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    verify: bool = True,
    variant: Variant | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> tuple[Janus, JanusConfig]:
    """The model of a folder in either layout; dtype None takes that of the weights.

    Weights of MAPPED bytes and more stay in their file where device and dtype allow it. Raises
    CheckpointError unless the folder holds a whole Janus. verify also looks for NaN and Inf, in
    weights that stay in their file once: a note in the cache says that they were sound. With
    variant.host the embeds of text are read into memory, wherever device is. given: parameters of
    ours that stand in place of those of the folder, where dtype and shape are the same.
    """
    variant = variant or Variant()
    source = _Source.open(folder)
    mark = f"{source.mark}-{variant.components}-{variant.bits or 'plain'}"
    dtype = dtype or source.dtype
    packed = PackedFile(folder, variant.bits) if variant.bits else None
    size = sum(path.stat().st_size for path in weight_files(folder))
    mapped = device.type == "cpu" and dtype == source.dtype and size >= MAPPED
    mapped &= variant.mapped
    verify &= not (mapped and recall("sound", mark) is not None)
    model = source.model
    for name in PARTS[variant.components]:
        _replace(model, name, Absent(variant.components))
    home = {}
    if variant.host:
        home["language.embed.weight"] = torch.device("cpu")
        table = model.language.embed.weight
        rows, width = table.shape
        _replace(model, "language.embed", HostEmbedding(rows, width, _weight=table))
    state = {}
    for name, parts in source.plan.items():
        if variant.skips(name):
            continue
        module, _, last = name.rpartition(".")
        if packed is not None and PACKED.fullmatch(name):
            matrix = packed.get(name, source.shapes[name])
            if matrix is None:
                weight = source.parameter(name, device, source.dtype, verify)
                matrix = packed.pack(name, weight)
            # Its bias, which is read as the others are, finds its place in it below.
            linear: Any = model.get_submodule(module)
            matrix.bias = linear.bias
            _replace(model, module, matrix)
        elif mapped and len(parts) > 1 and last == "weight" and name.startswith("language."):
            pieces = [source.piece(piece, verify) for piece in parts]
            _replace(model, module, Stacked(pieces))
        elif given and name in given and _like(given[name], source.shapes[name], dtype):
            state[name] = given[name]
        else:
            state[name] = source.parameter(name, home.get(name, device), dtype, verify, mapped)
    if packed is not None:
        packed.write()
    model.load_state_dict(state, strict=False, assign=True)
    assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))
    if mapped and verify and not (packed and packed.found):  # of which nobody has seen the weights
        remember("sound", mark)
    return model, model.config


def _like(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    return tuple(tensor.shape) == shape and tensor.dtype == dtype


def _replace(model: Janus, name: str, module: torch.nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def save(
    model: Janus,
    folder: Path,
    *,
    tokenizer_folder: Path,
    draws: Mapping[str, float] | None = None,
    shard: int = SHARD,
) -> None:
    """Write model, and the tokenizer of another folder, into folder; a model there is replaced.

    draws: guidance_scale and temperature at which it draws best, for its generation_config.json.

    Raises OptionError for a model that is not whole or whose weights are quantized or offloaded.
    """
    odd = any(isinstance(module, Absent | Packed) for module in model.modules())
    if odd or model.held or any(map(is_quantized, model.parameters())):
        raise OptionError("only a whole model in its own dtype can be saved; load it plainly first")
    state = model.state_dict()
    with _replaced(folder) as new:
        write_settings(new, model.config, model.dtype, tokenizer_folder, draws or {})
        _write_weights(new, model, model.dtype, lambda name: state[name].cpu(), shard)


def convert(source: Path, target: Path, *, shard: int = SHARD) -> None:
    """Write the model of source, in either layout, into the new or empty folder target.

    Memory holds one shard at a time.
    """
    if target.exists() and not target.is_dir():
        raise OptionError(f"{target}: not a folder; choose a new one")
    if target.exists() and any(not p.name.startswith(_TEMPORARY) for p in target.iterdir()):
        raise OptionError(f"{target}: the folder is not empty; choose a new one")
    old, cpu = _Source.open(source), torch.device("cpu")
    with _replaced(target) as new:
        said = read_generation(source)
        draws = {name: said[name] for name in said if name in ("guidance_scale", "temperature")}
        write_settings(new, old.model.config, old.dtype, source, draws)
        _write_weights(
            new,
            old.model,
            old.dtype,
            lambda name: old.parameter(name, cpu, old.dtype, verify=True),
            shard,
        )


@dataclass(frozen=True)
class _Source:
    """A folder that was found whole; any of our parameters can be read from it."""

    model: Janus  # on the meta device: shapes without memory
    plan: Mapping[str, tuple[Piece, ...]]
    stored: Mapping[str, Stored]
    dtype: torch.dtype  # the narrowest that holds all of the weights
    shapes: Mapping[str, tuple[int, ...]]  # of our parameters
    mark: str  # the fingerprint of the weights from before they were read

    @classmethod
    def open(cls, folder: Path) -> "_Source":
        """Read config.json and all headers; raise CheckpointError unless they fit together."""
        config, layout = read_config(folder)
        mark = fingerprint(folder)
        stored: dict[str, Stored] = {}
        for path in weight_files(folder):
            found = stored_tensors(path)
            if twice := sorted(stored.keys() & found):
                raise CheckpointError(
                    f"{path}: {stored[twice[0]].file.name} holds {some(twice)} too; "
                    "download the files again"
                )
            stored |= found
        with torch.device("meta"), Unfilled():
            model = Janus(config)
        plan = pieces(model, layout)
        wanted = {piece.name: piece for parts in plan.values() for piece in parts}
        _check(folder, wanted, stored)
        dtypes = {DTYPES[stored[name].dtype] for name in wanted}
        shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        return cls(model, plan, stored, reduce(torch.promote_types, dtypes), shapes, mark)

    def parameter(
        self,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        verify: bool,
        mapped: bool = False,
    ) -> Tensor:
        """One of our parameters: its pieces, read into a tensor that is made once, or mapped."""
        if mapped and len(self.plan[name]) == 1:
            return self.piece(self.plan[name][0], verify).reshape(self.shapes[name])
        tensor = torch.empty(self.shapes[name], device=device, dtype=dtype)
        for piece in self.plan[name]:
            rows = tensor[piece.rows]
            rows.copy_(self.stored[piece.name].read().reshape(rows.shape))
            if verify:
                self._verify(piece, rows)
        return tensor

    def piece(self, piece: Piece, verify: bool) -> Tensor:
        """A piece where it lies in its file."""
        tensor = self.stored[piece.name].map()
        if verify:
            self._verify(piece, tensor)
        return tensor

    def _verify(self, piece: Piece, rows: Tensor) -> None:
        # One pass over the numbers; a sum may also overflow, so what it says is confirmed.
        if not rows.sum().isfinite() and not rows.isfinite().all():
            raise CheckpointError(
                f"{self.stored[piece.name].file}: '{piece.name}' holds NaN or infinite numbers as "
                f"{rows.dtype}; download it again"
            )


def read_config(folder: Path) -> tuple[JanusConfig, str]:
    """The shapes of a folder's model, and its layout; CheckpointError if it is no Janus."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; a model folder needs its config.json")
    data = read_json(path)
    try:
        config = JanusConfig.from_dict(data)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}/{error}") from error
    processor = folder / "processor_config.json"
    # "deepseek" says nothing: older copies of Janus-1.3B have it too, as Janus-Pro has.
    if (
        "template" not in data.get("janus_kit", {})
        and processor.is_file()
        and read_json(processor).get("sft_format") == "deepseek_old"
    ):
        config = replace(config, template="old")
    return config, data["model_type"]


def _check(folder: Path, wanted: Mapping[str, Piece], stored: Mapping[str, Stored]) -> None:
    """Raise CheckpointError unless the files hold exactly what the model wants."""
    if missing := [name for name in wanted if name not in stored]:
        raise CheckpointError(
            f"{folder}: the weights lack {some(missing)}; do they belong to this config.json?"
        )
    if odd := [name for name in stored if name not in wanted and not is_leftover(name)]:
        raise CheckpointError(
            f"{stored[odd[0]].file}: the model has no place for {some(odd)}; "
            "do the weights belong to this config.json?"
        )
    for name, piece in wanted.items():
        found = stored[name]
        if found.shape != piece.shape:
            raise CheckpointError(
                f"{found.file}: '{name}' has the shape {list(found.shape)}, but config.json wants "
                f"{list(piece.shape)}; do the weights belong to it?"
            )
        if found.dtype not in DTYPES:
            raise CheckpointError(
                f"{found.file}: '{name}' is {found.dtype}, not one of {', '.join(DTYPES)}; "
                "quantized weights cannot be loaded"
            )


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder; when all is written, its files take the place of a model in folder.

    config.json goes first and comes last, so that a folder which has one holds a whole model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path)
    with TemporaryDirectory(dir=folder, prefix=_TEMPORARY) as temporary:
        new = Path(temporary)
        yield new
        (folder / "config.json").unlink(missing_ok=True)
        for name in WEIGHTS:
            stem, _, suffix = name.partition(".")
            parts = folder.glob(f"{stem}-*-of-*.{suffix}")
            for old in (folder / name, folder / (name + INDEX), *parts):
                old.unlink(missing_ok=True)
        for path in sorted(new.iterdir(), key=lambda path: path.name == "config.json"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.replace(folder / path.name)


def _write_weights(
    new: Path, model: Janus, dtype: torch.dtype, parameter: Callable[[str], Tensor], shard: int
) -> None:
    """Write every parameter, under its published names and as dtype, in files of about shard."""
    with torch.device("meta"), Unfilled():
        plain = Janus(model.config)  # a model that is read may hold its matrices in pieces
    plan = pieces(plain, HUGGING_FACE)
    files: list[list[str]] = [[]]
    size = total = 0
    for name in plan:
        more = plain.get_parameter(name).numel() * dtype.itemsize
        if files[-1] and size + more > shard:
            files.append([])
            size = 0
        files[-1].append(name)
        size += more
        total += more
    weight_map: dict[str, str] = {}
    stem, _, suffix = WEIGHTS[0].partition(".")
    for number, names in enumerate(files, 1):
        part = f"{stem}-{number:05}-of-{len(files):05}.{suffix}" if len(files) > 1 else WEIGHTS[0]
        tensors: dict[str, Tensor] = {}
        for name in names:
            tensor = parameter(name).to(dtype).contiguous()
            tensors |= {piece.name: tensor[piece.rows] for piece in plan[name]}
        save_file(tensors, new / part, metadata={"format": "pt"})
        (new / part).chmod(0o644)  # safetensors writes for the owner alone
        weight_map |= dict.fromkeys(tensors, part)
    if len(files) > 1:
        write_json(
            new / (WEIGHTS[0] + INDEX),
            {"metadata": {"total_size": total}, "weight_map": weight_map},
        )
