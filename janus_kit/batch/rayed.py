"""Answers from the machines of a Ray cluster: an actor a model, chunks pulled, one writer.

Ray only hands out work. What is done stands in the ledger, which this process alone writes, so
neither an actor's death nor the cluster's loses anything.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import dataclass
from itertools import islice
from typing import Any

from janus_kit.batch.answers import PATIENCE, Answer, Answerer, why
from janus_kit.batch.inputs import Item
from janus_kit.batch.loader import ahead, of_item
from janus_kit.errors import BatchError, CheckpointError, JanusKitError

__all__ = ["Crew"]

CHUNK = 16  # pictures that an actor is given at once
DEATHS = 2  # of actors at one picture, until it is the picture that is to blame
LOADS = 3  # deaths in a row of each worker while it loads, until it is not replaced

Asked = tuple[Item, list[str]]  # a picture and the questions about it
Said = tuple[int, int, str, str | None]  # place in the chunk, question, text, error


class _Worker:
    """What runs in an actor: one model, which answers chunks."""

    def load(self, model: Mapping[str, Any], answers: Mapping[str, Any]) -> Exception | None:
        """Load the model, before which no chunk is given; why that cannot be."""
        from janus_kit.pipeline import JanusPipeline

        try:
            self.pipe = JanusPipeline.from_pretrained(model["model"], **model["options"])
            self.answerer = Answerer(self.pipe, **answers)
        except JanusKitError as error:
            return type(error)(f"in a Ray worker: {error}")
        except Exception as error:  # noqa: BLE001 - what is wrong there cannot always travel here
            return CheckpointError(f"a Ray worker cannot load the model ({why(error)})")
        return None

    def answer(self, chunk: Sequence[Asked]) -> list[Said]:
        """The answers to a chunk. What fails is a row like others, never an exception."""
        questions = {item.name: asked for item, asked in chunk}
        places = {item.name: place for place, (item, _) in enumerate(chunk)}
        size = self.pipe.config.vision.image_size
        pictures = ahead(of_item, [item for item, _ in chunk], size, 0, len(chunk))
        with closing(self.answerer.run(pictures, lambda item: questions[item.name])) as found:
            return [
                (places[answer.item.name], answer.question, answer.text, answer.error)
                for answers in found
                for answer in answers
            ]


@dataclass
class _Chunk:
    asked: list[Asked]
    deaths: int = 0

    def survived(self) -> list["_Chunk"]:
        """What to do again after an actor has died at it: one by one, to find who is to blame."""
        if len(self.asked) > 1:
            return [_Chunk([asked]) for asked in self.asked]
        self.deaths += 1
        return [self] if self.deaths < DEATHS else []


class Crew:
    """Actors with a model each. It stands for a pipeline in a run of captions."""

    def __init__(self, model: Mapping[str, Any], workers: int, address: str | None = None) -> None:
        """model: {"model": …, "options": …}, what JanusPipeline.from_pretrained is given."""
        if workers < 1:
            raise BatchError(f"--workers must be 1 or more with --engine ray, not {workers}")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
        try:
            import ray
        except ImportError as error:
            raise BatchError('--engine ray needs pip install "janus-kit[ray]"') from error
        self.ray: Any = ray
        self.model, self.workers = model, workers
        local: dict[str, Any] = {"num_cpus": workers, "object_store_memory": 10**8}
        local |= {"include_dashboard": False, "log_to_driver": False}
        where = {"address": address} if address else local
        try:
            ray.init(logging_level="ERROR", **where)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BatchError(
                f"Ray at {address or 'this machine'} is not there ({error})"
            ) from error
        self.gpus = int(ray.cluster_resources().get("GPU", 0) > 0)

    def answers(
        self,
        items: Sequence[Item],
        questions: Callable[[Item], Sequence[str]],
        options: Mapping[str, Any],
    ) -> Generator[list[Answer[Item]], None, None]:
        """The answers to the questions about items, chunk by chunk as they come.

        Nothing for a second at a time, so that the caller can stop. Raises BatchError when workers
        keep dying, and what a worker says if it cannot load the model.
        """
        with redirect_stdout(sys.stderr):  # for what Ray prints when a worker dies
            yield from self._answers(items, questions, options)

    def _answers(
        self,
        items: Sequence[Item],
        questions: Callable[[Item], Sequence[str]],
        options: Mapping[str, Any],
    ) -> Generator[list[Answer[Item]], None, None]:
        ray = self.ray
        gone = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)
        kind = ray.remote(num_cpus=1, num_gpus=self.gpus, max_restarts=0)(_Worker)
        chunks = _chunks(items, questions)
        again: deque[_Chunk] = deque()  # of actors that died
        # Actors that the cluster has no room for stay among the loading, and have no chunk.
        loading: dict[Any, Any] = {}
        running: dict[Any, tuple[_Chunk, Any]] = {}
        idle: list[Any] = []
        left, lost, blamed = len(items), 0, 0

        def hire() -> None:
            actor = kind.remote()
            loading[actor.load.remote(self.model, options)] = actor

        try:
            for _ in range(min(self.workers, len(items))):
                hire()
            while left:
                while idle and (chunk := again.popleft() if again else next(chunks, None)):
                    actor = idle.pop()
                    running[actor.answer.remote(chunk.asked)] = (chunk, actor)
                if not (idle or running or loading):
                    raise BatchError(
                        f"Ray's workers died {lost} times in a row while they loaded the model; is "
                        "memory short? Take fewer --workers or a smaller model"
                    )
                ready, _ = ray.wait([*loading, *running], timeout=1.0)
                if not ready:
                    yield []
                for task in ready:
                    chunk, actor = running.pop(task, (None, loading.pop(task, None)))
                    try:
                        said = ray.get(task)
                    except gone:
                        ray.kill(actor)  # one that only could not be reached would keep its place
                        if chunk is None:
                            lost += 1
                        else:
                            again.extend(chunk.survived())
                        if lost < LOADS * self.workers:
                            hire()
                        if chunk is not None and chunk.deaths >= DEATHS:
                            blamed += 1
                            if blamed >= PATIENCE:
                                raise BatchError(
                                    f"Ray's workers died at {blamed} pictures in a row; is memory "
                                    "short? Take fewer --workers or a smaller model"
                                ) from None
                            left -= 1
                            yield _blamed(chunk)
                        continue
                    idle.append(actor)
                    if chunk is None:
                        if said is not None:
                            raise said
                        lost = 0
                        continue
                    blamed = 0
                    asked = chunk.asked
                    left -= len(asked)
                    yield [Answer(asked[i][0], number, *rest) for i, number, *rest in said]
        finally:
            for actor in [*idle, *loading.values(), *(actor for _, actor in running.values())]:
                ray.kill(actor)
            ray.shutdown()


def _chunks(items: Iterable[Item], questions: Callable[[Item], Sequence[str]]) -> Iterator[_Chunk]:
    source = iter(items)
    while part := list(islice(source, CHUNK)):
        yield _Chunk([(item, list(questions(item))) for item in part])


def _blamed(chunk: _Chunk) -> list[Answer[Item]]:
    told = "the worker that read it died, twice; is the file meant to do harm, or memory short?"
    return [
        Answer(item, number, error=told)
        for item, asked in chunk.asked
        for number in range(len(asked))
    ]
