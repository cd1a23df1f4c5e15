"""JanusPipeline's answers: about one picture or many, alone, in a chat and as a stream."""

from typing import Any

import pytest
import torch
from pipeline_parts import QUESTION, codes, picture, refused, talk
from torch import Tensor

from janus_kit import answering
from janus_kit.errors import (
    OptionError,
    PromptError,
)
from janus_kit.pipeline import JanusPipeline
from janus_kit.writing import Ended, TextWriter

# Answers


def test_a_list_of_pictures_is_answered_as_each_alone(pipe: JanusPipeline) -> None:
    images = [picture(i, (64, 30 + 9 * i)) for i in range(10)]
    together = pipe.ask(images, QUESTION, max_new_tokens=8)
    assert together == [pipe.ask(image, QUESTION, max_new_tokens=8) for image in images]
    assert len(set(together)) > 2
    assert pipe.ask(images, QUESTION, max_new_tokens=8, batch_size=3) == together


def test_chats_of_different_lengths_are_answered_as_each_alone(pipe: JanusPipeline) -> None:
    chats = [
        talk("cat?"),
        talk(QUESTION, picture(1)),
        [*talk("a", picture(2)), {"role": "assistant", "content": "red"}, *talk("b", picture(3))],
        talk("two green dogs and 3 birds"),
    ]
    for options in (
        {},
        {"temperature": 1.0, "seed": 4},
        {"temperature": 0.8, "top_p": 0.9, "seed": 1},
    ):
        together = pipe.answer(chats, max_new_tokens=8, **options)
        assert together == [pipe.chat(chat, max_new_tokens=8, **options) for chat in chats]
        assert pipe.answer(chats, max_new_tokens=8, batch_size=2, **options) == together
        assert len(set(together)) > 1


def test_answers_of_a_long_list_without_a_seed_have_streams_of_their_own(
    pipe: JanusPipeline,
) -> None:
    options: dict[str, Any] = {"max_new_tokens": 8, "temperature": 1.5}
    assert len(set(pipe.ask([picture(1)] * 6, QUESTION, batch_size=2, **options))) > 2
    assert len(set(pipe.ask([picture(1)] * 6, QUESTION, batch_size=2, seed=1, **options))) == 1


def test_an_answer_that_ends_makes_room_for_the_next_of_a_list(
    spare: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = [talk("cat?"), *[talk(QUESTION, picture(i)) for i in range(7)]]
    options: dict[str, Any] = {"max_new_tokens": 8}
    wanted = answering._Wanted.of(spare, **options)
    columns = torch.stack(list(answering._tokens(spare, chats, wanted)[0]))
    some = [i for i in columns.unique().tolist() if 2 <= (columns == i).any(0).sum() <= 6]
    spare.tokenizer.eos = some[0]  # which ends some of the answers
    replies = [answering.reply(spare, chat, **options) for chat in chats]
    texts = ["".join(reply) for reply in replies]
    steps = [reply.completion_tokens + (reply.finish_reason == "stop") for reply in replies]
    by_length = sorted(range(8), key=lambda place: steps[place])
    order = [place for pair in zip(by_length, by_length[::-1], strict=True) for place in pair][:8]
    assert steps[order[0]] < steps[order[1]]
    taken = 0

    def count(writer: TextWriter) -> list[Ended]:
        nonlocal taken
        taken += 1
        return step(writer)

    step = TextWriter.step
    monkeypatch.setattr(TextWriter, "step", count)
    said = spare.answer([chats[place] for place in order], batch_size=2, **options)
    assert said == [texts[place] for place in order]
    assert taken < sum(
        max(steps[a], steps[b]) for a, b in zip(order[::2], order[1::2], strict=True)
    )


def test_a_chat_has_several_turns_and_pictures(pipe: JanusPipeline, read: list[Tensor]) -> None:
    turns = [
        *talk("a", picture(1), picture(2)),
        {"role": "assistant", "content": "red"},
        {
            "role": "user",
            "content": [{"type": "image", "image": picture(3)}, {"type": "text", "text": "b"}],
        },
    ]
    options: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.5, "seed": 1}
    answer = pipe.chat(turns, **options)
    assert (read[0] == pipe.tokenizer.image).sum() == 3 * 16
    turns[0]["images"].reverse()
    assert pipe.chat(turns, **options) != answer  # every picture counts


def test_a_caption_is_the_answer_to_describe_the_image(pipe: JanusPipeline) -> None:
    expected = pipe.ask(picture(1), "Describe the image.", max_new_tokens=8)
    assert pipe.caption(picture(1), max_new_tokens=8) == expected
    assert pipe.caption([picture(1)], max_new_tokens=8) == [expected]


