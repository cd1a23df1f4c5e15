"""Archives of package registries: fetched once by the registries' own clients, and checked.

So whatever mirror or proxy a client is set to is used.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from janus_kit.errors import JanusKitError

__all__ = ["Package", "fetch"]

_COMMANDS = {  # client → what fetches one archive into the working folder
    "apt-get": ("apt-get", "download"),
    "npm": ("npm", "pack", "--ignore-scripts"),
    "pip": (
        *(sys.executable, "-m", "pip", "download"),
        *("--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"),
    ),
}
_JOINTS = {"apt-get": "=", "npm": "@", "pip": "=="}  # between name and version


@dataclass(frozen=True, kw_only=True)
class Package:
    """One archive, for ever the same."""

    client: str  # apt-get, npm or pip
    name: str
    version: str
    file: str
    megabytes: int
    sha256: str

    @property
    def request(self) -> str:
        """The package as its client wants it named."""
        return f"{self.name}{_JOINTS[self.client]}{self.version}"

    @property
    def hint(self) -> str:
        """What to do where the client is missing or does not find it."""
        how = {
            "apt-get": "use Debian 12 after an apt-get update",
            "npm": "install Node.js",
            "pip": "see that pip reaches its index",
        }
        return f"{how[self.client]}, or put {self.file} into {{folder}} yourself"


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
    name, *words = _COMMANDS[package.client]
    client = shutil.which(name)
    hint = package.hint.format(folder=folder)
    if client is None:
        raise JanusKitError(
            f"{package.client}: not found, so {package.request} cannot be fetched; {hint}"
        )
    done = subprocess.run(  # noqa: S603 - a fixed list, no shell
        [client, *words, package.request], cwd=part, capture_output=True, text=True
    )
    found = part / package.file
    if done.returncode != 0 or not found.exists():
        said = " ".join(done.stderr.split()[-40:]) or "nothing"
        raise JanusKitError(f"{package.request}: {package.client} failed and said: {said}; {hint}")
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
