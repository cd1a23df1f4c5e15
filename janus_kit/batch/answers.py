"""Many questions through one model: full batches, and a bad picture fails alone."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from janus_kit.batch.files import reason
from janus_kit.batch.lanes import Lanes, lanes_for
from janus_kit.batch.loader import Pixels
from janus_kit.errors import JanusKitError, PromptError
from janus_kit.generation.sampling import SamplingOptions, uniforms
from janus_kit.options import batch_rows, first_seed, whole
from janus_kit.pipeline import JanusPipeline
from janus_kit.prompts import Message, chat_ids
from janus_kit.writing import Read, TextWriter, read

__all__ = ["PATIENCE", "Answer", "Answerer", "Size", "check", "out_of_memory", "why"]

T = TypeVar("T")
LONGEST = 512  # tokens of an answer unless told otherwise, as in JanusPipeline.chat
MOST = 2**20  # tokens; no model reads more
PATIENCE = 16  # pictures in a row that the model breaks at, until it is the model that is broken


class Size:
    """How many rows go at once: half as many after memory ran out, and more again later."""

    def __init__(self, most: int, patience: int = 50) -> None:
        self.now = self.most = most
        self.patience = patience  # full batches that must go well before twice as many are tried
        self.good = 0

    def halve(self) -> None:
        self.now, self.good = max(1, self.now // 2), 0

    def worked(self, rows: int) -> bool:
        """Count rows that went well; True when the number has changed."""
        self.good += rows
        if self.now == self.most or self.good < self.patience * self.now:
            return False
        self.now, self.good = min(self.most, 2 * self.now), 0
        return True


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What has become of a question about a picture: a text, or an error."""

    item: T
    question: int  # its number among those about this picture
    text: str = ""
    error: str | None = None


@dataclass(eq=False)
class _Row(Generic[T]):
    item: T
    question: int
    ids: list[int]
    pixels: Pixels
    reading: Future[Any] | None = None  # where lanes read rows; it fills read
    read: Read | None = None


def check(
    seed: int | None, max_new_tokens: int | None, batch_size: int | str, longest: int = MOST
) -> None:
    """Raise OptionError for options of an Answerer that are none; longest: what a model reads."""
    first_seed(seed, 1)
    if max_new_tokens is not None:
        whole("max_new_tokens", max_new_tokens, 1, longest)
    batch_rows(batch_size, 1, 1, torch.device("cpu"))


def out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(
            sign in text
            for sign in ("can't allocate memory", "not enough memory", "DefaultCPUAllocator")
        )
    )


