"""Judging pictures by the model's own eyes, keeping the best, and beginning with given codes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run
from PIL import Image

from janus_kit import answering
from janus_kit.errors import CheckpointError, OptionError, PromptError
from janus_kit.metadata import Settings, read_settings
from janus_kit.pipeline import JanusPipeline
from janus_kit.prompts import chat_ids, pad_left

PROMPT = "a red cat"


@pytest.fixture(scope="module")
def pipe(hf_folder: Path) -> JanusPipeline:
    pipe = JanusPipeline.from_pretrained(hf_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def colors(*names: str) -> list[Image.Image]:
    return [Image.new("RGB", (70, 50), name) for name in names]


# Judging


def test_a_score_is_the_probability_of_yes_among_yes_and_no(pipe: JanusPipeline) -> None:
    (image,) = colors("red")
    ((place, score),) = pipe.rank(image, PROMPT, question="Is this {prompt}?")
    # The same by one plain pass over the whole answer of the model.
    turns = [{"role": "user", "images": [image], "content": f"Is this {PROMPT}?"}]
    said, found = answering.conversation.read(turns)
    row = chat_ids(pipe.tokenizer, pipe.template, said, pipe.config.vision.tokens)
    common, yes, no = answering._yes_no(pipe.tokenizer)
    pixels = answering.pictures.to_pixels(answering.pictures.load(found[0]), 64)[None]
    with torch.inference_mode():
        inputs = pad_left([[*row, *common]], pipe.tokenizer.pad)
        embeds = pipe.model.embed(
            inputs.tokens, pipe.tokenizer.image, list(pipe.model.features(pixels))
        )
        logits = pipe.model.text_head(pipe.model.language(embeds)[0, -1])
    expected = logits[[yes, no]].softmax(0)[0]
    assert place == 0
    assert score == pytest.approx(float(expected), abs=1e-6)


def test_yes_and_no_begin_where_an_answer_does(pipe: JanusPipeline) -> None:
    common, yes, no = answering._yes_no(pipe.tokenizer)
    words = [pipe.tokenizer.decode([*common, first]) for first in (yes, no)]
    assert [" Yes".startswith(words[0]), " No".startswith(words[1])] == [True, True]
    assert words[0] != words[1]


def test_the_best_picture_comes_first_and_scores_do_not_depend_on_the_batch(
    pipe: JanusPipeline,
) -> None:
    shown = colors("red", "blue", "green", "white", "black")
    ranked = pipe.rank(shown, PROMPT)
    assert sorted(place for place, _ in ranked) == [0, 1, 2, 3, 4]
    assert [score for _, score in ranked] == sorted((s for _, s in ranked), reverse=True)
    assert len({score for _, score in ranked}) == 5
    alone = {i: pipe.rank(shown[i], PROMPT)[0].score for i in range(5)}
    assert alone == dict(ranked)
    batched = dict(pipe.rank(shown, PROMPT, batch_size=3))
    assert batched == pytest.approx(alone, abs=1e-5)


def test_equal_pictures_keep_their_order(pipe: JanusPipeline) -> None:
    assert [r.place for r in pipe.rank(colors("red", "red", "red"), PROMPT)] == [0, 1, 2]


def test_no_pictures_have_no_ranks(pipe: JanusPipeline) -> None:
    assert pipe.rank([], PROMPT) == []


def test_braces_of_a_prompt_are_text(pipe: JanusPipeline) -> None:
    assert len(pipe.rank(colors("red"), "a {prompt} of {0} {")) == 1


def test_a_question_without_the_prompt_is_refused(pipe: JanusPipeline) -> None:
    with pytest.raises(OptionError, match=r"must hold \{prompt\}"):
        pipe.rank(colors("red"), PROMPT, question="Is it good?")


def test_a_prompt_that_is_no_text_is_refused(pipe: JanusPipeline) -> None:
    with pytest.raises(PromptError, match="prompt must be text"):
        pipe.rank(colors("red"), 5)  # type: ignore[arg-type]


def test_a_tokenizer_that_writes_yes_and_no_alike_cannot_judge() -> None:
    class Alike:
        def encode(self, text: str) -> list[int]:
            return [1] if text == ":" else [1, 7]

    with pytest.raises(CheckpointError, match="cannot judge"):
        answering._yes_no(Alike())  # type: ignore[arg-type]


# The best of several


def test_best_of_keeps_the_best_of_what_the_same_seeds_draw(pipe: JanusPipeline) -> None:
    drawn = pipe([PROMPT, "two dogs"], seed=5, best_of=4, num_images_per_prompt=2)
    assert drawn.scores is not None
    assert len(drawn.images) == len(drawn.seeds) == len(drawn.scores) == 4
    for start, prompt in ((0, PROMPT), (2, "two dogs")):
        every = pipe(prompt, seed=5 + 2 * start, num_images_per_prompt=4)
        ranked = pipe.rank(every.images, prompt)[:2]
        assert drawn.seeds[start : start + 2] == [every.seeds[r.place] for r in ranked]
        assert drawn.scores[start : start + 2] == [r.score for r in ranked]
        for place, (found, _) in enumerate(ranked):
            assert torch.equal(drawn.codes[start + place], every.codes[found])
            assert drawn.images[start + place] == every.images[found]
            assert drawn.settings[start + place] == every.settings[found]


@pytest.mark.parametrize("output_type", ["np", "pt", "tokens"])
def test_best_of_gives_every_output_type(pipe: JanusPipeline, output_type: str) -> None:
    drawn = pipe(PROMPT, seed=1, best_of=2, output_type=output_type)
    plain = pipe(PROMPT, seed=drawn.seeds[0], output_type=output_type)
    assert (torch.as_tensor(drawn.images) == torch.as_tensor(plain.images)).all()


@pytest.mark.parametrize("best_of", [0, 1, -1, 1001, 2.0, "3", True])
def test_best_of_must_be_at_least_what_is_kept(pipe: JanusPipeline, best_of: Any) -> None:
    with pytest.raises(OptionError, match=r"^best_of must be a whole number from 2"):
        pipe(PROMPT, num_images_per_prompt=2, best_of=best_of)


def test_without_best_of_there_are_no_scores(pipe: JanusPipeline) -> None:
    assert pipe(PROMPT, seed=1).scores is None


def test_a_stopped_call_judges_nothing(pipe: JanusPipeline) -> None:
    drawn = pipe(PROMPT, seed=1, best_of=3, callback_on_step_end=lambda *_: False)
    assert drawn.scores is None
    assert (drawn.codes[:, 4:] == -1).all()
    assert len(drawn.images) == 3


# Beginning with given codes


def test_a_picture_begun_with_its_own_codes_is_the_same_picture(pipe: JanusPipeline) -> None:
    whole = pipe(PROMPT, seed=3)
    for kept in (1, 4, 9, 15):
        again = pipe(PROMPT, seed=3, initial_codes=whole.codes[:, :kept])
        assert torch.equal(again.codes, whole.codes)
        assert again.images == whole.images


def test_the_kept_rows_stay_and_the_rest_is_drawn_anew(pipe: JanusPipeline) -> None:
    whole = pipe(PROMPT, seed=3)
    varied = pipe(
        PROMPT, seed=50, num_images_per_prompt=3, initial_codes=whole.codes[0, :8], batch_size=2
    )
    assert (varied.codes[:, :8] == whole.codes[:, :8]).all()
    assert len({tuple(row.tolist()) for row in varied.codes[:, 8:]}) == 3
    single = pipe(PROMPT, seed=52, initial_codes=whole.codes[0, :8])
    assert torch.equal(varied.codes[2:], single.codes)


def test_every_picture_can_begin_with_its_own(pipe: JanusPipeline) -> None:
    two = pipe(PROMPT, seed=3, num_images_per_prompt=2)
    varied = pipe(
        PROMPT, seed=9, num_images_per_prompt=2, initial_codes=two.codes[:, :4], guidance_scale=1
    )
    assert torch.equal(varied.codes[:, :4], two.codes[:, :4])


def test_what_a_picture_began_with_is_in_its_settings(pipe: JanusPipeline, tmp_path: Path) -> None:
    varied = pipe(PROMPT, seed=9, initial_codes=[1, 2, 3])
    (path,) = varied.save(tmp_path)
    settings = read_settings(path)
    assert settings == varied.settings[0]
    assert settings.initial_codes == (1, 2, 3)
    again = pipe(settings.prompt, seed=settings.seed, initial_codes=settings.initial_codes)
    assert torch.equal(again.codes, varied.codes)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        ([], "whole numbers|from 1 to 15"),
        ([[]], "whole numbers|from 1 to 15"),
        (list(range(16)), "from 1 to 15"),
        ([[1], [2]], r"\[1, k\]"),
        ([[[1]]], "from 1 to 15"),
        ([64], "0 to 63, not 64 to 64"),
        ([-1, 2], "0 to 63, not -1 to 2"),
        ([1.0], "whole numbers"),
        ([[1], [2, 3]], "whole numbers"),
        ("abc", "whole numbers"),
        (7, r"not \[\]"),
    ],
)
def test_codes_that_no_picture_can_begin_with_are_refused(
    pipe: JanusPipeline, codes: Any, words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        pipe(PROMPT, initial_codes=codes)


@pytest.mark.parametrize("codes", [[-1], ["a"], [1.5], 7, "x", [True], [[1]]])
def test_settings_hold_codes_only(codes: Any) -> None:
    with pytest.raises(OptionError, match="initial_codes must be whole numbers"):
        Settings(prompt="", initial_codes=tuple(codes) if isinstance(codes, list) else codes)


# Replies that count


def test_a_reply_counts_its_tokens_and_says_why_it_ended(pipe: JanusPipeline) -> None:
    (image,) = colors("red")
    turns = [{"role": "user", "images": [image], "content": "what is this?"}]
    reply = pipe.chat(turns, stream=True, max_new_tokens=5)
    assert reply.finish_reason is None
    said, found = answering.conversation.read(turns)
    row = chat_ids(pipe.tokenizer, pipe.template, said, pipe.config.vision.tokens)
    assert (reply.prompt_tokens, len(found)) == (len(row), 1)
    text = "".join(reply)
    assert text.strip() == pipe.chat(turns, max_new_tokens=5)
    assert 0 <= reply.completion_tokens <= 5
    assert reply.finish_reason == ("length" if reply.completion_tokens == 5 else "stop")


def test_a_reply_that_ends_by_itself_says_stop(pipe: JanusPipeline) -> None:
    eos = torch.tensor([pipe.tokenizer.eos])
    word = torch.tensor([pipe.tokenizer.encode("a")[0]])
    reply = answering.Reply(pipe.tokenizer, iter([word, word, eos]), 3)
    assert ("".join(reply), reply.completion_tokens, reply.finish_reason) == ("aa", 2, "stop")


# On the command line


def test_best_of_prints_paths_and_scores_best_first(janus: Run) -> None:
    arguments = ("generate", PROMPT, "--best-of", 4, "-n", 2, "--seed", 5)
    ended = janus(*arguments)
    assert (ended.code, ended.err) == (0, "")
    paths, scores = zip(*(line.split("\t") for line in ended.lines), strict=True)
    assert list(scores) == sorted(scores, key=float, reverse=True)
    records = janus(*arguments, "--json", "-o", "other").records
    assert [f"{record['score']:.4f}" for record in records] == list(scores)
    (alone,) = janus("generate", PROMPT, "--seed", records[0]["seed"], "-o", "alone").lines
    assert Path(paths[0]).read_bytes() == Path(alone).read_bytes()


def test_best_of_must_be_num_or_more_on_the_command_line(janus: Run) -> None:
    ended = janus("generate", PROMPT, "--best-of", 2, "-n", 3)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "janus-kit: --best-of must be --num (3) or more, not 2\n"


def test_best_of_goes_on_after_a_prompt_that_cannot_be_drawn(janus: Run) -> None:
    ended = janus("generate", PROMPT, "x" * 2001, "two dogs", "--best-of", 2, "--seed", 0)
    assert ended.code == 3
    assert len(ended.lines) == 2
    assert "2001 characters" in ended.err


def test_a_varied_picture_is_drawn_again_from_its_file(
    janus: Run, pipe: JanusPipeline, tmp_path: Path
) -> None:
    (path,) = pipe(PROMPT, seed=9, initial_codes=[1, 2, 3], guidance_scale=2).save(tmp_path / "v")
    (again,) = janus("generate", "--from", path).lines
    assert Path(again).read_bytes() == path.read_bytes()
