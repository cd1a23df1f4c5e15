"""The results of a run as tables and data sets, each written whole from the ledger."""

import csv
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from janus_kit.batch.files import Scratch, path_of
from janus_kit.errors import BatchError, OptionError

__all__ = ["FORMATS", "Listed", "Row", "Rows", "check", "copies", "names", "same", "write"]

FORMATS = ("txt", "jsonl", "csv", "parquet", "webdataset", "imagefolder")
SHARD = 1000  # pictures in a tar
_KINDS = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpg"), (b"GIF8", "gif"), (b"BM", "bmp"))
_FILES = {
    "jsonl": "captions.jsonl",
    "csv": "captions.csv",
    "parquet": "captions.parquet",
    "webdataset": "captions-[0-9]*.tar",
    "imagefolder": "metadata.jsonl",
}

log = logging.getLogger(__name__)

Row = dict[str, Any]  # file_name, one text a column, and error where there is none


class Listed(NamedTuple):
    """A row and its picture."""

    row: Row
    file: str | None  # in which the picture is alone
    picture: Callable[[], bytes | None]  # None if it cannot be read any more


Rows = Callable[[], Iterator[Listed]]


def names(formats: Sequence[str]) -> list[str]:
    """The names of the files that write makes for some formats, as patterns."""
    return [_FILES[name] for name in dict.fromkeys(("jsonl", *formats)) if name in _FILES]


def copies(name: str) -> list[str]:
    """The names that imagefolder's copy of a picture may have; none if it gets none."""
    if path_of(name) != name:  # a name that is no text fits in no table
        return []
    if os.path.splitext(name)[1]:
        return [name]
    return [f"{name}.{kind}" for kind in ("webp", *(kind for _, kind in _KINDS))]


def check(formats: Sequence[str]) -> None:
    """Raise OptionError for a format that is none, BatchError for one whose library is missing."""
    for name in formats:
        if name not in FORMATS:
            raise OptionError(f"--format must be some of {', '.join(FORMATS)}, not {name!r}")
    for name, module in (("parquet", "pyarrow"), ("webdataset", "webdataset")):
        if name in formats:
            _library(module, name)


def _library(module: str, what: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise BatchError(f'--format {what} needs pip install "janus-kit[batch]"') from error


def write(
    folder: Path,
    rows: Rows,
    columns: Sequence[str],
    formats: Sequence[str],
    scratch: Scratch,
) -> Path:
    """Write captions.jsonl, and the other formats; returns its path.

    rows: gives all rows, every time from the start.
    """
    table = folder / _FILES["jsonl"]
    with scratch.growing(table) as part:
        _jsonl(part, (listed.row for listed in rows()))
    if "csv" in formats:
        with scratch.growing(folder / _FILES["csv"]) as part:
            _csv(part, (listed.row for listed in rows()), columns)
    if "parquet" in formats:
        with scratch.growing(folder / _FILES["parquet"]) as part:
            _parquet(part, (listed.row for listed in rows()), columns)
    if "imagefolder" in formats:
        _imagefolder(folder, rows, columns, scratch)
    if "webdataset" in formats:
        _webdataset(folder, rows, columns, scratch)
    return table


def _jsonl(part: Path, rows: Iterable[Row]) -> None:
    with part.open("w", encoding="utf-8", newline="\n", errors="backslashreplace") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula (OWASP's rule)."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _csv(part: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    names = ["file_name", *columns, "error"]
    with part.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
        writer.writerow(names)
        for row in rows:
            writer.writerow([harmless(row.get(name) or "") for name in names])


def _parquet(part: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    names = ["file_name", *columns, "error"]
    schema = pyarrow.schema([(name, pyarrow.string()) for name in names])
    with pyarrow.parquet.ParquetWriter(part, schema) as writer:
        for group in _groups(rows, 10_000):
            data = {name: [row.get(name) for row in group] for name in names}
            writer.write_table(pyarrow.table(data, schema=schema))


def _groups(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    group: list[Any] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _imagefolder(folder: Path, rows: Rows, columns: Sequence[str], scratch: Scratch) -> None:
    """metadata.jsonl beside the pictures, as datasets' imagefolder reads it: only what is done.

    Pictures that lie elsewhere are copied, also those that have changed since they were.
    """
    gone = 0

    def done() -> Iterator[Row]:
        nonlocal gone
        for row, file, picture in rows():
            name = row["file_name"]
            if "error" in row or not copies(name):
                continue
            if not same(file, folder / name):
                data = picture()
                if data is None:
                    gone += 1
                    continue
                if not os.path.splitext(name)[1]:  # a table's row has no name of its own
                    name = f"{name}.{_kind(data)}"
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists() or target.read_bytes() != data:
                    scratch.write(target, data)
            yield {"file_name": name, **{column: row[column] for column in columns}}

    with scratch.growing(folder / _FILES["imagefolder"]) as part:
        _jsonl(part, done())
    _tell(gone, "imagefolder")


def same(file: str | None, place: Path) -> bool:
    try:
        return file is not None and os.path.samefile(file, place)
    except (OSError, ValueError):
        return False


def _tell(gone: int, what: str) -> None:
    if gone:
        log.warning(
            "pictures that can no longer be read, and are not in the %s: %d; run the command again",
            what,
            gone,
        )


def _kind(data: bytes) -> str:
    return next((kind for magic, kind in _KINDS if data.startswith(magic)), "webp")


def _webdataset(folder: Path, rows: Rows, columns: Sequence[str], scratch: Scratch) -> None:
    """captions-000000.tar and so on: a picture, its caption as txt, and all as json."""
    import webdataset

    done = ((i, listed) for i, listed in enumerate(rows()) if "error" not in listed.row)
    count = gone = 0
    for count, group in enumerate(_groups(done, SHARD), 1):
        with scratch.growing(folder / f"captions-{count - 1:06}.tar") as part:
            # Fixed times and owners: equal results are equal files.
            fixed = {"user": "user", "group": "group", "mode": 0o644, "mtime": 0}
            with (
                part.open("wb") as file,
                webdataset.TarWriter(file, encoder=False, **fixed) as tar,
            ):
                for number, (row, _, picture) in group:
                    data = picture()
                    if data is None:
                        gone += 1
                        continue
                    entry = {"__key__": f"{number:09}", _kind(data): data}
                    entry["txt"] = row[columns[0]].encode("utf-8", "replace")
                    entry["json"] = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace")
                    tar.write(entry)
    _tell(gone, "webdataset")
    for left in folder.glob(_FILES["webdataset"]):  # of a run that had more
        with suppress(ValueError):
            if int(left.stem.removeprefix("captions-")) >= count:
                left.unlink()
