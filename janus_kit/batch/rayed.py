"""Answers from the machines of a Ray cluster: an actor a model, chunks pulled, one writer.

Ray only hands out work. What is done stands in the ledger, which this process alone writes, so
neither an actor's death nor the cluster's loses anything.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from janus_kit.batch.answers import Answer, Answerer
from janus_kit.batch.inputs import Item
from janus_kit.batch.loader import ahead, of_item
from janus_kit.errors import BatchError

__all__ = ["Crew"]

CHUNK = 16  # pictures that an actor is given at once
DEATHS = 2  # of actors at one picture, until it is the picture that is to blame

Asked = tuple[Item, list[str]]  # a picture and the questions about it
Said = tuple[int, int, str, str | None]  # place in the chunk, question, text, error


class _Worker:
    """What runs in an actor: one model, which answers chunks."""

    def __init__(self, model: Mapping[str, Any], answers: Mapping[str, Any]) -> None:
        from janus_kit.pipeline import JanusPipeline

        self.pipe = JanusPipeline.from_pretrained(model["model"], **model["options"])
        self.answerer = Answerer(self.pipe, **answers)

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

        Nothing for a second at a time, so that the caller can stop.
        """
        ray = self.ray
        kind = ray.remote(num_cpus=1, num_gpus=self.gpus, max_restarts=0)(_Worker)
        source = iter(items)
        again: deque[_Chunk] = deque()  # of actors that died
        running: dict[Any, tuple[_Chunk, Any]] = {}
        idle = [kind.remote(self.model, options) for _ in range(min(self.workers, len(items)))]
        try:
            while True:
                while idle:
                    chunk = again.popleft() if again else _Chunk(_take(source, questions))
                    if not chunk.asked:
                        break
                    actor = idle.pop()
                    running[actor.answer.remote(chunk.asked)] = (chunk, actor)
                if not running:
                    return
                ready, _ = ray.wait([*running], timeout=1.0)
                if not ready:
                    yield []
                for task in ready:
                    chunk, actor = running.pop(task)
                    try:
                        said = ray.get(task)
                    except ray.exceptions.RayActorError as error:
                        if "actor's creation" in str(error) or "creation task" in str(error):
                            raise BatchError(f"a model could not be loaded in Ray ({error})") from (
                                error
                            )
                        idle.append(kind.remote(self.model, options))
                        chunk.deaths += 1
                        if len(chunk.asked) > 1:  # one by one, to find the one that is to blame
                            again.extend(_Chunk([asked]) for asked in chunk.asked)
                        elif chunk.deaths < DEATHS:
                            again.append(chunk)
                        else:
                            yield _blamed(chunk)
                        continue
                    idle.append(actor)
                    asked = chunk.asked
                    yield [Answer(asked[i][0], number, *rest) for i, number, *rest in said]
        finally:
            for actor in [*idle, *(actor for _, actor in running.values())]:
                ray.kill(actor)
            ray.shutdown()


def _take(source: Iterator[Item], questions: Callable[[Item], Sequence[str]]) -> list[Asked]:
    found: list[Asked] = []
    while len(found) < CHUNK and (item := next(source, None)) is not None:
        found.append((item, list(questions(item))))
    return found


def _blamed(chunk: _Chunk) -> list[Answer[Item]]:
    why = "the worker that read it died, twice; is the file meant to do harm, or memory short?"
    return [
        Answer(item, number, error=why)
        for item, asked in chunk.asked
        for number in range(len(asked))
    ]