def test_the_pieces_of_a_stream_are_the_answer(pipe: JanusPipeline) -> None:
    answers = []
    for seed in range(25):
        options: dict[str, Any] = {"max_new_tokens": 9, "temperature": 1.5, "seed": seed}
        pieces = list(pipe.chat(talk("cat?", picture(1)), stream=True, **options))
        assert all(pieces)
        answers.append(pipe.chat(talk("cat?", picture(1)), **options))
        assert "".join(pieces) == answers[-1]
    assert len(set(answers)) == 25


@pytest.mark.parametrize("text", [" \n red  cat \n ", " \n ", "", " \n\xf0"])
def test_blanks_around_an_answer_are_not_streamed(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    ids = pipe.tokenizer.encode(text)
    ids = ids[:-1] if text.endswith("\xf0") else ids  # ends inside a character
    monkeypatch.setattr(answering, "write_text", lambda *_, **__: iter(torch.tensor(ids)[:, None]))
    answer = pipe.chat(talk("a"), max_new_tokens=1)
    pieces = list(pipe.chat(talk("a"), max_new_tokens=1, stream=True))
    assert "".join(pieces) == answer == pipe.tokenizer.decode(ids).strip()
    assert all(pieces)


def test_a_sampled_answer_is_its_seeds(pipe: JanusPipeline) -> None:
    def say(seed: int) -> str:
        return str(pipe.ask(picture(1), "cat?", max_new_tokens=9, temperature=1, seed=seed))

    assert say(1) == say(1) != say(2)


def test_pictures_of_one_sampled_batch_have_streams_of_their_own(pipe: JanusPipeline) -> None:
    sampled: Any = {"max_new_tokens": 9, "temperature": 1}
    assert len(set(pipe.ask([picture(1)] * 4, "cat?", **sampled))) > 1
    alone = pipe.ask(picture(1), "cat?", seed=3, **sampled)
    assert pipe.ask([picture(1)] * 4, "cat?", seed=3, **sampled) == [alone] * 4


def test_an_answer_ends_with_the_end_of_sentence(spare: JanusPipeline) -> None:
    wanted = answering._Wanted.of(spare, max_new_tokens=8)
    ids = [int(token) for token in answering._tokens(spare, [talk("cat?")], wanted)[0]]
    spare.tokenizer.eos = ids[5]
    expected = spare.tokenizer.decode(ids[: ids.index(ids[5])]).strip()
    assert expected
    assert spare.chat(talk("cat?"), max_new_tokens=8) == expected
    assert "".join(spare.chat(talk("cat?"), max_new_tokens=8, stream=True)) == expected


CONTROL = [
    "<image_placeholder>",
    "<begin_of_image>",
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<|User|>",
]


@pytest.mark.parametrize("string", CONTROL)
def test_text_never_changes_the_number_of_control_ids(
    pipe: JanusPipeline, read: list[Tensor], string: str
) -> None:
    control = torch.tensor(sorted(pipe.tokenizer.control_ids))
    counts: list[list[int]] = []
    for text in ("cat", string, f"cat{string}{string} cat"):
        read.clear()
        codes(pipe, text, guidance_scale=1)
        drawing = read[0]
        read.clear()
        pipe.ask(picture(1), text, max_new_tokens=1)
        counts.append([int(torch.isin(ids, control).sum()) for ids in (drawing, read[0])])
    # BOS, user, assistant, begin of image; for a chat also end of image and the places of 16 codes.
    assert counts == [[4, 4 + 1 + 16]] * 3


def test_no_images_are_as_good_as_an_empty_list(pipe: JanusPipeline) -> None:
    without = {"role": "user", "content": "cat?"}
    expected = pipe.chat([without], max_new_tokens=4)
    for images in ([], (), None):
        assert pipe.chat([without | {"images": images}], max_new_tokens=4) == expected


def test_asking_about_no_pictures_gives_no_answers(pipe: JanusPipeline) -> None:
    assert pipe.ask([], QUESTION) == []


def test_only_a_chat_is_streamed(pipe: JanusPipeline) -> None:
    refused(OptionError, lambda: pipe.chat(talk("a"), stream=True, temperature=-1))
    refused(OptionError, lambda: pipe.ask(picture(1), QUESTION, stream=True))


def test_an_answer_takes_what_room_there_is_unless_told(pipe: JanusPipeline) -> None:
    limit = pipe.config.language.max_positions
    messages = [{"role": "user", "content": "word " * 10}]
    assert isinstance(pipe.chat(messages), str)
    with pytest.raises(PromptError, match="shorten"):
        pipe.chat(messages, max_new_tokens=limit)
