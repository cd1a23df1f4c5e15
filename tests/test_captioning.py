"""Captions of folders: nothing lost, nothing twice, and nothing of it depends on the batch."""

import dataclasses
import errno
import os
import shutil
import threading
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_parts import SHORT, Killed, contents, counts, picture, rows
from PIL import Image

from janus_kit import JanusPipeline, caption_folder, caption_stream
from janus_kit.batch.answers import Answerer
from janus_kit.batch.captioning import CaptionOptions
from janus_kit.batch.lanes import Lanes, lanes_for
from janus_kit.batch.loader import of_picture
from janus_kit.errors import BatchError, OptionError, PromptError
from janus_kit.prompts import Message, chat_ids


def test_captions_are_what_single_calls_answer(folder: Path, pipe: JanusPipeline) -> None:
    outcome = caption_folder(pipe, folder, **SHORT)
    assert (counts(outcome), outcome.calls) == ((18, 2, 0), 18)
    assert outcome.table == folder / "captions.jsonl"
    found = rows(folder)
    assert [row["file_name"] for row in found] == [f"{i:02}.png" for i in range(20)]
    for row in found:
        if "error" in row:
            continue
        path = folder / row["file_name"]
        assert row["caption"] == pipe.caption(path, **SHORT)
        text = path.with_suffix(".txt").read_text(encoding="utf-8")
        assert text == " ".join(row["caption"].split()) + "\n"
    errors = {row["file_name"]: row["error"] for row in found if "error" in row}
    assert sorted(errors) == ["07.png", "13.png"]
    assert errors["13.png"].startswith("is empty (0 bytes)")
    assert not (folder / "07.txt").exists()


def test_a_second_run_asks_nothing_and_changes_nothing(
    folder: Path, pipe: JanusPipeline, undisturbed: dict[str, bytes]
) -> None:
    caption_folder(pipe, folder, **SHORT)
    assert contents(folder) == undisturbed

    def refuse(*arguments: object) -> None:
        raise AssertionError("the model was called")

    blind = JanusPipeline(pipe.model, pipe.tokenizer, pipe.folder, pipe.name)
    blind.model = types.SimpleNamespace(config=pipe.config)  # type: ignore[assignment] # no weights
    outcome = caption_folder(blind, folder, **SHORT)
    assert (counts(outcome), outcome.calls) == ((18, 2, 0), 0)
    assert contents(folder) == undisturbed


@pytest.mark.parametrize("size", [1, 3, 16])
def test_no_result_depends_on_the_batch(
    folder: Path, pipe: JanusPipeline, undisturbed: dict[str, bytes], size: int
) -> None:
    caption_folder(pipe, folder, batch_size=size, **SHORT)
    assert contents(folder) == undisturbed


def test_pictures_read_side_by_side_get_the_same_answers(
    folder: Path, pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(folder.glob("*.png"))
    before = set(threading.enumerate())
    found = []
    for lanes in (0, 1, 3):
        monkeypatch.setattr("janus_kit.batch.answers.lanes_for", lambda model, n=lanes: n)
        answerer = Answerer(pipe, batch_size=2, **SHORT)
        pictures = ((path, of_picture(path, 64)) for path in paths)
        steps = answerer.run(pictures, lambda path: ["What is it?", "Where?"])
        found.append({(a.item, a.question): (a.text, a.error) for step in steps for a in step})
        assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("lane")]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 2 * len(paths)


def test_lanes_leave_torch_its_threads() -> None:
    before = torch.get_num_threads()
    with Lanes(2) as lanes:
        assert {lanes.submit(torch.get_num_threads).result() for _ in range(8)} == {1}
        assert torch.get_num_threads() == before
        later: list[int] = []
        other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        other.start()
        other.join()
    assert later == [before]


def test_only_small_models_on_a_cpu_read_side_by_side(pipe: JanusPipeline) -> None:
    model = types.SimpleNamespace(device=torch.device("cpu"), config=pipe.config)
    assert lanes_for(model) == torch.get_num_threads()  # type: ignore[arg-type]
    large = replace(pipe.config, language=replace(pipe.config.language, hidden=2048))
    for device, config in (("cuda", pipe.config), ("cpu", large)):
        model = types.SimpleNamespace(device=torch.device(device), config=config)
        assert lanes_for(model) == 0  # type: ignore[arg-type]


