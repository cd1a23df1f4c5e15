"""The tokenizer stage: texts → a folder with tokenizer.json, in the form of the published ones."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from janus_kit.errors import OptionError
from janus_kit.prompts import ASSISTANT, BEGIN_IMAGE, BOS, END_IMAGE, EOS, IMAGE, PAD, USER

__all__ = ["train_tokenizer"]

_CONTROL = (BOS, EOS, PAD, BEGIN_IMAGE, END_IMAGE, IMAGE, USER, ASSISTANT)
_SMALLEST = 256 + len(_CONTROL)  # every byte has an id, so every text can be written


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> Tokenizer:
    """Learn a byte-level BPE of at most vocab_size ids, write it into folder and return it.

    Equal texts give equal files. The control ids come after the text ids, as in the published
    vocabulary, and digits stand alone, so that "24" and "4" share what they can share.
    """
    if vocab_size < _SMALLEST:
        raise OptionError(f"vocab_size must be {_SMALLEST} or more, not {vocab_size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(_CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in _CONTROL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS}:1 $B:1",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    _write(folder / "tokenizer_config.json", json.dumps(settings, ensure_ascii=False, indent=2))
    return tokenizer


def _write(path: Path, text: str) -> None:
    """Put text into path: the whole of it, or nothing."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
