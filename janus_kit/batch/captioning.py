"""One run of captions: what is asked, and the way of the answers into ledger and sidecars."""

import os
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from janus_kit.batch import inputs, results, tables
from janus_kit.batch.answers import Answer, Answerer, check
from janus_kit.batch.files import Scratch, is_full, path_of, reason
from janus_kit.batch.inputs import Item
from janus_kit.batch.ledger import Ledger
from janus_kit.batch.loader import ahead, of_item, workers_for
from janus_kit.batch.rayed import Crew
from janus_kit.batch.run import Tally
from janus_kit.batch.sidecars import EXISTING, Sidecars, one_line
from janus_kit.errors import ImageError, OptionError, PromptError
from janus_kit.generation.sampling import SamplingOptions
from janus_kit.pipeline import CAPTION, JanusPipeline
from janus_kit.prompts import CHAT_LIMIT, check_text

__all__ = ["CaptionOptions", "Job"]

_HOLE = re.compile(r"\{(name|directory|caption)\}")
_COLUMN = re.compile(r"([a-z][a-z0-9_]{0,30})=(.*)", re.DOTALL)
KEPT = 1000  # lines that are written at once where the model has nothing to do


@dataclass(frozen=True, kw_only=True)
class CaptionOptions:
    """What is asked, how it is answered, and where it goes."""

    prompts: Sequence[str] = (CAPTION,)  # "name=text" names the column of the answers
    prefix: str = ""  # of the first column's text, as suffix
    suffix: str = ""
    max_new_tokens: int | None = None  # None: up to 512
    temperature: float = 0.0  # 0 takes the likeliest
    top_p: float = 1.0
    seed: int = 0  # of the random stream of each answer
    batch_size: int | str = "auto"  # questions at once; no result depends on it
    existing: str = "skip"  # or overwrite, append, prepend: what becomes of a sidecar that is there
    ext: str = ".txt"
    full_names: bool = False  # x.png.txt in place of x.txt
    formats: Sequence[str] = ("txt",)  # captions.jsonl is always written
    retry_failed: bool = False
    workers: int | None = None  # processes that decode; 0 a thread, None by the number of pictures

    def __post_init__(self) -> None:
        if isinstance(self.prompts, str) or not self.prompts:
            raise PromptError("prompts must be a list of one question or more")
        for text in (*self.prompts, self.prefix, self.suffix):
            check_text(text, CHAT_LIMIT)
        if not all(question.strip() for question in self.questions):
            raise PromptError("a question is empty; write what is to be asked about each picture")
        if len(set(self.columns)) < len(self.columns):
            raise PromptError(
                f"two questions fill the column {self.columns[-1]!r}; name them apart"
            )
        check(self.seed, self.max_new_tokens, self.batch_size)
        SamplingOptions(guidance=1.0, temperature=self.temperature, top_p=self.top_p)
        if self.existing not in EXISTING:
            raise OptionError(
                f"--existing must be one of {', '.join(EXISTING)}, not {self.existing!r}"
            )
        if self.workers is not None and not 0 <= self.workers <= 256:
            raise OptionError(f"--workers must be from 0 to 256, not {self.workers}")
        tables.check(self.formats)

    @property
    def columns(self) -> list[str]:
        """The names of the questions' columns: caption, then caption_2 and so on unless named."""
        named = [_COLUMN.fullmatch(text) for text in self.prompts]
        found = [match[1] if match else f"caption_{i}" for i, match in enumerate(named, 1)]
        return ["caption" if name == "caption_1" else name for name in found]

    @property
    def questions(self) -> list[str]:
        named = [_COLUMN.fullmatch(text) for text in self.prompts]
        return [m[2] if m else text for m, text in zip(named, self.prompts, strict=True)]

    @property
    def answering(self) -> dict[str, Any]:
        """The options of an Answerer."""
        names = ("batch_size", "max_new_tokens", "temperature", "top_p", "seed")
        return {name: getattr(self, name) for name in names}

    def settings(self, model: str, digest: str, root: str) -> dict[str, Any]:
        """What a result depends on: a run goes on only with the same."""
        depends = ("prompts", "prefix", "suffix", "max_new_tokens", "temperature", "top_p", "seed")
        chosen = {name: value for name, value in asdict(self).items() if name in depends}
        chosen["prompts"] = list(self.prompts)
        return {"task": "caption", "model": model, "hash": digest, "inputs": root, **chosen}


