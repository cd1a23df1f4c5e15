"""Who answers DPG-Bench's questions: tiny models with random weights, and files."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from janus_kit.errors import ScoringError
from janus_kit.pipeline import JanusPipeline
from janus_kit.scoring.vqa import (
    MPLUG,
    Answer,
    JanusJudge,
    TransformersJudge,
    by_mplug,
    read_answers,
)


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "yes", "verdict"),
    [
        ("Yes.", 0.1, "Yes."),
        ("no", 0.9, "no"),
        ("a cat", 0.9, "yes"),
        ("a cat", 0.2, "no"),
        ("", 0.7, "yes"),
        ("a cat", None, "a cat"),
    ],
)
def test_logits_decide_where_the_text_does_not(text: str, yes: float | None, verdict: str) -> None:
    assert Answer(text, yes).verdict == verdict


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A folder with a tiny Llava of random weights."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("llava")
    words = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_folder / "tokenizer.json"),
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )
    small: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**small, image_size=32, patch_size=8),
        text_config=LlamaConfig(**small, vocab_size=len(words), pad_token_id=words.pad_token_id),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32),
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_batch_answers_what_single_questions_do(llava: Path) -> None:
    judge = TransformersJudge.open(str(llava), device="cpu", batch_size=3)
    name, _, version = judge.name.rpartition(" ")
    assert name == str(llava)
    assert re.fullmatch("[0-9a-f]{10}", version)  # of its weights
    questions = ["Is it a cat?", "Are there two green dogs and birds?", "red?", "Is it blue?"]
    shown = pictures(4)
    together = judge.answer(shown, questions)
    alone = [judge.answer([i], [q])[0] for i, q in zip(shown, questions, strict=True)]
    for one, other in zip(together, alone, strict=True):
        assert one.text == other.text
        assert one.yes == pytest.approx(other.yes, abs=1e-4)
        assert one.yes is not None
        assert 0 < one.yes < 1
    assert len({answer.yes for answer in together}) == 4  # pictures and questions count
    assert judge.answer([], []) == []


def test_yes_and_no_are_read_from_the_logits(llava: Path) -> None:
    judge = TransformersJudge.open(str(llava), device="cpu")
    everything = list(range(300))
    judge._ids = {"yes": everything, "no": []}
    assert judge.answer(pictures(1), ["Is it?"])[0].yes == pytest.approx(1)
    judge._ids = {"yes": [], "no": everything}
    assert judge.answer(pictures(1), ["Is it?"])[0].yes == pytest.approx(0)


def test_what_is_no_such_model_is_told(llava: Path, tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="cannot be loaded as a vision-language model"):
        TransformersJudge.open(str(tmp_path / "none"), device="cpu")
    judge = TransformersJudge.open(str(llava), device="cpu")
    judge._processor.chat_template = None
    with pytest.raises(ScoringError, match="has no chat template"):
        TransformersJudge(judge._model, judge._processor, "mute")


def test_janus_judges_pictures(hf_folder: Path) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder, device="cpu")
    judge = JanusJudge(pipe, batch_size=2)
    shown = pictures(3)
    found = judge.answer(shown, ["red?", "a cat?", "blue?"])
    assert [answer.text for answer in found] == [
        pipe.ask(image, question, max_new_tokens=8)
        for image, question in zip(shown, ["red?", "a cat?", "blue?"], strict=True)
    ]
    assert judge.name.endswith(pipe.model_hash)


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


def test_answers_of_others_are_read_with_their_holes_told(tmp_path: Path) -> None:
    row = {"item_id": "a", "tile": 0, "question_id": 1, "answer": "no", "judge": "mPLUG"}
    path = write(
        tmp_path / "answers.jsonl",
        [
            row,
            {**row, "answer": "yes"},
            "",
            {**row, "tile": 1},
            "{broken",
            {**row, "tile": "0"},
            {**row, "answer": True},
            [1],
        ],
    )
    answers, judges, complaints = read_answers(path)
    assert answers == {"a": {0: {1: "yes"}, 1: {1: "no"}}}
    assert judges == {"mPLUG"}
    assert [text.split(": ")[0].rpartition(":")[2] for text in complaints] == ["5", "6", "7", "8"]


@pytest.mark.parametrize(
    ("judges", "all_by_it"),
    [
        ({f"iic/{MPLUG}"}, True),
        ({f"damo/{MPLUG}", MPLUG, f"/models/{MPLUG}/"}, True),
        ({f"iic/{MPLUG}", ""}, False),
        ({f"iic/{MPLUG}", "Qwen/Qwen2.5-VL-7B-Instruct"}, False),
        ({f"mine/not-{MPLUG}"}, False),
        ({f"{MPLUG}.jsonl"}, False),
    ],
)
def test_answers_are_mplugs_where_each_names_it(judges: set[str], all_by_it: bool) -> None:
    assert by_mplug(judges) == all_by_it


def test_a_file_without_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="holds no answer"):
        read_answers(write(tmp_path / "a.jsonl", [{}]))
    with pytest.raises(ScoringError, match="cannot be read"):
        read_answers(tmp_path / "none.jsonl")
