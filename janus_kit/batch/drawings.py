"""Pictures of a file of prompts, each drawn once, however often a run is cut short."""

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from janus_kit.batch import results
from janus_kit.batch.answers import PATIENCE, Size, out_of_memory, why
from janus_kit.batch.files import Scratch, blocks, is_full, reason
from janus_kit.batch.ledger import Ledger, Shard, parse
from janus_kit.batch.run import Outcome, Tally, complete
from janus_kit.errors import BatchError, OptionError, PromptError
from janus_kit.generation.sampling import SamplingOptions
from janus_kit.metadata import png_bytes
from janus_kit.options import SEEDS, whole
from janus_kit.pipeline import JanusPipeline
from janus_kit.vision.images import grid

__all__ = ["DrawOptions", "Drawing", "draw_file", "read_prompts", "run_drawings"]

INDEX, SHEET = "index.jsonl", "sheet.png"
RESULTS = (INDEX, SHEET)  # who has claimed these has drawn the pictures
MOST = 64  # pictures on the contact sheet, 192 pixels each: the first of them all
THUMB = 192
_NAME = re.compile(r"\d{6,}_\d+\.png")  # of a picture, as read_prompts gives it
_GUIDANCE = ("guidance", "guidance_scale")


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """How the prompts of a file are drawn; what a row says for itself goes before this."""

    samples: int = 1  # pictures for each prompt
    seed: int = 0  # of the first picture; each row without a seed of its own counts on
    guidance: float = 5.0
    negative: str = ""
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    batch_size: int | None = None  # pictures at once; None: 8, or 64 on a GPU
    existing: str = "skip"  # or overwrite: what other options have drawn is drawn again
    retry_failed: bool = False

    def __post_init__(self) -> None:
        whole("samples", self.samples, 1, 100_000)
        whole("seed", self.seed, 0, SEEDS - 1)
        if self.existing not in ("skip", "overwrite"):
            raise OptionError(
                f"--existing must be skip or overwrite for drawings, not {self.existing!r}"
            )
        SamplingOptions(
            guidance=self.guidance,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )

    def settings(self, model: str, digest: str) -> dict[str, Any]:
        """What pictures depend on but for their rows: a run goes on only with the same."""
        free = ("batch_size", "existing", "retry_failed")
        chosen = {name: value for name, value in asdict(self).items() if name not in free}
        return {"task": "generate", "model": model, "hash": digest, **chosen}


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture to be drawn; name is its file's."""

    name: str
    prompt: str
    negative: str
    seed: int
    guidance: float

    @property
    def stamp(self) -> str:
        said = json.dumps([self.prompt, self.negative, self.seed, self.guidance])
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def usual(defaults: SamplingOptions) -> dict[str, float]:
    """How a model draws unless told, as DrawOptions has it."""
    return {"guidance": defaults.guidance, "temperature": defaults.temperature}


def read_prompts(path: Path, options: DrawOptions) -> list[Drawing]:
    """The pictures that a file asks for: a prompt a line of text, or a table's rows.

    Tables (.jsonl, .csv, .parquet) have a column prompt and may have negative_prompt, seed and
    guidance. Raises BatchError for a file that cannot be read, naming the line.
    """
    found: list[Drawing] = []
    for number, row in enumerate(_rows(path), 1):
        prompt, negative = row.get("prompt"), row.get("negative_prompt") or options.negative
        if not isinstance(prompt, str) or not isinstance(negative, str):
            columns = ", ".join(map(str, row)) or "nothing"
            raise BatchError(f"{path}: row {number} has no text in prompt; it has {columns}")
        own = _number(path, number, "seed", row.get("seed"), int)
        scales = [row[name] for name in _GUIDANCE if row.get(name) not in (None, "")]
        scale = _number(path, number, "guidance", scales[0] if scales else None, float)
        for sample in range(options.samples):
            index = len(found)
            seed = options.seed + index if own is None else own + sample
            if not 0 <= seed < SEEDS:
                raise BatchError(f"{path}: row {number} has the seed {seed}; from 0 to 2**63 - 1")
            guidance = options.guidance if scale is None else scale
            name = f"{index:06}_{seed}.png"
            found.append(Drawing(name, prompt, negative, seed, guidance))
    if not found:
        raise BatchError(f"{path}: holds no prompt; write one a line")
    return found


def _number(path: Path, row: int, name: str, value: Any, kind: Callable[[Any], Any]) -> Any:
    if value is None or value == "":
        return None
    try:
        found = kind(value)
        if isinstance(value, bool) or (kind is int and float(value) != found):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise BatchError(f"{path}: row {row} has the {name} {value!r:.40}, no number") from error
    return found


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    kind = path.suffix.lower()
    if kind == ".parquet":
        from janus_kit.batch.inputs import parquet

        with blocks(path):
            path.open("rb").close()
        try:
            yield from parquet().read_table(path).to_pylist()
        except (OSError, ValueError) as error:
            raise BatchError(f"{path}: is no readable Parquet ({reason(error)})") from error
        return
    if kind == ".csv":
        with blocks(path), path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            try:
                yield from reader
            except csv.Error as error:
                raise BatchError(
                    f"{path}: line {reader.reader.line_num} is no readable CSV ({error})"
                ) from error
        return
    with blocks(path), path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if kind != ".jsonl":
                yield {"prompt": line.strip()}
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise BatchError(f"{path}: line {number} is not JSON ({error})") from error
            if not isinstance(row, dict):
                raise BatchError(f"{path}: line {number} is not a JSON object")
            yield row


def draw_file(
    pipe: JanusPipeline,
    prompts: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    shard: Shard | None = None,
    progress: bool = False,
    **options: Any,
) -> Outcome:
    """Draw the prompts of a file into a folder; a second call draws what is left.

    Each picture is a PNG with its settings inside; index.jsonl lists them, and sheet.png shows the
    first. options: as DrawOptions. Raises BatchError or OptionError for a run that cannot begin.
    """
    chosen = DrawOptions(**{**usual(pipe.defaults), **options})
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
        size = Size(self.options.batch_size or (64 if pipe.device.type == "cuda" else 8))
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
