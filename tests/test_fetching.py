"""Models that come from a hub: what is asked of it, and what its failures say."""

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoint_parts import (
    CPU,
    FAULTS,
    FILE,
    as_pickle,
)
from huggingface_hub.errors import HTTPError
from safetensors.torch import load_file

from janus_kit import loading
from janus_kit.checkpoint import load, save
from janus_kit.errors import CheckpointError
from janus_kit.pipeline import JanusPipeline


class Hub:
    """In place of snapshot_download: copies what is asked for into a cache, and keeps the calls."""

    def __init__(self, files: Path, cache: Path) -> None:
        self.files, self.cache = files, cache
        self.calls: list[dict[str, Any]] = []
        cache.mkdir()

    def __call__(self, repository: str, *, allow_patterns: list[str], **options: Any) -> str:
        self.calls.append({"id": repository, **options})
        for path in self.files.iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copy(path, self.cache)
        return str(self.cache)

    @property
    def weights(self) -> list[str]:
        return [
            path.name for path in self.cache.iterdir() if path.suffix in (".safetensors", ".bin")
        ]


@pytest.fixture
def hub(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub whose one repository is folder."""
    made = Hub(published, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", made)
    return made


@pytest.mark.parametrize("fault", ["no config", "config of Llama", "config of JanusFlow"])
def test_another_model_is_refused_before_its_weights_are_fetched(
    hub: Hub, published: Path, fault: str
) -> None:
    broken, words = FAULTS[fault]
    broken(published)
    with pytest.raises(CheckpointError) as caught:
        loading.find("some/model")
    assert words[0] in str(caught.value)
    assert (len(hub.calls), hub.weights) == (1, [])


def test_safetensors_are_fetched_rather_than_a_pickle(hub: Hub, published: Path) -> None:
    (published / "pytorch_model.bin").write_bytes(b"never fetched")
    (published / "chat_template.jinja").write_text("{{ messages }}")
    assert loading.find("some/model") == (hub.cache, "some/model")
    assert hub.weights == [FILE]
    save(load(hub.cache, device=CPU)[0], hub.cache / "saved", tokenizer_folder=hub.cache)
    assert (hub.cache / "saved" / "chat_template.jinja").read_text() == "{{ messages }}"


def test_a_pickle_is_fetched_where_there_is_nothing_else(hub: Hub, published: Path) -> None:
    as_pickle(published, load_file(published / FILE))
    found, _ = loading.find("some/model")
    assert hub.weights == ["pytorch_model.bin"]
    load(found, device=CPU)


def test_what_the_hub_is_asked_is_what_was_given(hub: Hub, published: Path) -> None:
    as_pickle(published, load_file(published / FILE))
    given = {"revision": "abc", "local_files_only": True, "token": "secret"}
    loading.find("some/model", revision="abc", local_files_only=True, token="secret")
    assert hub.calls == [{"id": "some/model", **given}] * 3
    JanusPipeline.from_pretrained("some/model", device="cpu")
    plain = {"revision": None, "local_files_only": False, "token": None}
    assert hub.calls[3:] == [{"id": "some/model", **plain}] * 3


@pytest.mark.parametrize(
    "error",
    [
        HTTPError("proxy\nrefused"),  # the root of all that the HTTP client raises
        HTTPError(""),
        FileNotFoundError("not in the cache"),
        ImportError("Using SOCKS proxy, but the package is not installed"),
        RuntimeError("Data processing error: no connection"),
        ValueError("Unknown scheme for proxy URL"),
    ],
)
@pytest.mark.parametrize(
    ("offline", "local", "remedy"),
    [
        (False, False, "set HF_HUB_OFFLINE=1"),
        (True, False, "unset HF_HUB_OFFLINE to fetch it"),
        (False, True, "leave local_files_only out to fetch it"),
    ],
)
def test_a_network_that_fails_is_one_sentence_with_a_remedy_that_helps(
    monkeypatch: pytest.MonkeyPatch, error: Exception, offline: bool, local: bool, remedy: str
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    with pytest.raises(CheckpointError) as caught:
        loading.find("some/model", local_files_only=local)
    reason = str(error).split("\n")[0] or "HTTPError"
    assert str(caught.value).startswith("some/model: no such folder, and it could not be fetched")
    assert f"({reason}); " in str(caught.value)
    assert str(caught.value).count("HF_HUB_OFFLINE") == (not local)
    assert remedy in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_full_disk_while_fetching_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(OSError, match="No space"):
        loading.find("some/model")