class Answerer:
    """Asks a pipeline about pictures; what it answers depends on neither batch nor neighbours."""

    def __init__(
        self,
        pipe: JanusPipeline,
        *,
        batch_size: int | str = "auto",
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = 0,
    ) -> None:
        """Options as in JanusPipeline.chat; each answer has the random stream seed."""
        language = pipe.config.language
        check(seed, max_new_tokens, batch_size, language.max_positions)
        self.pipe = pipe
        self.options = SamplingOptions(guidance=1.0, temperature=temperature, top_p=top_p)
        self.wanted = max_new_tokens
        steps = max_new_tokens or min(LONGEST, language.max_positions)
        self.noise = uniforms([first_seed(seed, 1)], steps)[0]
        slots = pipe.config.vision.tokens + 128 + 2 * steps
        width = 2 * language.layers * language.kv_heads * language.head_dim
        row_bytes = slots * width * pipe.dtype.itemsize
        self.size = Size(batch_rows(batch_size, 64, row_bytes, pipe.device))

    def run(
        self,
        pictures: Iterable[tuple[T, Pixels | str]],
        ask: Callable[[T], Sequence[str]],
    ) -> Generator[list[Answer[T]], None, None]:
        """The answers that each step of the decoder ends, often none; pixels may be an error."""
        with Lanes(lanes_for(self.pipe.model)) as lanes:
            yield from self._run(iter(pictures), ask, lanes)

    def _run(
        self,
        source: Iterator[tuple[T, Pixels | str]],
        ask: Callable[[T], Sequence[str]],
        lanes: Lanes,
    ) -> Iterator[list[Answer[T]]]:
        waiting: deque[_Row[T]] = deque()  # read, not yet begun
        live: list[_Row[T]] = []
        alone = 0  # rows to be done one by one, to find the one that breaks the model
        broken = 0
        writer: TextWriter | None = None
        more = True
        while more or waiting or live:
            rows = 1 if alone else self.size.now
            room = rows - len(live)
            if self.pipe.device.type != "cpu" and live and 4 * room < rows:
                room = 0  # a GPU reads and encodes several rows in the time of one
            while more and len(waiting) < room + lanes.count:
                taken = next(source, None)
                if taken is None:
                    more = False
                else:
                    ready, errors = self._rows(*taken, ask)
                    waiting += ready
                    if errors:
                        yield errors
            failure: Exception | None = None
            try:
                if writer is None:
                    writer = self._writer(rows)
                self._read_ahead(waiting, lanes)
                added = [waiting.popleft() for _ in range(min(len(waiting), room))]
                live += added
                self._begin(writer, added)
                if not more and not waiting:
                    writer.shrink()
                ended = writer.step() if live else []
            except Exception as error:  # noqa: BLE001 - one picture must not end a run of millions
                failure = error.with_traceback(None)  # whose frames would keep the memory
            if failure is None:
                answers = [self._answer(row.name, row.ids, row.error) for row in ended]
                gone = {id(row.name) for row in ended}
                live = [row for row in live if id(row) not in gone]
                if ended:
                    broken = 0
                    alone = max(0, alone - len(ended))
                    if self.size.worked(len(ended)) or (not alone and rows == 1 < self.size.now):
                        waiting.extendleft(reversed(live))
                        live, writer = [], None
                yield answers
                continue
            short, wide = out_of_memory(failure), rows if writer is None else len(writer.names)
            if not live and not (short and wide > 1):  # there was not even room to begin
                raise failure
            lone = len(live) == 1 and not (short and wide > 1)
            if not short:
                alone = max(alone, len(live))
                broken += lone
            else:
                self.size.halve()
                alone = alone or len(live) == 1  # what was short may have been the others' rows
            for row in (*live, *waiting):
                row.reading = row.read = None
            writer = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if lone:
                alone = max(0, alone - 1)
                row = live.pop()
                yield [Answer(row.item, row.question, error=why(failure))]
                if broken >= PATIENCE:
                    raise failure
            waiting.extendleft(reversed(live))
            live = []

    def _rows(
        self, item: T, pixels: Pixels | str, ask: Callable[[T], Sequence[str]]
    ) -> tuple[list[_Row[T]], list[Answer[T]]]:
        """The questions about one picture, or what is wrong with them."""
        pipe, rows = self.pipe, []
        errors: list[Answer[T]] = []
        for number, question in enumerate(ask(item)):
            if isinstance(pixels, str):
                errors.append(Answer(item, number, error=pixels))
                continue
            try:
                turns = [Message("user", question, 1)]
                ids = chat_ids(pipe.tokenizer, pipe.template, turns, pipe.config.vision.tokens)
                room = pipe.config.language.max_positions - len(ids)
                if room < (self.wanted or 1):
                    raise PromptError(
                        f"the question and the picture take {len(ids)} tokens and leave {room} "
                        "for the answer; shorten it or --max-new-tokens"
                    )
                rows.append(_Row(item, number, ids, pixels))
            except PromptError as error:
                errors.append(Answer(item, number, error=str(error)))
        return rows, errors

    def _writer(self, rows: int) -> TextWriter:
        tokenizer = self.pipe.tokenizer
        return TextWriter(
            self.pipe.model,
            rows,
            eos=tokenizer.eos,
            pad=tokenizer.pad,
            image=tokenizer.image,
            noise=self.noise,
            options=self.options,
        )

    def _read_ahead(self, rows: Iterable[_Row[T]], lanes: Lanes) -> None:
        """Have lanes read the rows that none reads yet, those of a picture together."""
        if not lanes.count:
            return
        parts: dict[int, list[_Row[T]]] = {}
        for row in rows:
            if row.reading is None:
                parts.setdefault(id(row.pixels), []).append(row)
        for part in parts.values():
            reading = lanes.submit(self._read, part)
            for row in part:
                row.reading = reading

    def _read(self, rows: Sequence[_Row[T]]) -> None:
        """Read rows of one picture, in a lane."""
        tokenizer = self.pipe.tokenizer
        for row, shown in zip(rows, self._features(rows), strict=True):
            row.read = read(self.pipe.model, [row.ids], [shown], tokenizer.pad, tokenizer.image)

    @torch.inference_mode()
    def _features(self, rows: Sequence[_Row[T]]) -> list[Tensor]:
        """The features [576, d] of each row's picture, each encoded once."""
        model = self.pipe.model
        pixels = {id(row.pixels): torch.from_numpy(row.pixels) for row in rows}
        # On a CPU a picture's last bits would depend on its neighbours; see TextWriter.
        together = 1 if model.device.type == "cpu" else len(pixels)
        whole, seen = list(pixels.values()), []
        for start in range(0, len(whole), together):
            part = torch.stack(whole[start : start + together]).to(model.device)
            seen += list(model.features(part))
        features = dict(zip(pixels, seen, strict=True))
        return [features[id(row.pixels)] for row in rows]

    def _begin(self, writer: TextWriter, rows: Sequence[_Row[T]]) -> None:
        """Add rows to those that are written: read by lanes, or to be read here."""
        for row in rows:
            if row.reading is not None:
                row.reading.result()
        unread = [row for row in rows if row.read is None]
        if unread:
            shown = self._features(unread)
            given = zip(unread, shown, strict=True)
            writer.add([(row, row.ids, [features]) for row, features in given])
        for row in rows:
            if row.read is not None:
                writer.begin([row], row.read)
            row.reading = row.read = None

    def _answer(self, row: _Row[T], ids: list[int], error: JanusKitError | None) -> Answer[T]:
        if error is not None:
            return Answer(row.item, row.question, error=str(error))
        return Answer(row.item, row.question, self.pipe.tokenizer.decode(ids).strip())


def why(error: Exception) -> str:
    if out_of_memory(error):
        return "out of memory with this picture alone; try --dtype bfloat16 or a smaller model"
    said: Any = reason(error)
    return said if isinstance(error, JanusKitError) else f"{type(error).__name__}: {said}"
