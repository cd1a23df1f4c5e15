"""Small tokenizers as published folders hold them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from janus_kit.prompts import (
    ASSISTANT,
    BEGIN_IMAGE,
    BOS,
    END_IMAGE,
    EOS,
    IMAGE,
    OLD,
    PAD,
    PRO,
    USER,
    Tokenizer,
)
from janus_kit.training.tokenizer import train_tokenizer

TAGS = [BOS, EOS, PAD, BEGIN_IMAGE, END_IMAGE, IMAGE, USER, ASSISTANT]
TEXTS = [
    f"User: a photo of {n} red cubes left of a blue ball\n\nAssistant: you see {n} cubes. 猫 schön"
    for n in range(40)
]
TEMPLATES = pytest.mark.parametrize("template", [PRO, OLD], ids=["pro", "old"])
LETTERS = st.characters(exclude_categories=["Cs", "Cc", "Cn"], include_characters="\n\t")
PLAIN = st.text(LETTERS, max_size=40)
FAST = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vocabulary = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, 400, vocabulary)
    return vocabulary


@pytest.fixture(scope="module")
def tokenizer(vocabulary: Path) -> Tokenizer:
    return Tokenizer.from_folder(vocabulary, 400)


@pytest.fixture(scope="module")
def stock(vocabulary: Path) -> Any:
    return stock_of(vocabulary)


def stock_of(vocabulary: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(vocabulary)


def changed(vocabulary: Path, target: Path, change: Change) -> Path:
    """A copy of the tokenizer in a folder, with a changed tokenizer.json."""
    data = json.loads((vocabulary / "tokenizer.json").read_text(encoding="utf-8"))
    change(data)
    (target / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    (target / "tokenizer_config.json").write_bytes(
        (vocabulary / "tokenizer_config.json").read_bytes()
    )
    return target


def without(*strings: str) -> Change:
    """Take added tokens out of a tokenizer.json."""

    def change(data: dict[str, Any]) -> None:
        data["added_tokens"] = [e for e in data["added_tokens"] if e["content"] not in strings]
        data["post_processor"] = None

    return change


def like_janus_1_3b(data: dict[str, Any]) -> None:
    """No role tags, no placeholder, and ö and ü as added tokens before the pad token."""
    without(USER, ASSISTANT, IMAGE)(data)
    words = [word for word in data["model"]["vocab"] if word not in ("ö", "ü")]
    data["model"]["vocab"] = {word: id for id, word in enumerate(words)}
    entries = data["added_tokens"]
    letters = [{**entries[0], "content": c, "special": False, "normalized": True} for c in "öü"]
    entries = [*entries[:2], *letters, *entries[2:]]
    data["added_tokens"] = [{**e, "id": len(words) + n} for n, e in enumerate(entries)]


def controls(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    return [id for id in ids if id in tokenizer.control_ids]
