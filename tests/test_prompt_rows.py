"""Rows for guidance and padding, and the tokenizer that is trained here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from prompts_parts import TAGS, TEXTS

from janus_kit.errors import OptionError, PromptError
from janus_kit.prompts import (
    BOS,
    EOS,
    PAD,
    PRO,
    Tokenizer,
    drawing_ids,
    pad_left,
    unconditional_ids,
)
from janus_kit.training.tokenizer import train_tokenizer


def test_the_unconditional_row_keeps_only_its_ends(tokenizer: Tokenizer) -> None:
    ids = drawing_ids(tokenizer, PRO, "a red cube")
    row = unconditional_ids(ids, tokenizer)
    assert len(row) == len(ids)
    assert (row[0], row[-1]) == (tokenizer.bos, tokenizer.begin_image)
    assert set(row[1:-1]) == {tokenizer.pad}


def test_a_negative_prompt_takes_the_place_of_the_pads(tokenizer: Tokenizer) -> None:
    ids, negative = (drawing_ids(tokenizer, PRO, text) for text in ("a red cube", "blue"))
    assert unconditional_ids(ids, tokenizer, negative) == negative


def test_rows_are_padded_on_the_left_and_count_from_their_own_start() -> None:
    inputs = pad_left([[5, 6, 7], [8]], pad=9)
    assert inputs.tokens.tolist() == [[5, 6, 7], [9, 9, 8]]
    assert inputs.mask.tolist() == [[True, True, True], [False, False, True]]
    assert inputs.positions.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert (inputs.tokens.dtype, inputs.mask.dtype) == (torch.int64, torch.bool)
    assert inputs.positions.dtype == torch.int64


def test_pads_of_the_unconditional_row_are_attended(tokenizer: Tokenizer) -> None:
    ids = drawing_ids(tokenizer, PRO, "a red cube")
    inputs = pad_left([ids, unconditional_ids(ids, tokenizer)], tokenizer.pad)
    assert inputs.mask.all()
    assert inputs.positions[1].tolist() == list(range(len(ids)))


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    alone, together = pad_left([[5, 6]], 9), pad_left([[5, 6], [1, 2, 3, 4]], 9)
    assert together.tokens[0, 2:].tolist() == alone.tokens[0].tolist()
    assert together.positions[0, 2:].tolist() == alone.positions[0].tolist()


def test_an_empty_batch_or_row_is_refused() -> None:
    batches: list[list[list[int]]] = [[], [[]], [[1], []]]
    for rows in batches:
        with pytest.raises(PromptError, match="at least one"):
            pad_left(rows, 9)


def test_equal_texts_train_equal_tokenizers(vocabulary: Path, tmp_path: Path) -> None:
    train_tokenizer(iter(TEXTS), 400, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (vocabulary / name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_trained_tokenizer_is_one_that_transformers_knows(vocabulary: Path, stock: Any) -> None:
    assert (stock.bos_token, stock.eos_token, stock.pad_token) == (BOS, EOS, PAD)
    assert stock.encode("a cube")[0] == stock.bos_token_id
    assert stock.encode("a 24")[-2:] == stock.encode("24")[1:]  # digits stand alone
    assert stock.padding_side == "left"
    assert len(stock) <= 400
    assert stock.convert_tokens_to_ids(TAGS) == list(range(len(stock) - len(TAGS), len(stock)))


def test_a_vocabulary_without_room_for_all_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="264 or more, not 263"):
        train_tokenizer(TEXTS, 263, tmp_path)
    train_tokenizer(TEXTS, 264, tmp_path)
    assert Tokenizer.from_folder(tmp_path, 264).encode("猫")