class Job:
    """Captions on their way into a ledger and sidecars."""

    def __init__(
        self, ledger: Ledger, options: CaptionOptions, sidecars: Sidecars, root: Path
    ) -> None:
        """root: the folder that the names of the pictures are relative to."""
        self.root = root
        self.ledger, self.options, self.sidecars = ledger, options, sidecars
        self.scratch = Scratch(ledger.folder, ledger.label)
        self.calls = 0
        self.texts = "txt" in options.formats
        results.claim(ledger.folder, tables.names(options.formats))

    def settle(self) -> None:
        """Write the sidecars that a killed run has noted but may not have written."""
        if self.texts:
            self._write(record for record in self.ledger.loose if "error" not in record)

    def plan(self, items: Sequence[Item], count: Tally) -> list[Item]:
        """The items that the model must look at; the others are counted or settled here."""
        todo, kept = [], []
        for item in items:
            state = self.ledger.state(item.name, item.stamp)
            if state == "done" and self.texts:
                self._restore(item)
            if state == "pending" or (state == "failed" and self.options.retry_failed):
                record = self._existing(item) if self.texts else None
                if record is None:
                    todo.append(item)
                    continue
                kept.append(record)
                state = "failed" if "error" in record else "done"
            count.add(state == "done", state == "failed", fresh=False)
        for start in range(0, len(kept), KEPT):
            self.ledger.write(kept[start : start + KEPT])
        return todo

    def _restore(self, item: Item) -> None:
        """Write a sidecar that was not asked for before, or that is gone."""
        if not self.sidecars.path(item.name).exists():
            self._write([self.ledger.record(item.name)])

    def _existing(self, item: Item) -> dict[str, Any] | None:
        """The line about a picture whose sidecar is there already and says all there is to say."""
        try:
            text = self._old(item)
        except ImageError as error:
            return {"name": item.name, "stamp": item.stamp, "error": str(error)}
        if text is None or self.options.existing != "skip":
            return None
        texts = {self.options.columns[0]: text}
        return {"name": item.name, "stamp": item.stamp, "texts": texts, "kept": True}

    def _old(self, item: Item) -> str | None:
        """What a person wrote into the sidecar, as far as it matters: not what a run did.

        Raises ImageError for a sidecar that is no text.
        """
        options = self.options
        asked = any("{caption}" in text for text in (*options.questions, *self._around))
        if not self.texts or (options.existing == "overwrite" and not asked):
            return None
        text = self.sidecars.existing(item.name)
        if text is not None and item.name in self.ledger.known:  # the picture has changed since
            record = self.ledger.record(item.name)
            if "texts" in record and not record.get("kept") and text == self._text(record):
                return record.get("before")
        return text

    @property
    def _around(self) -> tuple[str, str]:
        return self.options.prefix, self.options.suffix

    def _text(self, record: dict[str, Any]) -> str:
        """What the sidecar of a ledger line holds."""
        text = record["texts"].get(self.options.columns[0], "")
        return record.get("sidecar") or one_line(text)

    def work(
        self, pipe: JanusPipeline | Crew, items: Sequence[Item], count: Tally, stop: object
    ) -> None:
        """Answer the questions about items; each is in the ledger before its sidecar is written."""
        open_answers: dict[str, dict[int, Answer[Item]]] = {}
        steps = (
            pipe.answers(items, self._questions, self.options.answering)
            if isinstance(pipe, Crew)
            else self._local(pipe, items)
        )
        with closing(steps):
            for answers in steps:
                whole = []
                for answer in answers:
                    self.calls += answer.error is None
                    heard = open_answers.setdefault(answer.item.name, {})
                    heard[answer.question] = answer
                    if len(heard) == len(self.options.prompts):
                        whole.append(open_answers.pop(answer.item.name))
                if whole:
                    records = [self._record(found) for found in whole]
                    failed = self._commit(records)
                    count.add(len(records) - failed, failed)
                if stop:
                    return

    def _local(
        self, pipe: JanusPipeline, items: Sequence[Item]
    ) -> Generator[list[Answer[Item]], None, None]:
        """The answers of a model in this process, with pictures decoded ahead of it."""
        answerer = Answerer(pipe, **self.options.answering)
        workers = workers_for(self.options.workers, len(items))
        room = 2 * answerer.size.most + 2 * workers
        size = pipe.config.vision.image_size
        with closing(ahead(of_item, items, size, workers, room)) as pictures:
            yield from answerer.run(pictures, self._questions)

    def _questions(self, item: Item) -> list[str]:
        return [self._fill(question, item) for question in self.options.questions]

    def _fill(self, template: str, item: Item) -> str:
        """Names in place of {name}, {directory} and {caption}; other braces are only text."""
        if not _HOLE.search(template):
            return template
        path = path_of(item.name).encode("utf-8", "replace").decode("utf-8")
        directory = os.path.basename(os.path.dirname(path))
        known = {
            "name": os.path.splitext(os.path.basename(path))[0],
            "directory": directory or self.root.resolve().name,
            "caption": (self._old(item) or "") if "{caption}" in template else "",
        }
        return _HOLE.sub(lambda hole: known[hole[1]], template)

    def _record(self, answers: dict[int, Answer[Item]]) -> dict[str, Any]:
        """The line about an item of which all questions are answered."""
        item = answers[0].item
        record: dict[str, Any] = {"name": item.name, "stamp": item.stamp}
        errors = [answers[i].error for i in sorted(answers) if answers[i].error is not None]
        if errors:
            return {**record, "error": errors[0]}
        texts = [answers[i].text for i in range(len(answers))]
        try:
            prefix, suffix = (self._fill(text, item) for text in self._around)
            old = self._old(item)
        except ImageError as error:
            return {**record, "error": str(error)}
        texts[0] = f"{prefix}{texts[0]}{suffix}"
        record["texts"] = dict(zip(self.options.columns, texts, strict=True))
        if old and self.options.existing in ("append", "prepend"):
            both = (old, texts[0]) if self.options.existing == "append" else (texts[0], old)
            # The whole text, so that writing it twice is writing it once.
            record |= {"before": old, "sidecar": one_line(", ".join(both))}
        return record

    def _commit(self, records: list[dict[str, Any]]) -> int:
        """Note what has become of some items, then write their sidecars; how many failed."""
        self.ledger.write(records)
        good = [record for record in records if "error" not in record]
        return len(records) - len(good) + (self._write(good) if self.texts else 0)

    def _write(self, records: Iterable[dict[str, Any]]) -> int:
        """The sidecars of ledger lines; the items of those that cannot be written fail."""
        failed = []
        for record in records:
            if record.get("kept"):
                continue
            path = self.sidecars.path(record["name"])
            text = self._text(record)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.scratch.write(path, f"{text}\n".encode("utf-8", "replace"))
            except OSError as error:
                if is_full(error):
                    raise
                why = f"{path.name}: cannot be written ({reason(error)})"
                failed.append({"name": record["name"], "stamp": record["stamp"], "error": why})
        if failed:
            self.ledger.write(failed)
        return len(failed)

    def write_tables(self, items: Sequence[Item], whole: bool) -> Path:
        """captions.jsonl, and all formats when nothing is left; returns its path."""
        folder = self.ledger.folder
        return tables.write(
            folder,
            self.rows(items),
            self.options.columns,
            self.options.formats if whole else (),
            self.scratch,
        )

    def rows(self, items: Sequence[Item]) -> tables.Rows:
        """The rows of tables: every item that is done or failed, in the order of the inputs."""

        def found() -> Iterator[tables.Listed]:
            for item in items:
                if self.ledger.state(item.name, item.stamp) == "pending":
                    continue
                record = self.ledger.record(item.name)
                row: tables.Row = {"file_name": item.name}
                if record.get("error") is not None:
                    row["error"] = record["error"]
                else:
                    texts = record["texts"]
                    row |= {column: texts.get(column, "") for column in self.options.columns}
                file = item.source.path if item.source.kind == "file" else None
                yield tables.Listed(row, file, partial(_bytes, item))

        return found


def _bytes(item: Item) -> bytes | None:
    """The bytes of a picture that was captioned; None if it has gone or changed since."""
    try:
        data = inputs.read(item)
        return data if isinstance(data, bytes) else Path(data).read_bytes()
    except (ImageError, OSError):
        return None
