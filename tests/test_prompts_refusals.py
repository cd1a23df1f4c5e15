"""Tokenizers, texts and conversations that are refused, and those that are mended."""

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from prompts_parts import (
    FAST,
    PLAIN,
    TEMPLATES,
    changed,
    controls,
    like_janus_1_3b,
    stock_of,
    without,
)

from janus_kit.errors import CheckpointError, PromptError
from janus_kit.prompts import (
    ASSISTANT,
    BEGIN_IMAGE,
    BOS,
    DRAWING_LIMIT,
    END_IMAGE,
    EOS,
    IMAGE,
    PAD,
    PRO,
    USER,
    Message,
    Template,
    Tokenizer,
    chat_ids,
    check_text,
    drawing_ids,
)

NEEDED = [BOS, EOS, PAD, BEGIN_IMAGE, END_IMAGE]


@pytest.mark.parametrize("string", NEEDED)
def test_a_missing_control_token_is_refused(vocabulary: Path, tmp_path: Path, string: str) -> None:
    with pytest.raises(CheckpointError, match="is missing") as caught:
        Tokenizer.from_folder(changed(vocabulary, tmp_path, without(string)), 400)
    assert string in str(caught.value)
    assert str(tmp_path / "tokenizer.json") in str(caught.value)


def test_a_control_token_that_only_the_vocabulary_has_is_found(
    vocabulary: Path, tmp_path: Path
) -> None:
    def change(data: dict[str, Any]) -> None:
        entry = next(e for e in data["added_tokens"] if e["content"] == BEGIN_IMAGE)
        data["model"]["vocab"][BEGIN_IMAGE] = entry["id"]
        without(BEGIN_IMAGE)(data)

    tokenizer = Tokenizer.from_folder(changed(vocabulary, tmp_path, change))
    assert tokenizer.begin_image == Tokenizer.from_folder(vocabulary).begin_image
    assert tokenizer.begin_image in tokenizer.control_ids
    assert tokenizer.encode(BEGIN_IMAGE) == Tokenizer.from_folder(vocabulary).encode(BEGIN_IMAGE)


def test_a_missing_placeholder_is_added_after_the_last_id(vocabulary: Path, tmp_path: Path) -> None:
    old = changed(vocabulary, tmp_path, like_janus_1_3b)
    stock = stock_of(old)
    stock.add_special_tokens({"additional_special_tokens": [IMAGE]})  # the published processor
    last = stock.convert_tokens_to_ids(IMAGE)
    assert Tokenizer.from_folder(old, last + 1).image == last
    with pytest.raises(CheckpointError, match=f"'{IMAGE}' has the id {last}"):
        Tokenizer.from_folder(old, last)


def test_roles_are_control_tokens_only_where_the_vocabulary_adds_them(
    tokenizer: Tokenizer, vocabulary: Path, tmp_path: Path
) -> None:
    old = Tokenizer.from_folder(changed(vocabulary, tmp_path, like_janus_1_3b))
    assert {USER, ASSISTANT} <= tokenizer.control.keys()
    assert not {USER, ASSISTANT} & old.control.keys()
    assert controls(old, drawing_ids(old, PRO, "a cube")) == [old.bos, old.begin_image]


def test_a_tokenizer_larger_than_the_model_is_refused(vocabulary: Path) -> None:
    with pytest.raises(CheckpointError, match="the model has only 300 ids"):
        Tokenizer.from_folder(vocabulary, 300)