def test_a_stream_keeps_its_order_and_goes_on_after_a_bad_picture(
    folder: Path, pipe: JanusPipeline
) -> None:
    paths = [folder / f"{i:02}.png" for i in range(9)]
    items: list[Any] = [*paths, paths[0].read_bytes(), Image.open(paths[1]), 5]
    found = list(caption_stream(pipe, iter(items), "what?", batch_size=4, **SHORT))
    assert [caption.item for caption in found] == items
    bad = [i for i, caption in enumerate(found) if caption.error]
    assert bad == [7, 11]
    assert found[0].text == found[9].text == pipe.ask(paths[0], "what?", **SHORT)
    assert found[10].text == found[1].text


@pytest.mark.parametrize("dies", [False, True], ids=["calm", "killed"])
def test_a_folder_inside_may_be_another_disk(
    folder: Path, pipe: JanusPipeline, tmp_path: Path, dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sub").mkdir()
    for i in range(3):
        picture(folder / "sub" / f"{i}.png", 40 + i)
    calm = Path(shutil.copytree(folder, tmp_path / "calm"))
    caption_folder(pipe, calm, recursive=True, **SHORT)
    real = os.replace
    moves = 0

    def replace(old: Any, new: Any) -> None:
        nonlocal moves
        if Path(new).parent.name == "sub" and Path(old).parent != Path(new).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(old), None, str(new))
        moves += Path(new).parent.name == "sub"
        if dies and moves == 2:
            raise Killed
        real(old, new)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", replace)
        if dies:
            with monkeypatch.context() as inner:
                inner.setattr(Path, "unlink", lambda path, missing_ok=False: None)
                with pytest.raises(Killed):
                    caption_folder(pipe, folder, recursive=True, batch_size=1, **SHORT)
            assert [path.name for path in (folder / "sub").glob(".*")] == [".janus-tmp--copy"]
            moves = 2
        outcome = caption_folder(pipe, folder, recursive=True, batch_size=1, **SHORT)
    assert counts(outcome) == (21, 2, 0)
    assert contents(folder) == contents(calm)


# Sidecars, prompts and formats


def test_captions_that_are_there_are_kept_and_told(folder: Path, pipe: JanusPipeline) -> None:
    (folder / "01.txt").write_text("by a person\n")
    (folder / "02.txt").write_bytes(b"caf\xe9")
    outcome = caption_folder(pipe, folder, **SHORT)
    assert counts(outcome) == (17, 3, 0)
    found = rows(folder)
    assert found[1]["caption"] == "by a person"
    assert found[2]["error"].startswith("02.txt: is not UTF-8 text")
    assert (folder / "01.txt").read_text() == "by a person\n"
    assert (folder / "02.txt").read_bytes() == b"caf\xe9"


def test_captions_that_are_there_are_replaced_when_that_is_asked(
    folder: Path, pipe: JanusPipeline, undisturbed: dict[str, bytes]
) -> None:
    (folder / "01.txt").write_text("by a person\n")
    (folder / "02.txt").write_bytes(b"caf\xe9")
    caption_folder(pipe, folder, existing="overwrite", **SHORT)
    assert contents(folder) == undisturbed


def test_questions_fill_columns_and_holes_are_filled(tmp_path: Path, pipe: JanusPipeline) -> None:
    inside = tmp_path / "in" / "cats"
    inside.mkdir(parents=True)
    picture(inside / "tom.png", 1)
    (inside / "tom.txt").write_text("grey")
    outcome = caption_folder(
        pipe,
        inside,
        prompts=["Is {name} in {directory}?", "color=Not {caption} or {this}?"],
        prefix="{name}: ",
        suffix=" ({caption})",
        existing="overwrite",
        **SHORT,
    )
    assert outcome.calls == 2
    (row,) = rows(inside)
    first = pipe.ask(inside / "tom.png", "Is tom in cats?", **SHORT)
    second = pipe.ask(inside / "tom.png", "Not grey or {this}?", **SHORT)
    assert row == {"file_name": "tom.png", "caption": f"tom: {first} (grey)", "color": second}
    assert (inside / "tom.txt").read_text() == " ".join(row["caption"].split()) + "\n"


def kohya(image: str, ext: str = ".txt") -> str:
    """The caption that sd-scripts' read_caption takes for a picture: the first line."""
    stem = os.path.splitext(image)[0]  # noqa: PTH122 - as it does
    with Path(stem + ext).open(encoding="utf-8") as file:
        return file.readlines()[0].strip()


