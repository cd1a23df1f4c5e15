"""Files out of Debian packages and zip files, without the system's tools."""

import lzma
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from janus_kit.errors import JanusKitError

__all__ = ["from_deb", "open_zip"]

_HEADER = 60  # bytes before each member of an ar file


def from_deb(deb: Path, wanted: Mapping[str, Path]) -> None:
    """Write members of the package, named by their path inside, to files; what is there stays."""
    missing = {name: path for name, path in wanted.items() if not path.exists()}
    if not missing:
        return
    try:
        with deb.open("rb") as file:
            _seek_data(file)
            # A stream: the archive is too large to be unpacked for a few of its files.
            with tarfile.open(fileobj=file, mode="r|*") as tar:
                for member in tar:
                    path = missing.get(member.name.removeprefix("./"))
                    content = tar.extractfile(member) if path else None
                    if path and content:
                        _save(content, path)
                        del missing[member.name.removeprefix("./")]
                    if not missing:
                        return
    except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
        raise JanusKitError(f"{deb.name}: is torn ({error}); delete it and start again") from None
    raise JanusKitError(f"{deb.name}: holds no {', '.join(missing)}; is it another version?")


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip file, or a plain error."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise JanusKitError(f"{path}: is not a readable zip file ({error}); delete it") from None


def _seek_data(file: IO[bytes]) -> None:
    """Go to the tar in an ar file that holds the package's files."""
    if file.read(8) != b"!<arch>\n":
        raise ValueError("it is no ar file")
    while len(header := file.read(_HEADER)) == _HEADER:
        name, size = header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
        if name.startswith("data.tar"):
            return
        file.seek(size + size % 2, 1)
    raise ValueError("it holds no data.tar")


def _save(content: IO[bytes], path: Path) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            while block := content.read(1 << 20):
                file.write(block)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
