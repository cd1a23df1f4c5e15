"""The packages that hold the pictures: fetched once by the registries' own clients, and checked."""

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from janus_kit.errors import JanusKitError

__all__ = ["PACKAGES", "Package", "fetch"]


@dataclass(frozen=True, kw_only=True)
class Package:
    """One archive, for ever the same."""

    client: str  # apt-get or npm
    name: str
    version: str
    file: str
    megabytes: int
    sha256: str

    @property
    def request(self) -> str:
        """The package as its client wants it named."""
        return f"{self.name}{'=' if self.client == 'apt-get' else '@'}{self.version}"

    @property
    def hint(self) -> str:
        """What to do where the client is missing or does not find it."""
        if self.client == "npm":
            return "install Node.js, or put {file} into {folder} yourself"
        return "use Debian 12 after an apt-get update, or put {file} into {folder} yourself"


PACKAGES = {
    "furniture": Package(
        client="apt-get",
        name="sweethome3d-furniture",
        version="1.8-1",
        file="sweethome3d-furniture_1.8-1_all.deb",
        megabytes=120,
        sha256="3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668",
    ),
    "fauna": Package(
        client="apt-get",
        name="0ad-data",
        version="0.0.26-1",
        file="0ad-data_0.0.26-1_all.deb",
        megabytes=1378,
        sha256="53745ae74d05bccf6783400fa98f3932b21729ab9d2e86151aa2c331c3455178",
    ),
    "fluent": Package(
        client="npm",
        name="@lobehub/fluent-emoji-3d",
        version="1.1.0",
        file="lobehub-fluent-emoji-3d-1.1.0.tgz",
        megabytes=16,
        sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    ),
    "noto": Package(
        client="npm",
        name="@iconify-json/noto",
        version="1.2.9",
        file="iconify-json-noto-1.2.9.tgz",
        megabytes=3,
        sha256="3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
}


def fetch(package: Package, folder: Path) -> Path:
    """The package's archive in the folder: what lies there is used when its digest is right."""
    path = folder / package.file
    if path.exists() and _digest(path) == package.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as part:
        found = _download(package, Path(part), folder)
        digest = _digest(found)
        if digest != package.sha256:
            raise JanusKitError(
                f"{package.request}: the archive's sha256 is {digest}, not {package.sha256}; "
                "it is not used"
            )
        found.replace(path)
    return path


def _download(package: Package, part: Path, folder: Path) -> Path:
    """Let the client fetch into part."""
    client = shutil.which(package.client)
    hint = package.hint.format(file=package.file, folder=folder)
    if client is None:
        raise JanusKitError(
            f"{package.client}: not found, so {package.request} cannot be fetched; {hint}"
        )
    word = "download" if package.client == "apt-get" else "pack"
    done = subprocess.run(  # noqa: S603 - a fixed list, no shell
        [client, word, package.request], cwd=part, capture_output=True, text=True
    )
    found = part / package.file
    if done.returncode != 0 or not found.exists():
        said = " ".join(done.stderr.split()[-40:]) or "nothing"
        raise JanusKitError(f"{package.request}: {package.client} failed and said: {said}; {hint}")
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
