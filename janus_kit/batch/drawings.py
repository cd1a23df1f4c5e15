"""Pictures of a file of prompts, each drawn once, however often a run is cut short."""

import json
import os
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from janus_kit.batch import results
from janus_kit.batch.answers import PATIENCE, Size, out_of_memory, why
from janus_kit.batch.files import Scratch, is_full, reason
from janus_kit.batch.ledger import Ledger, Shard, parse
from janus_kit.batch.run import Outcome, Tally, complete
from janus_kit.batch.wishes import Drawing, DrawOptions, read_prompts, usual
from janus_kit.errors import BatchError, OptionError, PromptError
from janus_kit.metadata import png_bytes
from janus_kit.pipeline import JanusPipeline
from janus_kit.vision.images import grid

__all__ = ["draw_file", "run_drawings"]

INDEX, SHEET = "index.jsonl", "sheet.png"
RESULTS = (INDEX, SHEET)  # who has claimed these has drawn the pictures
MOST = 64  # pictures on the contact sheet, 192 pixels each: the first of them all
THUMB = 192
_NAME = re.compile(r"\d{6,}_\d+\.png")  # of a picture, as read_prompts gives it


def draw_file(
    pipe: JanusPipeline,
    prompts: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    negative_prompt: str = "",
    num_images_per_prompt: int = 1,
    guidance_scale: float | None = None,
    temperature: float | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int | str = "auto",
    existing: str = "skip",
    retry_failed: bool = False,
    shard: Shard | None = None,
    progress: bool = False,
) -> Outcome:
    """Draw the prompts of a file into a folder; a second call draws what is left.

    Each picture is a PNG with its settings inside; index.jsonl lists them, and sheet.png shows the
    first. The file: see read_prompts. Options are those of the pipeline, for rows that say nothing
    else; seed is that of the first picture, and each row without one of its own counts on.
    existing="overwrite" replaces what other options have drawn, retry_failed tries again what
    could not be drawn, shard does a part of the pictures. Raises BatchError or OptionError for a
    run that cannot begin.
    """
    own = {"guidance": guidance_scale, "temperature": temperature}
    chosen = DrawOptions(
        samples=num_images_per_prompt,
        seed=seed,
        negative=negative_prompt,
        top_k=top_k,
        top_p=top_p,
        batch_size=batch_size,
        existing=existing,
        retry_failed=retry_failed,
        **{**usual(pipe.defaults), **{k: v for k, v in own.items() if v is not None}},
    )
    table = Path(prompts)
    return run_drawings(
        lambda: pipe,
        (pipe.name, pipe.model_hash),
        table,
        read_prompts(table, chosen),
        Path(output),
        chosen,
        shard=shard,
        progress=progress,
    )


def run_drawings(
    open_pipe: Callable[[], JanusPipeline],
    model: tuple[str, str],
    prompts: Path,
    items: Sequence[Drawing],
    target: Path,
    options: DrawOptions,
    *,
    shard: Shard | None = None,
    progress: bool = False,
    stop: object = False,
) -> Outcome:
    """Bring every picture to done or failed, as far as stop stays false; see draw_file.

    items: what read_prompts has read from prompts.
    """
    if target.exists() and not target.is_dir():
        raise BatchError(f"{target}: is a file; --output names the folder of the pictures")
    results.guard(target, RESULTS, [prompts])
    if not results.claimed(target).issuperset(RESULTS):
        for item in items:
            results.refuse(target / item.name)
    results.ready(target)
    return complete(
        lambda ledger: _Job(ledger, options),
        open_pipe,
        items,
        target,
        options.settings(*model),
        verb="drawing",
        shard=shard,
        restart=options.existing == "overwrite",
        progress=progress,
        stop=stop,
    )