def taggui(image: Path) -> list[str]:
    """The tags that taggui's image list takes for a picture."""
    text = image.with_suffix(".txt").read_text(encoding="utf-8", errors="replace")
    return text.strip().split(", ")


def test_captions_are_read_whole_by_kohyas_rule_and_by_tagguis(
    tmp_path: Path, pipe: JanusPipeline
) -> None:
    names = [
        "a.b.c.png",
        "v1.5 two  words.png",
        "caf\u00e9 \u6f22\u5b57 \U0001f600.jpg",
        "UPPER.JPG",
    ]
    folder = tmp_path / "new\nline"
    folder.mkdir()
    for i, name in enumerate(names):
        picture(folder / name, i)
    prefix = "\n\t first, \u2028second\u2029 \n third\n"
    caption_folder(pipe, folder, prefix=prefix, suffix=" \n{directory}.\n", **SHORT)
    assert len(list(folder.glob("*.txt"))) == len(names)
    for row in rows(folder):
        image = folder / row["file_name"]
        whole = " ".join(row["caption"].split())
        assert whole.startswith("first, second third")
        assert whole.endswith("new line.")
        assert kohya(str(image)) == whole
        assert ", ".join(taggui(image)) == whole
        assert len(image.with_suffix(".txt").read_text("utf-8").splitlines()) == 1


# Inputs


@pytest.mark.parametrize("braces", ["{name", "name}", "{}", "{ name }", "{0} {{name}}", "}{"])
def test_other_braces_are_only_text(tmp_path: Path, pipe: JanusPipeline, braces: str) -> None:
    picture(tmp_path / "tom.png", 1)
    question, filled = f"What is {braces}?", f"What is {braces.replace('{name}', 'tom')}?"
    caption_folder(pipe, tmp_path, prompts=[question], prefix=braces, suffix=braces, **SHORT)
    (row,) = rows(tmp_path)
    around = braces.replace("{name}", "tom")
    answer = pipe.ask(tmp_path / "tom.png", filled, **SHORT)
    assert row["caption"] == f"{around}{answer}{around}"


def test_a_question_that_leaves_no_room_for_the_answer_is_told(
    tmp_path: Path, pipe: JanusPipeline
) -> None:
    picture(tmp_path / "a.png", 1)
    fits = next(n for n in range(400, 0, -1) if _tokens(pipe, "x " * n) + 6 <= 256)
    for count, state in ((fits, (1, 0, 0)), (fits + 1, (0, 1, 0))):
        out = tmp_path / str(count)
        outcome = caption_folder(pipe, tmp_path, out, prompts=["x " * count], **SHORT)
        assert counts(outcome) == state
    tokens = _tokens(pipe, "x " * (fits + 1))
    assert rows(out)[0]["error"] == (
        f"the question and the picture take {tokens} tokens and leave {256 - tokens} for the "
        "answer; shorten it or --max-new-tokens"
    )


def _tokens(pipe: JanusPipeline, question: str) -> int:
    turns = [Message("user", question, 1)]
    return len(chat_ids(pipe.tokenizer, pipe.template, turns, pipe.config.vision.tokens))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"prompts": []}, PromptError),
        ({"prompts": [" "]}, PromptError),
        ({"prompts": ["a\0b"]}, PromptError),
        ({"prompts": ["color=a", "color=b"]}, PromptError),
        ({"existing": "keep"}, OptionError),
        ({"formats": ["xml"]}, OptionError),
        ({"temperature": -1}, OptionError),
        ({"top_p": 0}, OptionError),
        ({"workers": -1}, OptionError),
    ],
)
def test_options_are_checked_at_birth(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        CaptionOptions(**options)
    assert dataclasses.is_dataclass(CaptionOptions)


@pytest.mark.parametrize("ext", ["txt", ".", "./x", ""])
def test_an_ending_that_is_none_is_told(tmp_path: Path, pipe: JanusPipeline, ext: str) -> None:
    picture(tmp_path / "a.png", 1)
    with pytest.raises(OptionError, match="--ext must be an ending"):
        caption_folder(pipe, tmp_path, ext=ext, **SHORT)


def test_results_need_a_folder(tmp_path: Path, pipe: JanusPipeline) -> None:
    picture(tmp_path / "a.png", 1)
    with pytest.raises(BatchError, match="else name --output"):
        caption_folder(pipe, tmp_path / "a.png", **SHORT)
    with pytest.raises(BatchError, match="is a file; --output names the folder"):
        caption_folder(pipe, tmp_path, tmp_path / "a.png", **SHORT)
