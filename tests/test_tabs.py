"""The handlers of the page, called as Gradio calls them: what they leave, and what they say."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image
from serving import gradio

from janus_kit import JanusPipeline, Settings, save_png

gr = pytest.importorskip("gradio")

from janus_kit.demos.app import build_app, sweep  # noqa: E402
from janus_kit.demos.draw_tab import draw_tab  # noqa: E402
from janus_kit.demos.jobs import Row, Thinking, Waiting  # noqa: E402
from janus_kit.demos.studio import Progress, Studio, parse_seed, table_bytes  # noqa: E402
from janus_kit.demos.worker import ModelWorker  # noqa: E402
from janus_kit.known import Hint  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # Gradio leaves loops open

T = TypeVar("T")
Handler = Callable[..., AsyncIterator[dict[Any, Any]]]
DRAWING = ("a red cat", "", 2, "5", 1.5, 0.5, 0, True)


@pytest.fixture(scope="module")
def pipe(hf_folder: Path) -> JanusPipeline:
    pipe = JanusPipeline.from_pretrained(hf_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module", autouse=True)
def _loops() -> Iterator[None]:
    with gradio():
        yield


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files of the page lie."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def worker(pipe: JanusPipeline) -> Iterator[ModelWorker]:
    worker = ModelWorker(pipe, cap=1)
    yield worker
    worker.close(20)


@pytest.fixture
def app(pipe: JanusPipeline, worker: ModelWorker, cache: Path) -> Any:
    return build_app(pipe, worker=worker)


def handler(app: Any, name: str) -> Handler:
    return next(fn.fn for fn in app.fns.values() if fn.api_name == name)  # type: ignore[no-any-return]


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 60))


async def updates(events: AsyncIterator[dict[Any, Any]]) -> list[dict[Any, Any]]:
    return [update async for update in events]


def said(update: dict[Any, Any]) -> str:
    """The line of status in an update."""
    lines = (v for k, v in update.items() if str(k.elem_id).endswith("-status"))
    return str(next(lines, ""))


def files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.is_file()}


def shown(value: Any) -> set[str]:
    """Every text in an update, the paths of files among them."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return {text for part in value for text in shown(part)}
    return {value} if isinstance(value, str) else set()


# What is left behind


@pytest.mark.parametrize("name", ["draw", "compare", "describe"])
def test_every_file_that_is_written_is_shown_so_that_it_is_swept(
    app: Any, cache: Path, tmp_path: Path, name: str
) -> None:
    before = files(cache)
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    given: tuple[Any, ...] = {
        "draw": DRAWING,
        "compare": ("a red cat", "Guidance", "1, 2", "1"),
        "describe": ([str(tmp_path / "a.png")] * 2, None),
    }[name]
    every = run(updates(handler(app, name)(*given)))
    left = files(cache) - before
    assert left
    assert left <= shown(every)


def test_pictures_that_are_not_waited_for_are_not_written(app: Any, cache: Path) -> None:
    async def leave() -> None:
        events = handler(app, "draw")(*DRAWING)
        async for update in events:
            if said(update).startswith("Judging"):
                await events.aclose()  # type: ignore[attr-defined]

    before = files(cache)
    run(leave())
    assert {Path(path).suffix for path in files(cache) - before} <= {".jpg"}  # previews, shown


@pytest.mark.parametrize("name", ["draw", "compare", "describe", "ask"])
def test_whoever_leaves_at_the_first_word_leaves_no_job(
    app: Any, worker: ModelWorker, tmp_path: Path, name: str
) -> None:
    begun, go = threading.Event(), threading.Event()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")

    def busy() -> Iterator[str]:
        begun.set()
        yield "begun"
        go.wait(30)

    async def leave() -> None:
        given: tuple[Any, ...] = {
            "draw": DRAWING,
            "compare": ("a red cat", "Guidance", "1, 2", "1"),
            "describe": ([str(tmp_path / "a.png")], "what?"),
            "ask": ({"text": "what?", "files": []}, [], [], 8, 0),
        }[name]
        job = worker.submit(Thinking(busy))
        await asyncio.to_thread(begun.wait, 30)
        events = handler(app, name)(*given)
        await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)
        go.set()
        assert [event async for event in job.events()]

    run(leave())
    assert worker.close(20)
    assert worker.counts.started == 1
    assert worker.counts.done == 1


