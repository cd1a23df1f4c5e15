"""Answering: conversations → rows of ids and features → tokens, → text or the odds of a yes."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from janus_kit import conversation
from janus_kit.errors import CheckpointError, OptionError
from janus_kit.generation.sampling import SamplingOptions, uniforms
from janus_kit.options import BATCH, first_seed, texts, whole
from janus_kit.prompts import Tokenizer, chat_ids
from janus_kit.vision import images as pictures
from janus_kit.writing import TextWriter, next_logits, write_text

if TYPE_CHECKING:
    from janus_kit.pipeline import JanusPipeline

__all__ = ["QUESTION", "Ranked", "Reply", "answer", "best", "odds", "rank", "reply"]

# What VQAScore asks (Lin et al., "Evaluating Text-to-Visual Generation with Image-to-Text
# Generation", 2024); it scores a picture by the probability of a yes.
QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'
LONGEST = 512  # tokens of an answer unless told otherwise


class Ranked(NamedTuple):
    """A place of rank's result: which picture, and how likely the answer yes was, 0 to 1."""

    place: int
    score: float


@dataclass(frozen=True)
class _Asked:
    """Conversations as the model reads them."""

    rows: list[list[int]]
    shown: list[list[Tensor]]  # for each row the features [576, d] of its pictures

    @property
    def features(self) -> list[Tensor]:
        """Those of all rows, in their order."""
        return [features for row in self.shown for features in row]


@dataclass(frozen=True)
class _Wanted:
    """How answers are to be written."""

    options: SamplingOptions
    room: int  # tokens that a conversation must leave for its answer
    steps: int  # tokens of an answer at most
    seed: int | None

    @classmethod
    def of(
        cls,
        pipe: "JanusPipeline",
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        **unknown: Any,
    ) -> "_Wanted":
        """Options of JanusPipeline.chat; by default an answer may take LONGEST tokens, or what room
        there is. Raises OptionError."""
        if unknown:
            raise OptionError(
                f"answers have no option {sorted(unknown)[0]!r}; see JanusPipeline.chat"
            )
        options = SamplingOptions(guidance=1.0, temperature=temperature, top_p=top_p)
        first_seed(seed, 1)
        limit = pipe.config.language.max_positions
        if max_new_tokens is None:
            return cls(options, 1, min(LONGEST, limit), seed)
        steps = whole("max_new_tokens", max_new_tokens, 1, limit)
        return cls(options, steps, steps, seed)

    def noise(self, rows: int, steps: int) -> Tensor:
        """float64 [rows, steps], each row with the stream of the seed, or one of its own."""
        return uniforms([first_seed(self.seed, 1) for _ in range(rows)], steps)


