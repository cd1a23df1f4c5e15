"""Archives of registries are fetched once, by the registries' own clients, and checked."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from janus_kit.errors import JanusKitError
from janus_kit.packages import Package, fetch

PACKAGE = Package(
    client="npm",
    name="toys",
    version="1.0",
    file="toys-1.0.tgz",
    megabytes=1,
    sha256=hashlib.sha256(b"toy").hexdigest(),
)


def clients(monkeypatch: pytest.MonkeyPatch, data: bytes | None, code: int = 0) -> list[list[str]]:
    """A client that fetches the data as what is asked for; the commands that it is given."""
    commands: list[list[str]] = []

    def run(command: list[str], *, cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if data is not None:
            (cwd / PACKAGE.file).write_bytes(data)
        return subprocess.CompletedProcess(command, code, "", "no\nnetwork")

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    return commands


def test_a_package_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = clients(monkeypatch, b"toy")
    path = fetch(PACKAGE, tmp_path / "new")
    assert path.read_bytes() == b"toy"
    assert fetch(PACKAGE, tmp_path / "new") == path
    assert commands == [["/bin/npm", "pack", "--ignore-scripts", "toys@1.0"]]
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / PACKAGE.file).write_bytes(b"to")  # torn: fetched again
    fetch(PACKAGE, tmp_path)
    assert len(commands) == 2
    fetch(replace(PACKAGE, client="apt-get"), tmp_path / "deb")
    assert commands[2] == ["/bin/apt-get", "download", "toys=1.0"]
    fetch(replace(PACKAGE, client="pip"), tmp_path / "wheel")
    assert commands[3][:4] == [f"/bin/{sys.executable}", "-m", "pip", "download"]
    assert commands[3][-1] == "toys==1.0"


@pytest.mark.parametrize(
    ("client", "data", "code", "words"),
    [
        ("npm", b"another", 0, "sha256 is .*, not .*; it is not used"),
        ("npm", b"toy", 1, r"npm failed and said: no network; install Node\.js, or put toys-1"),
        ("npm", None, 0, "npm failed and said: no network"),
        ("apt-get", None, 100, "toys=1.0: apt-get failed .* use Debian 12 after an apt-get update"),
        ("pip", None, 1, "toys==1.0: pip failed .* see that pip reaches its index, or put toys-1"),
    ],
)
def test_a_bad_archive_is_not_used(
    client: str, data: bytes | None, code: int, words: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    clients(monkeypatch, data, code)
    with pytest.raises(JanusKitError, match=words):
        fetch(replace(PACKAGE, client=client), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_client_is_told_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(JanusKitError, match=r"npm: not found, so toys@1\.0 .*; install Node\.js"):
        fetch(PACKAGE, tmp_path)
