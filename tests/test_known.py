"""The hint that a prompt leaves the small world of the embedded model."""

import logging
from importlib import resources
from pathlib import Path

import pytest

from janus_kit.known import Hint, strange
from janus_kit.scoring.promptset import prompts


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "words.txt").write_text("a\ncat\nred\ntwo\n2\n")
    return tmp_path


def test_words_are_looked_up_without_case_and_punctuation(small: Path) -> None:
    assert strange(small, ["A red cat, two!", "2 CATS"]) == ["cats"]
    assert strange(small, ["a dragon-fly and a Dragon"]) == ["dragon", "fly", "and"]


def test_a_model_without_a_list_of_words_knows_all(tmp_path: Path) -> None:
    assert strange(tmp_path, ["a lighthouse"]) == []
    assert Hint(tmp_path).about(["a lighthouse"]) == ""


def test_a_hint_names_the_words_and_the_remedy_once(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hint = Hint(small)
    with caplog.at_level(logging.WARNING):
        hint.once(["a red cat"])
        assert caplog.records == []
        hint.once(["a lighthouse at dusk"])
        hint.once(["a castle"])
    (record,) = caplog.records
    assert "'lighthouse', 'at', 'dusk'" in record.message
    assert "--model" in record.message
    assert "and 2 more" in hint.about(["one three four five six seven"])


def test_the_embedded_model_knows_the_words_of_genevals_prompts() -> None:
    weights = Path(str(resources.files("janus_kit.weights")))
    lines = [line["prompt"] for line in prompts()]
    assert strange(weights, lines) == []
    assert strange(weights, ["a lighthouse"]) == ["lighthouse"]