class _Job:
    """Pictures on their way into a folder and its ledger."""

    def __init__(self, ledger: Ledger, options: DrawOptions) -> None:
        self.ledger, self.options = ledger, options
        self.scratch = Scratch(ledger.folder, ledger.label)
        self.calls = 0
        results.claim(ledger.folder, RESULTS)

    def settle(self) -> None:
        """Nothing: a picture has its name before its line is written."""

    def plan(self, items: Sequence[Drawing], count: Tally) -> list[Drawing]:
        todo = []
        for item in items:
            state = self.ledger.state(item.name, item.stamp)
            gone = state == "done" and not (self.ledger.folder / item.name).exists()
            if state == "pending" or gone or (state == "failed" and self.options.retry_failed):
                todo.append(item)
            else:
                count.add(state == "done", state == "failed", fresh=False)
        return todo

    def work(
        self, pipe: JanusPipeline, items: Sequence[Drawing], count: Tally, stop: object
    ) -> None:
        given = self.options.batch_size
        size = Size(given if isinstance(given, int) else 64 if pipe.device.type == "cuda" else 8)
        shown, pipe.progress = pipe.progress, False  # there is one line on the screen, ours
        broken = 0
        try:
            for _, group in groupby(items, key=lambda item: item.guidance):
                waiting = list(group)
                alone = 0  # pictures to be drawn one by one, to find the one that cannot be
                while waiting and not stop:
                    part = waiting[: 1 if alone else size.now]
                    try:
                        records = self._draw(pipe, part, stop)
                    except Exception as error:
                        if is_full(error):
                            raise
                        if out_of_memory(error):
                            size.halve()
                        if len(part) > 1:
                            alone = 0 if out_of_memory(error) else len(part)
                            continue
                        broken += not isinstance(error, PromptError | OptionError)
                        if broken >= PATIENCE:
                            raise
                        records = [_record(part[0], why(error))]
                    else:
                        broken = 0 if records else broken
                        size.worked(len(records))
                    waiting = waiting[len(records) :]
                    alone = max(0, alone - len(records))
                    if records:
                        self.ledger.write(records)
                        failed = sum("error" in record for record in records)
                        count.add(len(records) - failed, failed)
        finally:
            pipe.progress = shown

    def _draw(
        self, pipe: JanusPipeline, part: Sequence[Drawing], stop: object
    ) -> list[dict[str, Any]]:
        """Draw some pictures and write their files; their ledger lines, or none if stopped."""
        options = self.options
        drawn = pipe(
            [item.prompt for item in part],
            negative_prompt=[item.negative for item in part],
            generator=[torch.Generator().manual_seed(item.seed) for item in part],
            guidance_scale=part[0].guidance,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            batch_size=len(part),
            callback_on_step_end=lambda *step: not stop,
        )
        if bool((drawn.codes < 0).any()):
            return []
        self.calls += len(part)
        records = []
        for item, image, settings in zip(part, drawn.images, drawn.settings, strict=True):
            error = None
            try:
                self.scratch.write(self.ledger.folder / item.name, png_bytes(image, settings))
            except OSError as problem:
                if is_full(problem):
                    raise
                error = f"{item.name}: cannot be written ({reason(problem)})"
            records.append(_record(item, error))
        return records

    def write_tables(self, items: Sequence[Drawing], whole: bool) -> Path:
        """index.jsonl, and the contact sheet when nothing is left."""
        folder = self.ledger.folder
        index = folder / INDEX
        if self.options.existing == "overwrite":
            for name in _listed(index) - {item.name for item in items}:
                (folder / name).unlink(missing_ok=True)
        good: list[Path] = []
        with (
            self.scratch.growing(index) as part,
            part.open("w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            for item in items:
                state = self.ledger.state(item.name, item.stamp)
                if state == "pending":
                    continue
                row: dict[str, Any] = {
                    "file_name": item.name,
                    "prompt": item.prompt,
                    "negative_prompt": item.negative,
                    "seed": item.seed,
                    "guidance": item.guidance,
                }
                if state == "failed":
                    row["error"] = self.ledger.record(item.name)["error"]
                elif len(good) < MOST:
                    good.append(folder / item.name)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if whole and good:
            with self.scratch.growing(folder / SHEET) as part:
                grid([_thumbnail(path) for path in good]).save(part, format="PNG")
        return index


def _listed(index: Path) -> set[str]:
    """The pictures that the list of a run names."""
    if not index.exists():
        return set()
    with index.open("rb") as file:
        named = [str((parse(line) or {}).get("file_name")) for line in file]
    return {name for name in named if _NAME.fullmatch(name)}


def _thumbnail(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.thumbnail((THUMB, THUMB))
        return image.convert("RGB")


def _record(item: Drawing, error: str | None) -> dict[str, Any]:
    record: dict[str, Any] = {"name": item.name, "stamp": item.stamp}
    return record if error is None else {**record, "error": error}