def test_control_tokens_that_share_an_id_are_refused(vocabulary: Path, tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["added_tokens"][2]["id"] = data["added_tokens"][1]["id"]

    with pytest.raises(CheckpointError, match="two tokens share one id"):
        Tokenizer.from_folder(changed(vocabulary, tmp_path, change))


def test_a_role_tag_that_shares_the_id_of_a_word_cannot_be_spoken(
    vocabulary: Path, tmp_path: Path
) -> None:
    def change(data: dict[str, Any]) -> None:
        entry = next(e for e in data["added_tokens"] if e["content"] == USER)
        entry["id"] = data["model"]["vocab"]["a"]

    tokenizer = Tokenizer.from_folder(changed(vocabulary, tmp_path, change))
    with pytest.raises(PromptError, match="cannot be trusted"):
        tokenizer.encode("a")


def test_a_folder_without_a_readable_tokenizer_is_refused(vocabulary: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        Tokenizer.from_folder(tmp_path)
    for text in ("", "{", "[]", "{}", '{"model": 3}', "\ud800".encode("utf-8", "surrogatepass")):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "tokenizer.json").write_bytes(data)
        with pytest.raises(CheckpointError, match="not a readable tokenizer"):
            Tokenizer.from_folder(tmp_path)

    def other_kind(data: dict[str, Any]) -> None:
        data["model"]["type"] = "Unigram"

    def broken_merges(data: dict[str, Any]) -> None:
        data["model"]["merges"].append(["no", "such"])

    with pytest.raises(CheckpointError, match="not a byte-level BPE"):
        Tokenizer.from_folder(changed(vocabulary, tmp_path, other_kind))
    with pytest.raises(CheckpointError, match="not a readable tokenizer"):
        Tokenizer.from_folder(changed(vocabulary, tmp_path, broken_merges))


@pytest.mark.parametrize("text", ["", " ", "a\n\tb", "猫🦄", "\u202eRTL", "e" + "\u0301" * 1999])
def test_ordinary_text_is_accepted(text: str) -> None:
    check_text(text, DRAWING_LIMIT)


@pytest.mark.parametrize(
    "code", [0, 0x1B, 0x0D, 0x7F, 0x85, 0xD800, 0xDFFF, 0xFDD0, 0xFFFE, 0xFFFF, 0x10FFFF], ids=hex
)
def test_characters_that_no_prompt_needs_are_refused(tokenizer: Tokenizer, code: int) -> None:
    text, place = f"a {chr(code)}", rf"U\+{code:04X} at position 2"
    with pytest.raises(PromptError, match=place):
        check_text(text, DRAWING_LIMIT)
    with pytest.raises(PromptError, match=place):
        drawing_ids(tokenizer, PRO, text)
    with pytest.raises(PromptError, match=place):
        chat_ids(tokenizer, PRO, [Message("user", text)])


def test_a_text_over_the_limit_is_refused_not_cut(tokenizer: Tokenizer) -> None:
    assert len(drawing_ids(tokenizer, PRO, "猫" * DRAWING_LIMIT)) > DRAWING_LIMIT
    with pytest.raises(PromptError, match="2001 characters; at most 2000"):
        drawing_ids(tokenizer, PRO, "a" * (DRAWING_LIMIT + 1))
    with pytest.raises(PromptError, match="at most 100000"):
        chat_ids(tokenizer, PRO, [Message("user", "a" * 50_000_000)])


def test_an_empty_prompt_is_drawn_with_a_warning(
    tokenizer: Tokenizer, stock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        ids = drawing_ids(tokenizer, PRO, "  \n")
    assert "the prompt is empty" in caplog.text
    assert ids == stock.encode(f"{USER}:{ASSISTANT}:{BEGIN_IMAGE}")  # as published


def test_conversations_that_the_template_does_not_know_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(PromptError, match="at least one message"):
        chat_ids(tokenizer, PRO, [])
    with pytest.raises(PromptError, match="take turns"):
        chat_ids(tokenizer, PRO, [Message("user", "a"), Message("user", "b")])
    with pytest.raises(PromptError, match="take turns"):
        chat_ids(tokenizer, PRO, [Message("assistant", "a")])
    with pytest.raises(PromptError, match="not 'system'"):
        Message("system", "a")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="assistant cannot have 1 image"):
        Message("assistant", "a", images=1)
    with pytest.raises(PromptError, match="user cannot have -1 image"):
        Message("user", "a", images=-1)


@TEMPLATES
def test_a_question_begins_its_answered_conversation(
    tokenizer: Tokenizer, template: Template
) -> None:
    @FAST
    @given(PLAIN, PLAIN)
    def begins(question: str, answer: str) -> None:
        messages = [Message("user", question, 1), Message("assistant", answer)]
        asked = chat_ids(tokenizer, template, messages[:1], 2)
        whole = chat_ids(tokenizer, template, messages, 2)
        assert whole[: len(asked)] == asked
        spoken = [*tokenizer.encode(f" {answer.strip()}"), tokenizer.eos] if answer.strip() else []
        assert whole[len(asked) :] == spoken

    begins()