def test_the_pictures_of_examples_outlive_the_sweeps(app: Any, cache: Path) -> None:
    from gradio.route_utils import delete_files_created_by_app

    (box,) = [b for b in app.blocks.values() if b.elem_id == "ask-box"]
    examples = files(cache)
    assert len(examples) == 2
    (cache / "old").mkdir()
    (cache / "old/a.png").write_bytes(b"")
    box.temp_files.update(examples)  # as Gradio does when they are clicked
    delete_files_created_by_app(app, -1)
    sweep(cache, -1, {path for block in app.blocks.values() for path in block.keep_in_cache})
    assert files(cache) == examples
    assert not (cache / "old").exists()


def test_the_sweep_takes_what_is_old_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.png").write_bytes(b"")
    sweep(tmp_path, 100, set())
    assert (tmp_path / "a/b.png").exists()
    sweep(tmp_path, -1, {str(tmp_path / "a/b.png")})
    assert (tmp_path / "a/b.png").exists()
    sweep(tmp_path, -1, set())
    assert not list(tmp_path.iterdir())


# What is said


def test_a_full_queue_is_told_on_the_page(app: Any, worker: ModelWorker) -> None:
    begun, go = threading.Event(), threading.Event()

    def busy() -> Iterator[str]:
        begun.set()
        yield "begun"
        go.wait(30)

    async def crowd() -> str:
        worker.submit(Thinking(busy))
        await asyncio.to_thread(begun.wait, 30)
        first = handler(app, "draw")(*DRAWING)
        assert said(await anext(first)) == "Waiting: 1 job is ahead of yours."
        with pytest.raises(gr.Error) as told:
            await updates(handler(app, "draw")(*DRAWING))
        with pytest.raises(gr.Error, match="queue is full"):
            await updates(handler(app, "ask")({"text": "what?", "files": []}, [], [], 8, 0))
        go.set()
        await updates(first)
        return str(told.value.message)

    assert run(crowd()).startswith("The queue is full: 1 jobs are waiting; try again in ")


def test_a_second_turn_knows_the_pictures_of_the_first(
    app: Any, pipe: JanusPipeline, tmp_path: Path
) -> None:
    pictures = []
    for name, color in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (64, 64), color).save(tmp_path / f"{name}.png")
        pictures.append(str(tmp_path / f"{name}.png"))

    async def talk() -> tuple[list[Any], list[str]]:
        turns: list[Any] = []
        history: list[Any] = []
        grown: list[str] = []
        for given in ({"text": "what?", "files": pictures}, {"text": "and now?", "files": []}):
            async for update in handler(app, "ask")(given, turns, history, 8, 0):
                names = {block.elem_id or type(block).__name__: v for block, v in update.items()}
                chat = names.get("ask-chat")
                if chat and chat[-1]["role"] == "assistant":
                    grown.append(chat[-1]["content"])
                    states = [v for block, v in update.items() if isinstance(block, gr.State)]
                    history, turns = sorted(states, key=lambda s: "images" in s[0])
        return turns, grown

    turns, grown = run(talk())
    assert [len(turn.get("images", [])) for turn in turns] == [2, 0, 0, 0]
    views = [pipe.view(path) for path in pictures]
    first = {"role": "user", "content": "what?", "images": views}
    one = pipe.chat([first], max_new_tokens=8)
    two = pipe.chat(
        [first, {"role": "assistant", "content": one}, {"role": "user", "content": "and now?"}],
        max_new_tokens=8,
    )
    assert [turn["content"].strip() for turn in turns[1::2]] == [one, two]
    assert len(set(grown)) > 4  # piece by piece
    alone = pipe.chat([{"role": "user", "content": "and now?"}], max_new_tokens=8)
    assert two != alone


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "The settings of the file are here"),
        ({"top_p": 1.0, "temperature": 2.0, "guidance_scale": 10.0}, "The settings of the file"),
        ({"initial_codes": (1, 2, 3)}, "cannot take over the 3 codes that it begins with"),
        ({"top_p": 0.9}, "cannot take over top-p 0.9"),
        ({"guidance_scale": 12.5}, "guidance 12.5, which is 10 here"),
        ({"temperature": 3.0, "guidance_scale": 0.5}, "guidance 0.5, which is 1 here; temp"),
        ({"top_k": 2**40}, "top-k 1099511627776, which is 2147483647 here"),
    ],
)
def test_what_a_file_says_and_the_page_cannot_hold_is_told(
    pipe: JanusPipeline, worker: ModelWorker, changes: dict[str, Any], words: str
) -> None:
    with gr.Blocks():
        tab = draw_tab(Studio(pipe, worker))
    filled = tab.fill(Settings(prompt="a", seed=2**62, **changes))
    assert words in filled[tab.status]
    assert ("another picture" in filled[tab.status]) is (words[:3] != "The")
    assert (filled[tab.prompt], filled[tab.seed]) == ("a", str(2**62))
    for field in (tab.guidance, tab.temperature, tab.top_k):
        assert field.preprocess(filled[field]) == filled[field]


