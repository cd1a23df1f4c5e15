"""Paths as users name them → items in a fixed order: files, folders, globs, tars and tables."""

import glob
import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from janus_kit.batch.files import blocks, json_lines, reason, text_of
from janus_kit.batch.results import claimed
from janus_kit.batch.walk import shown, walk
from janus_kit.errors import BatchError, ImageError
from janus_kit.vision.images import MAX_BYTES

__all__ = ["Item", "Source", "check", "find", "is_dataset", "parquet", "read"]

# What people call pictures. Those that are not read end as failed, with the reason.
_READ = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib")
_REFUSED = (".tif", ".tiff", ".heic", ".heif", ".avif", ".svg", ".psd", ".eps", ".wmf", ".fpx")
_PICTURES = frozenset((*_READ, *_REFUSED))
_TABLES = (".parquet", ".jsonl")
_TARS = (".tar",)
_TEXTS = ("string", "large_string", "string_view")  # Arrow's kinds of a column of paths
_COLUMNS = ("image", "bytes", "jpg", "png", "file_name", "path", "file", "image_path")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes of a picture are."""

    path: str
    kind: str = "file"  # file, tar, parquet or dataset
    place: int = 0  # tar: offset; tables: row
    size: int = 0  # tar: bytes
    column: str = ""


@dataclass(frozen=True)
class _Choice:
    """What of the paths is wanted; see find."""

    recursive: bool
    pattern: str | None
    all_files: bool
    column: str | None
    skip: Path | None
    ext: str | None
    results: frozenset[str]  # patterns of the tables in skip

    def takes(self, file: str) -> bool:
        """Whether a file may be a picture, by its name."""
        folder, name = os.path.split(file)
        ending = os.path.splitext(name)[1]
        if ending.lower() in _PICTURES:
            return True
        if not self.all_files or ending == self.ext:
            return False
        written = any(fnmatch(name, result) for result in self.results)
        return not (written and self.skip and Path(folder).resolve() == self.skip.resolve())


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a run. Equal names are the same input; another stamp says that it changed."""

    name: str  # relative to the root of the inputs, as text_of writes it
    stamp: str
    source: Source


def find(
    paths: Sequence[str | os.PathLike[str]],
    *,
    recursive: bool = False,
    pattern: str | None = None,
    filelist: str | os.PathLike[str] | None = None,
    all_files: bool = False,
    column: str | None = None,
    skip: Path | None = None,
    ext: str | None = None,
) -> tuple[Path, list[Item]]:
    """The root that names are relative to, and the items, each once, in the order of the paths.

    A folder's files come in the order of their bytes; hidden ones, those in `skip`, the results of
    this run, and those in folders of other runs' results are left out. pattern: of the files in
    folders, such as *.jpg. all_files: those with any ending but ext, which captions have. Raises
    BatchError for a path that is not there, an input that cannot be read, or no picture at all.
    """
    named = [*_expand(paths), *_listed(filelist)]
    single = len(named) == 1
    if single and not os.path.lexists(named[0]):
        raise BatchError(f"{shown(named[0])}: no such file or folder; check the path")
    folders = [
        path if os.path.isdir(path) and not is_dataset(path) else os.path.dirname(path) or "."
        for path in named
    ]
    root = os.path.commonpath([os.path.abspath(folder) for folder in folders]) if folders else "."
    results = frozenset(claimed(skip) if skip else ())
    choice = _Choice(recursive, pattern, all_files, column, skip, ext, results)
    items: dict[str, Item] = {}
    for path in named:
        for item in _items(path, root, choice):
            items.setdefault(item.name, item)
    if not items:
        what = f"file that fits {pattern!r}" if pattern else "picture"
        raise BatchError(
            f"{', '.join(map(shown, named)) or 'the list'}: holds no {what}"
            f"{'' if recursive else '; --recursive also looks in the folders inside'}"
        )
    return Path(root), list(items.values())


