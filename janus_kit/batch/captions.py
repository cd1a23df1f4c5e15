"""Captions of folders and streams of pictures, each done once, however often a run is cut short."""

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janus_kit.batch import inputs, results, tables
from janus_kit.batch.answers import Answerer, check
from janus_kit.batch.captioning import CaptionOptions, Job
from janus_kit.batch.files import path_of
from janus_kit.batch.inputs import Item
from janus_kit.batch.ledger import Shard
from janus_kit.batch.loader import ahead, of_picture
from janus_kit.batch.rayed import Crew
from janus_kit.batch.run import Outcome, complete
from janus_kit.batch.sidecars import Sidecars
from janus_kit.errors import BatchError
from janus_kit.pipeline import CAPTION, JanusPipeline
from janus_kit.prompts import CHAT_LIMIT, check_text

__all__ = ["Caption", "CaptionOptions", "caption_folder", "caption_stream", "run_captions"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caption:
    """A picture of a stream and what was answered, or why there is no answer."""

    item: Any
    text: str
    error: str | None = None


def caption_stream(
    pipe: JanusPipeline, items: Iterable[Any], prompt: str = CAPTION, **options: Any
) -> Generator[Caption, None, None]:
    """The captions of pictures (paths, bytes, arrays or PIL images), in their order, as they come.

    Pictures are decoded ahead and answered side by side; a bad one gives a Caption with its error.
    options: batch_size, max_new_tokens, temperature, top_p, seed, as in CaptionOptions.
    """
    check_text(prompt, CHAT_LIMIT)
    answerer = Answerer(pipe, **options)
    size = pipe.config.vision.image_size
    order: deque[int] = deque()
    found: dict[int, Caption] = {}

    def numbered() -> Iterator[tuple[int, Any]]:
        for number, item in enumerate(items):
            order.append(number)
            yield number, item

    pictures = ahead(_of_numbered, numbered(), size, 0, 2 * answerer.size.most)
    # Closed here and now, not whenever the frame of an error is forgotten: threads wait in it.
    with closing(answerer.run(pictures, lambda item: [prompt])) as steps:
        for answers in steps:
            for answer in answers:
                number, item = answer.item
                found[number] = Caption(item, answer.text, answer.error)
            while order and order[0] in found:
                yield found.pop(order.popleft())


def _of_numbered(numbered: tuple[int, Any], size: int) -> Any:
    return of_picture(numbered[1], size)


def caption_folder(
    pipe: JanusPipeline,
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str] | None = None,
    *,
    recursive: bool = False,
    pattern: str | None = None,
    all_files: bool = False,
    column: str | None = None,
    limit: int | None = None,
    shard: Shard | None = None,
    progress: bool = False,
    **options: Any,
) -> Outcome:
    """Caption the pictures of folders, globs, tars and tables; a second call does what is left.

    recursive, pattern (such as *.jpg) and all_files say which files of folders, column which one of
    tables. output: the folder of the results; None writes beside the pictures of the one folder.
    options: as CaptionOptions. A picture that cannot be captioned ends as failed with its reason,
    in captions.jsonl; nothing is raised for it. Raises BatchError, OptionError or PromptError for
    a run that cannot begin.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    chosen = CaptionOptions(**options)
    target = where(given, output)
    root, items = inputs.find(
        given,
        recursive=recursive,
        pattern=pattern,
        all_files=all_files,
        column=column,
        skip=target,
        ext=chosen.ext,
    )
    return run_captions(
        lambda: pipe,
        (pipe.name, pipe.model_hash),
        items[:limit],
        root,
        target,
        chosen,
        longest=pipe.config.language.max_positions,
        shard=shard,
        progress=progress,
    )


def where(paths: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str] | None) -> Path:
    """The folder of the results; BatchError where there is none to be guessed."""
    if output is not None:
        target = Path(output)
        if target.exists() and not target.is_dir():
            raise BatchError(f"{target}: is a file; --output names the folder of the results")
        return target
    if len(paths) != 1 or not Path(paths[0]).is_dir() or inputs.is_dataset(os.fspath(paths[0])):
        raise BatchError("results go beside the pictures of one folder; else name --output")
    return Path(paths[0])


def run_captions(
    open_pipe: Callable[[], JanusPipeline | Crew],
    model: tuple[str, str],
    items: Sequence[Item],
    root: Path,
    target: Path,
    options: CaptionOptions,
    *,
    longest: int,
    shard: Shard | None = None,
    progress: bool = False,
    stop: object = False,
) -> Outcome:
    """Bring every item to done or failed, as far as stop stays false; see caption_folder.

    open_pipe is called only if there is something to ask; model: its name and its weights' hash;
    longest: the tokens that it reads.
    """
    check(options.seed, options.max_new_tokens, options.batch_size, longest)
    sidecars = Sidecars(target, options.ext, options.full_names)
    if "txt" in options.formats:
        for line in sidecars.check([item.name for item in items]):
            log.warning("%s", line)
    _guard(items, root, target, options.formats)
    return complete(
        lambda ledger: Job(ledger, options, sidecars, root),
        open_pipe,
        items,
        target,
        options.settings(*model, os.path.relpath(root.resolve(), target.resolve())),
        verb="captioning",
        shard=shard,
        restart=options.existing == "overwrite",
        progress=progress,
        stop=stop,
    )


def _guard(items: Sequence[Item], root: Path, target: Path, formats: Sequence[str]) -> None:
    """Make the folder of the results; BatchError if one of them would replace what is not ours."""
    folders = {path_of(name) for name in {item.name.rpartition("/")[0] for item in items}}
    # A table of paths is no item's own file, but what its rows' names begin with.
    read = {item.source.path for item in items if item.source.kind != "file"}
    results.guard(target, tables.names(formats), {*read, *(root / name for name in folders)})
    if "txt" in formats or "imagefolder" in formats:
        results.room(target / name for name in folders)
    if "imagefolder" in formats and not {*tables.names(["imagefolder"])} <= results.claimed(target):
        for item in items:
            for name in tables.copies(item.name):
                if not tables.same(item.source.path, target / name):
                    results.refuse(target / name)
    results.ready(target)