def test_a_picture_of_a_file_is_shown_small_and_beside_other_work(app: Any, tmp_path: Path) -> None:
    save_png(Image.new("RGB", (3000, 1500)), tmp_path / "a.png", Settings(prompt="a"))

    async def read() -> dict[Any, Any]:
        found: dict[Any, Any] = await handler(app, "read")(str(tmp_path / "a.png"))  # type: ignore[misc]
        return found

    update = run(read())
    (path,) = [v["value"] for block, v in update.items() if block.elem_id == "read-picture"]
    with Image.open(path) as image:
        assert image.size == (1024, 512)


def test_the_time_that_is_left_and_the_place_in_the_queue_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("janus_kit.demos.studio.time.monotonic", lambda: now)
    progress = Progress(4)
    assert progress.tell(Waiting(0)) == "Waiting for the model …"
    assert progress.tell(Waiting(1)) == "Waiting: 1 job is ahead of yours."
    assert progress.tell(Waiting(3)) == "Waiting: 3 jobs are ahead of yours."
    assert progress.tell(Row(0, 2, 4, 24)) == "Row 4 of 24 of pictures 1 to 2 …"
    now += 10  # for 8 rows of half of the pictures; 12 rows of it and the other half are left
    assert progress.tell(Row(0, 2, 12, 24)).endswith("pictures 1 to 2 · about 45 s left")
    now += 15
    assert progress.tell(Row(0, 2, 24, 24)).endswith("about 30 s left")
    assert progress.tell(Row(2, 2, 12, 24)).startswith("Row 12 of 24 of pictures 3 to 4")
    now += 1000
    assert progress.tell(Row(2, 2, 18, 24)).endswith("about 3 min left")
    assert "pictures" not in Progress(1).tell(Row(0, 1, 1, 24))


def test_a_seed_is_read_to_its_last_digit() -> None:
    assert parse_seed(" 7 ") == 7
    assert parse_seed(str(2**63 - 8), 8) == 2**63 - 8
    assert 0 <= parse_seed("") < 2**32
    assert parse_seed("0" * 30 + "5") == 5
    for text in (str(2**63 - 7), "0" * 30 + "9" * 25, "9" * 5000, "-1", "1.5", "٣", "²"):
        with pytest.raises(gr.Error, match="whole number from 0 on"):
            parse_seed(text, 8)


def test_a_table_of_captions_has_no_formulas() -> None:
    cells = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a=1", "", 'say "a"')
    text = table_bytes(("File", "Caption"), [(cell, cell) for cell in cells]).decode("utf-8-sig")
    lines = text.split("\r\n")
    assert lines[0] == '"File","Caption"'
    assert lines[1] == '"\'=1+1","\'=1+1"'
    assert [line[1] for line in lines[1:7]] == ["'"] * 6
    assert lines[7:10] == ['"a=1","a=1"', '"",""', '"say ""a""","say ""a"""']


def test_words_that_the_model_never_learnt_are_named_beside_the_picture(
    pipe: JanusPipeline, app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends() -> str:
        return said(run(updates(handler(app, "draw")(*DRAWING)))[-1])

    assert "By the way" not in ends()  # a model without a list of words knows all
    (tmp_path / "words.txt").write_text("a\nred\n")
    monkeypatch.setattr(pipe, "hint", Hint(tmp_path))
    assert re.search("^Done in .*without 'cat'.*--model", ends())
