"""Weight files → named tensors, known from the files' headers and read when asked for.

Reads safetensors, and the files of torch.save, which are never allowed to run code. A file that
is not whole is refused by name before anything is read.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from janus_kit.cache import recall, remember
from janus_kit.errors import CheckpointError

__all__ = [
    "DTYPES",
    "INDEX",
    "WEIGHTS",
    "Stored",
    "checksum",
    "fingerprint",
    "read_generation",
    "read_json",
    "some",
    "stored_tensors",
    "weight_files",
]

WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")  # the first that is there is read
INDEX: Final = ".index.json"  # behind one of these names: the list of the parts of a divided file
DTYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
LARGE: Final = 2**28  # bytes of weights from which on it pays to keep what was found out
_AGAIN: Final = "download it again"


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, known from the header alone."""

    file: Path
    dtype: str  # a key of DTYPES, or another name for what no model can use
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    map: Callable[[], Tensor]  # as read, where a file allows it without a copy


def fingerprint(folder: Path, *more: object) -> str:
    """Names the weights of a folder as they are now, by place, size and time, and more: 32 letters.

    More is what JSON can write.
    """
    files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in weight_files(folder)]
    about = json.dumps([str(folder.resolve()), files, *more])
    return hashlib.sha256(about.encode()).hexdigest()[:32]


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights, all of them there; safetensors before pickles."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        if (folder / (name + INDEX)).is_file():
            return _parts(folder / (name + INDEX))
    for name in WEIGHTS:
        stem, _, suffix = name.partition(".")
        if parts := sorted(path.name for path in folder.glob(f"{stem}-*-of-*.{suffix}")):
            raise CheckpointError(
                f"{folder}: {name}{INDEX} is missing, the list of parts such as {parts[0]}; "
                "download it too"
            )
    raise CheckpointError(f"{folder}: no weights, neither {' nor '.join(WEIGHTS)}; download them")


def _parts(index: Path) -> list[Path]:
    """The files that an index names; they lie beside it, so it cannot point elsewhere."""
    weight_map = read_json(index).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names:
        raise CheckpointError(f"{index}: its weight_map names no files; {_AGAIN}")
    suffix = index.name.removesuffix(INDEX).rpartition(".")[2]
    for name in names:
        if not (isinstance(name, str) and re.fullmatch(rf"\w[\w.-]*\.{suffix}", name)):
            raise CheckpointError(
                f"{index}: {name!r} is not the plain name of a .{suffix} file; {_AGAIN}"
            )
    files = [index.parent / name for name in sorted(set(names))]
    if missing := [path.name for path in files if not path.is_file()]:
        raise CheckpointError(
            f"{index}: {len(missing)} of its {len(files)} files are not there; "
            f"download {', '.join(missing)}"
        )
    return files


def checksum(folder: Path) -> str:
    """SHA-256 of a folder's weights, in hex: that of the one file, as model hubs show it.

    Of several files, that of what sha256sum prints for them. That of large ones is kept in the
    cache until they change.
    """
    files = weight_files(folder)
    large = sum(path.stat().st_size for path in files) >= LARGE
    mark = fingerprint(folder) if large else ""
    if large and (known := recall("sha256", mark)):
        return known
    sums = {path.name: _sha256(path) for path in files}
    found = next(iter(sums.values()))
    if len(sums) > 1:
        listing = "".join(f"{value}  {name}\n" for name, value in sums.items())
        found = hashlib.sha256(listing.encode()).hexdigest()
    if large:
        remember("sha256", mark, found)
    return found


def _sha256(path: Path) -> str:
    """A file's SHA-256; a hub's cache links to files of that name, which saves reading them."""
    if path.is_symlink() and re.fullmatch("[0-9a-f]{64}", path.resolve().name):
        return path.resolve().name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds, which must be an object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error}); {_AGAIN}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: not a JSON object; {_AGAIN}")
    return data


def read_generation(folder: Path) -> dict[str, Any]:
    """What a folder's generation_config.json says, nothing where there is none.

    Raises CheckpointError for one that is no JSON object.
    """
    path = folder / "generation_config.json"
    return read_json(path) if path.exists() else {}