def _expand(paths: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    """Paths with glob patterns replaced by what fits them; a path that is there is no pattern."""
    for path in [os.fspath(path) for path in paths]:
        if os.path.lexists(path) or not glob.has_magic(path):
            yield path
            continue
        found = sorted(glob.glob(path, recursive=True), key=os.fsencode)
        if not found:
            raise BatchError(f"{shown(path)}: no file fits this pattern")
        yield from found


def _listed(filelist: str | os.PathLike[str] | None) -> list[str]:
    """The paths in a list, one a line, as the shell would take them."""
    if filelist is None:
        return []
    place = Path(filelist)
    with blocks(place):
        data = place.read_bytes()
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    # Of the ends of lines only those of text files: other programs' separators may be in names.
    found = [line.removesuffix("\r") for line in text.split("\n")]
    if not any(found):
        raise BatchError(f"{place}: names no file; write one path a line")
    return [line for line in found if line]


def is_dataset(path: str) -> bool:
    """Whether a folder is what datasets' save_to_disk writes."""
    return os.path.isfile(os.path.join(path, "dataset_info.json")) or os.path.isfile(
        os.path.join(path, "dataset_dict.json")
    )


def _items(path: str, root: str, choice: _Choice) -> Iterator[Item]:
    suffix = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        if is_dataset(path):
            yield from _dataset(path, root, choice.column)
            return
        for file in walk(path, choice.recursive, choice.skip):
            inside = os.path.relpath(file, path)
            fits = fnmatch(inside, choice.pattern) if choice.pattern else True
            if fits and choice.takes(file):
                yield Item(_name(file, root), _stamp(file), Source(file))
    elif suffix in _TARS and os.path.isfile(path):
        yield from _tar(path, root)
    elif suffix in _TABLES and os.path.isfile(path):
        yield from (_parquet if suffix == ".parquet" else _jsonl)(path, root, choice.column)
    else:
        yield Item(_name(path, root), _stamp(path), Source(path))


def _name(path: str, root: str) -> str:
    return text_of(os.path.relpath(os.path.abspath(path), root).replace(os.sep, "/"))


def _stamp(path: str) -> str:
    """Changes with a file: its size and its time of change, which is only compared, not read."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return "missing"
    return f"{state.st_size}-{state.st_mtime_ns}" if stat.S_ISREG(state.st_mode) else "special"


def _tar(path: str, root: str) -> Iterator[Item]:
    """The pictures of a tar, such as a WebDataset shard; texts beside them are passed over."""
    name, stamp = _name(path, root), _stamp(path)
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                inside = PurePosixPath(member.name)
                if not member.isreg() or inside.suffix.lower() not in _PICTURES:
                    continue
                if inside.is_absolute() or ".." in inside.parts:
                    raise BatchError(f"{shown(path)}: holds the name {member.name!r}; not safe")
                source = Source(path, "tar", member.offset_data, member.size)
                yield Item(f"{name}/{text_of(member.name)}", stamp, source)
    except (tarfile.TarError, OSError) as error:
        raise BatchError(
            f"{shown(path)}: is no readable tar ({reason(error)}); compressed ones are not read"
        ) from error


def _column(path: str, columns: Sequence[str], wanted: str | None) -> str:
    for name in (wanted,) if wanted else _COLUMNS:
        if name in columns:
            return name
    raise BatchError(
        f"{shown(path)}: has no column {wanted or ' or '.join(_COLUMNS)}; it has "
        f"{', '.join(columns[:20]) or 'none'}; name the one with pictures or paths by --column"
    )


def _jsonl(path: str, root: str, wanted: str | None) -> Iterator[Item]:
    """A picture for each line's path, which is relative to the table."""
    name = _name(path, root)
    for number, row in json_lines(Path(path)):
        found = row.get(_column(path, list(row), wanted))
        if not isinstance(found, str):
            raise BatchError(f"{path}: line {number} has no path in its column")
        yield _of_path(f"{name}/{number - 1}", path, found)


def _of_path(name: str, table: str, found: str) -> Item:
    """The item of a row that names a file; a row that names another one has changed."""
    picture = os.path.join(os.path.dirname(table), found)
    digest = hashlib.sha256(found.encode("utf-8", "backslashreplace")).hexdigest()[:12]
    return Item(name, f"{_stamp(picture)} {digest}", Source(picture))


def _table(table: Source, name: str, stamp: str, rows: Iterable[Any]) -> Iterator[Item]:
    """The items of a table's rows: the files that they name, else what they hold."""
    for row, found in enumerate(rows):
        if isinstance(found, str):
            yield _of_path(f"{name}/{row}", table.path, found)
        else:
            yield Item(f"{name}/{row}", stamp, replace(table, place=row))


def parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise BatchError('Parquet needs pip install "janus-kit[batch]"') from error
    return pyarrow.parquet


def _parquet(path: str, root: str, wanted: str | None) -> Iterator[Item]:
    import_ = parquet()
    name, stamp = _name(path, root), _stamp(path)
    try:
        with import_.ParquetFile(path) as file:
            schema = file.schema_arrow
            column = _column(path, schema.names, wanted)
            rows: Iterable[Any] = range(file.metadata.num_rows)
            if str(schema.field(column).type) in _TEXTS:
                rows = file.read(columns=[column]).column(0).to_pylist()
    except BatchError:
        raise
    except (OSError, ValueError) as error:  # of which pyarrow's errors are kinds
        raise BatchError(f"{shown(path)}: is no readable Parquet ({reason(error)})") from error
    yield from _table(Source(path, "parquet", column=column), name, stamp, rows)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise BatchError('a data set\'s folder needs pip install "janus-kit[batch]"') from error
    return datasets


def _dataset(path: str, root: str, wanted: str | None) -> Iterator[Item]:
    """The rows of a folder that datasets' save_to_disk wrote, split by split."""
    if os.path.isfile(os.path.join(path, "dataset_dict.json")):
        with blocks(Path(path)):
            splits = json.loads(Path(path, "dataset_dict.json").read_text("utf-8"))["splits"]
        for split in splits:
            yield from _dataset(os.path.join(path, split), root, wanted)
        return
    name, stamp = _name(path, root), _stamp(os.path.join(path, "state.json"))
    opened = _open_dataset(path, stamp)
    column = _column(path, opened.column_names, wanted)
    texts = getattr(opened.features[column], "dtype", None) in _TEXTS
    rows = opened[column] if texts else range(len(opened))
    yield from _table(Source(path, "dataset", column=column), name, stamp, rows)


@lru_cache(maxsize=4)
def _open_dataset(path: str, stamp: str) -> Any:
    try:
        return _datasets().load_from_disk(path)
    except (OSError, ValueError, KeyError) as error:
        raise BatchError(f"{shown(path)}: is no readable data set ({reason(error)})") from error


@lru_cache(maxsize=2)
def _row_group(path: str, group: int, column: str, stamp: str) -> list[Any]:
    table = parquet().ParquetFile(path).read_row_group(group, columns=[column])
    found: list[Any] = table.column(0).to_pylist()
    return found


@lru_cache(maxsize=4)
def _group_rows(path: str, stamp: str) -> list[int]:
    metadata = parquet().read_metadata(path)
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def check(item: Item) -> None:
    """Raise ImageError if the file of an item is not what it was when it was listed."""
    path = item.source.path
    listed = item.stamp.partition(" ")[0]  # a row's stamp says more than its file's
    if listed not in ("missing", _stamp(path)) and item.source.kind != "dataset":
        gone = not os.path.lexists(path)
        raise ImageError(
            f"{shown(path)}: has {'gone' if gone else 'changed'} since it was listed; run the "
            "command again"
        )


def read(item: Item) -> str | bytes:
    """A picture as vision.images.load takes it: a file's path, or bytes.

    Raises ImageError for an input that cannot be read, or is not what it was when it was listed.
    """
    try:
        return _read(item)
    except (ImageError, OSError, MemoryError):
        raise
    except Exception as error:  # pyarrow's and datasets' have no common kind
        raise ImageError(
            f"{shown(item.source.path)}: row {item.source.place} cannot be read ({reason(error)})"
        ) from error


def _read(item: Item) -> str | bytes:
    source = item.source
    if source.kind == "dataset":
        import datasets

        opened = _open_dataset(source.path, item.stamp)
        if isinstance(opened.features.get(source.column), datasets.Image):
            opened = opened.cast_column(source.column, datasets.Image(decode=False))
        return _cell(opened[source.place][source.column], source.path)
    check(item)
    if source.kind == "file":
        return source.path
    if source.kind == "tar":
        with open(source.path, "rb") as file:
            file.seek(source.place)
            return file.read(min(source.size, MAX_BYTES + 1))  # more is refused as too large
    row = source.place
    for group, rows in enumerate(_group_rows(source.path, item.stamp)):
        if row < rows:
            values = _row_group(source.path, group, source.column, item.stamp)
            return _cell(values[row], source.path)
        row -= rows
    raise ImageError(f"{shown(source.path)}: has no row {source.place}")


def _cell(value: Any, table: str) -> str | bytes:
    """What a table's cell says of a picture: bytes, a path beside the table, or both in a dict."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return os.path.join(os.path.dirname(table), value)
    raise ImageError(f"{shown(table)}: a row has neither a picture's bytes nor a path")