class Reply(Iterator[str]):
    """An answer that is being written: an iterator of its pieces of text, which counts tokens.

    finish_reason is None until the end, then "stop", or "length" where the answer was cut off.
    """

    def __init__(self, tokenizer: Tokenizer, tokens: Iterable[Tensor], prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = 0
        self.finish_reason: str | None = None
        self._pieces = conversation.pieces(tokenizer, self._counted(tokens, tokenizer.eos))

    def _counted(self, tokens: Iterable[Tensor], eos: int) -> Iterator[Tensor]:
        for token in tokens:
            if int(token) == eos:
                self.finish_reason = "stop"
            else:
                self.completion_tokens += 1
            yield token
        self.finish_reason = self.finish_reason or "length"

    def __next__(self) -> str:
        return next(self._pieces)


def answer(
    pipe: "JanusPipeline",
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    batch_size: int | str,
    **options: Any,
) -> list[str]:
    """See JanusPipeline.answer."""
    size = 8 if batch_size == "auto" else whole("batch_size", batch_size, 1, BATCH)
    wanted = _Wanted.of(pipe, **options)
    if len(conversations) > size:
        return _in_turns(pipe, conversations, size, wanted)
    if not conversations:
        return []
    columns = list(_tokens(pipe, conversations, wanted)[0])
    rows = torch.stack(columns, 1).tolist() if columns else [[] for _ in conversations]
    return [_text(pipe.tokenizer, ids) for ids in rows]


def _in_turns(
    pipe: "JanusPipeline",
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    size: int,
    wanted: _Wanted,
) -> list[str]:
    """The answers of more conversations than are written at once: one that ends makes room."""
    answers = [""] * len(conversations)
    waiting = deque(range(len(conversations)))
    writer = TextWriter(
        pipe.model,
        size,
        eos=pipe.tokenizer.eos,
        pad=pipe.tokenizer.pad,
        image=pipe.tokenizer.image,
        noise=wanted.noise(1, wanted.steps)[0],
        options=wanted.options,
    )
    # A GPU reads several rows in the time of one, and captures anew where their number changes; on
    # a CPU they are read one at a time, see TextWriter.
    cpu = pipe.device.type == "cpu"
    few, together = (1, 1) if cpu else (-(-size // 4), size)
    while waiting or writer.free < len(writer.names):
        room = writer.free if writer.free >= few or writer.free == len(writer.names) else 0
        places = [waiting.popleft() for _ in range(min(room, len(waiting)))]
        for start in range(0, len(places), together):
            part = places[start : start + together]
            asked = _read(pipe, [conversations[place] for place in part], wanted.room)
            added = list(zip(part, asked.rows, asked.shown, strict=True))
            writer.add(added, wanted.noise(len(part), wanted.steps))
        if cpu and not waiting:
            writer.shrink()
        for ended in writer.step():
            if ended.error:
                raise ended.error
            answers[ended.name] = _text(pipe.tokenizer, ended.ids)
    return answers


def _text(tokenizer: Tokenizer, ids: list[int]) -> str:
    ends = ids.index(tokenizer.eos) if tokenizer.eos in ids else len(ids)
    return tokenizer.decode(ids[:ends]).strip()


def reply(pipe: "JanusPipeline", messages: Sequence[Mapping[str, Any]], **options: Any) -> Reply:
    """The answer to one conversation, piece by piece; what is wrong with it is told at once."""
    tokens, length = _tokens(pipe, [messages], _Wanted.of(pipe, **options))
    return Reply(pipe.tokenizer, tokens, length)


def _read(
    pipe: "JanusPipeline", conversations: Sequence[Sequence[Mapping[str, Any]]], written: int
) -> _Asked:
    """The conversations, each with room for so many more tokens, and their pictures encoded."""
    rows, pixels, counts = [], [], []
    size = pipe.config.vision.image_size
    for messages in conversations:
        turns, found = conversation.read(messages)
        rows.append(chat_ids(pipe.tokenizer, pipe.template, turns, pipe.config.vision.tokens))
        pipe.check_room(len(rows[-1]), written)
        pixels += [pictures.to_pixels(pictures.load(image), size) for image in found]
        counts.append(len(found))
    with torch.inference_mode():
        features = iter(pipe.model.features(torch.stack(pixels).to(pipe.device)) if pixels else ())
    return _Asked(rows, [list(islice(features, count)) for count in counts])


def _tokens(
    pipe: "JanusPipeline", conversations: Sequence[Sequence[Mapping[str, Any]]], wanted: _Wanted
) -> tuple[Iterator[Tensor], int]:
    """The steps of write_text for a batch of conversations, and the longest one's tokens."""
    asked = _read(pipe, conversations, wanted.room)
    longest = max(map(len, asked.rows))
    steps = min(wanted.steps, pipe.config.language.max_positions - longest)
    tokens = write_text(
        pipe.model,
        asked.rows,
        asked.features,
        pad=pipe.tokenizer.pad,
        eos=pipe.tokenizer.eos,
        image=pipe.tokenizer.image,
        noise=wanted.noise(len(asked.rows), steps),
        options=wanted.options,
    )
    return tokens, longest


def odds(
    pipe: "JanusPipeline",
    images: Sequence[Any],
    prompts: Sequence[str],
    question: str = QUESTION,
    batch_size: int | str = "auto",
) -> list[float]:
    """How likely the answer yes is, of yes and no, to the question about each picture: 0 to 1."""
    if "{prompt}" not in question:
        raise OptionError(f"question must hold {{prompt}}, where the prompt goes: {question!r:.80}")
    common, yes, no = _yes_no(pipe.tokenizer)
    # On a CPU one at a time: a row's numbers are then, to the last bit, those that it has alone.
    auto = 1 if pipe.device.type == "cpu" else 8
    size = auto if batch_size == "auto" else whole("batch_size", batch_size, 1, BATCH)
    found: list[float] = []
    for start in range(0, len(images), size):
        part = zip(images[start : start + size], prompts[start : start + size], strict=True)
        asked = _read(
            pipe,
            [
                [{"role": "user", "images": [i], "content": question.replace("{prompt}", text)}]
                for i, text in part
            ],
            len(common) + 1,
        )
        logits = next_logits(
            pipe.model,
            [[*row, *common] for row in asked.rows],
            asked.features,
            pad=pipe.tokenizer.pad,
            image=pipe.tokenizer.image,
        )
        found += (logits[:, yes] - logits[:, no]).double().sigmoid().tolist()
    return found


def _yes_no(tokenizer: Tokenizer) -> tuple[list[int], int, int]:
    """The ids that begin both "Yes" and "No" as an answer, and the first in which they differ."""
    start = tokenizer.encode(":")  # the template ends with it, and an answer begins with a space
    yes, no = (tokenizer.encode(f": {word}")[len(start) :] for word in ("Yes", "No"))
    for place, (a, b) in enumerate(zip(yes, no, strict=False)):
        if a != b:
            return yes[:place], a, b
    raise CheckpointError("the tokenizer writes Yes and No alike; this model cannot judge")


def rank(
    pipe: "JanusPipeline",
    images: Any,
    prompt: str,
    question: str = QUESTION,
    batch_size: int | str = "auto",
) -> list[Ranked]:
    """See JanusPipeline.rank."""
    shown = conversation.listed(images)
    (text,) = texts("prompt", [prompt])
    scores = odds(pipe, shown, [text] * len(shown), question, batch_size)
    return [Ranked(place, scores[place]) for place in _descending(scores)]


def best(
    pipe: "JanusPipeline", images: Sequence[Any], prompts: Sequence[str], kept: int
) -> tuple[list[int], list[float]]:
    """The places of the kept best pictures of each prompt, best first, and their scores.

    images: as many for each prompt, one prompt after the other.
    """
    each = len(images) // len(prompts)
    scores = odds(pipe, images, [text for text in prompts for _ in range(each)])
    places = [
        start + place
        for start in range(0, len(images), each)
        for place in _descending(scores[start : start + each])[:kept]
    ]
    return places, [scores[place] for place in places]


def _descending(scores: Sequence[float]) -> list[int]:
    """Places from the highest score down; of equal ones the first comes first."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])