def some(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def stored_tensors(path: Path) -> dict[str, Stored]:
    """The tensors of a file by name; raises CheckpointError unless the file is whole."""
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if not start:
        raise CheckpointError(f"{path}: the file is empty, 0 bytes; {_AGAIN}")
    if start.startswith(b"version https://git-lfs"):
        size = re.search(rb"^size (\d+)", start, re.MULTILINE)
        real = f"{int(size[1])} bytes" if size else "the weights"
        raise CheckpointError(
            f"{path}: {path.stat().st_size} bytes in place of {real}: a git-lfs pointer, "
            "download the real file"
        )
    return _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)


def _safetensors(path: Path) -> dict[str, Stored]:
    try:
        with safe_open(path, "pt"):  # checks the header, and that it describes the whole file
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: {_damage(path, error)}; {_AGAIN}") from error
    header, start = _header(path)
    stored = {}
    for name, entry in header.items():
        kind, shape = entry["dtype"], tuple(entry["shape"])
        read = partial(_read, path, start + entry["data_offsets"][0], kind, shape)
        mapped = partial(_map, path, start + entry["data_offsets"][0], kind, shape)
        stored[name] = Stored(path, kind, shape, read, mapped)
    return stored


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and the place where its data starts."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def _damage(path: Path, error: Exception) -> str:
    """Why a safetensors file was refused, with the expected and the found size if known."""
    found = path.stat().st_size
    with path.open("rb") as file:
        wanted = 8 + (int.from_bytes(file.read(8), "little") if found >= 8 else 0)
    if wanted > 100_000_000:  # the longest header that safetensors allows
        return f"not a safetensors file ({error})"
    if found >= wanted:
        try:
            header, start = _header(path)
            wanted = start + max(entry["data_offsets"][1] for entry in header.values())
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return f"not a safetensors file ({error})"
    if found == wanted:
        return f"not a safetensors file ({error})"
    return f"cut off or changed: {found} bytes, but its header asks for {wanted}"


def _read(path: Path, start: int, kind: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of a safetensors file, in memory of its own.

    A plain read, because a mapped file that is cut off meanwhile would kill the process.
    """
    data = bytearray(prod(shape) * DTYPES[kind].itemsize)
    with path.open("rb") as file:
        file.seek(start)
        if file.readinto(data) < len(data):
            raise CheckpointError(f"{path}: it became shorter while it was read; {_AGAIN}")
    return torch.frombuffer(data, dtype=DTYPES[kind]).reshape(shape)


def _map(path: Path, start: int, kind: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of a safetensors file where it lies; the file must not be cut off later.

    Pages are read as they are used, and copied if they are written to.
    """
    dtype = DTYPES[kind]
    if start % dtype.itemsize or not prod(shape):
        return _read(path, start, kind, shape)
    held: Any = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
    empty = torch.empty(0, dtype=dtype)
    return empty.set_(held, start // dtype.itemsize, (prod(shape),), (1,)).reshape(shape)


def _pickled(path: Path) -> dict[str, Stored]:
    """The tensors of a file by torch.save; they stay on the disk until they are read."""
    try:
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        what = f"code ({code[1]})" if code else "more than tensors"
        raise CheckpointError(f"{path}: refused: contains {what}; do not trust it") from error
    except Exception as error:
        why = re.split(r"\. |\n", str(error))[0][:200]
        raise CheckpointError(
            f"{path}: {path.stat().st_size} bytes that are no whole file of torch.save ({why}); "
            f"{_AGAIN}"
        ) from error
    kinds = {dtype: kind for kind, dtype in DTYPES.items()}
    stored = {}
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: holds a {type(data).__name__} in place of named tensors")
    for name, tensor in data.items():
        if not (isinstance(tensor, Tensor) and tensor.layout == torch.strided):
            raise CheckpointError(f"{path}: '{name}' is no plain tensor, but {type(tensor)}")
        kind = kinds.get(tensor.dtype, str(tensor.dtype))
        stored[str(name)] = Stored(path, kind, tuple(tensor.shape), tensor.detach, tensor.detach)
    return stored
