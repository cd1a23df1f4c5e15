"""What the commands share: the model's options, prompts, numbered pictures and exit codes."""

import errno
import functools
import json
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO, TextIOWrapper
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from janus_kit.errors import JanusKitError, PromptError
from janus_kit.sharing import with_options

if TYPE_CHECKING:
    from PIL import Image

    from janus_kit.metadata import Settings
    from janus_kit.pipeline import JanusPipeline

__all__ = [
    "PARTLY",
    "Album",
    "Load",
    "Model",
    "Quiet",
    "Revision",
    "Verbose",
    "compare",
    "complain",
    "complain_of",
    "describe",
    "draw",
    "lines",
    "log",
    "read_prompts",
    "result",
    "session",
    "table",
    "typed_lines",
    "with_model",
]

log = logging.getLogger("janus_kit")

PARTLY: Final = 3  # the exit code of a command that finished, but not for every item
_SHORT: Final = 5  # out of disk or memory
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_DENIED: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST)
_MISNAMED: Final = (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


def be_quiet(quiet: bool) -> bool:
    if quiet:
        log.setLevel(logging.ERROR)
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return quiet  # typer takes what a callback returns for the value


def be_verbose(verbose: bool) -> None:
    if verbose:
        log.setLevel(logging.DEBUG)


Model = Annotated[
    str | None,
    typer.Option(
        envvar="JANUS_KIT_MODEL", help="A folder or a hub id; without it, the embedded model."
    ),
]
Revision = Annotated[str | None, typer.Option(help="The revision of a hub id.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or auto. [auto]")]
Quantization = Annotated[str | None, typer.Option(help="int8 or int4; on a GPU also fp8.")]
Unverified = Annotated[bool, typer.Option("--no-verify", help="Do not look for NaN in weights.")]
# These two act by their callbacks, once session has set the log up.
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=be_quiet, help="No progress, no warnings.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", callback=be_verbose, help="Show the log and tracebacks.")
]
Load = functools.partial["JanusPipeline"]  # of open_model, with what the options say


def open_model(
    model: Model = None,
    revision: Revision = None,
    device: Device = "auto",
    dtype: Dtype = None,
    quantization: Quantization = None,
    no_verify: Unverified = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> "JanusPipeline":
    """The pipeline that these options ask for."""
    from janus_kit.pipeline import JanusPipeline

    how: Any = {"dtype": dtype or "auto", "quantization": quantization, "verify": not no_verify}
    pipe = JanusPipeline.from_pretrained(model, revision=revision, device=device, **how)
    pipe.set_progress_bar_config(disable=quiet)
    return pipe


with_model = with_options(open_model, "load")


@contextmanager
def session() -> Iterator[None]:
    """The surroundings of a command: log lines on stderr, signals and errors as exit codes.

    An error that nobody foresaw passes through with its traceback, which Python ends with code 1.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("janus-kit: %(message)s"))
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.WARNING)
    # A background job of nohup ignores SIGINT, and keeps ignoring it.
    watched = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN]
    before = {number: signal.signal(number, _stop) for number in watched}
    if isinstance(sys.stdout, TextIOWrapper):  # a file name may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except Exception as error:
        found = _verdict(error)
        if found is None:
            raise
        code, line = found
        if log.isEnabledFor(logging.DEBUG):
            traceback.print_exc()
        complain(line)
        sys.exit(code)
    finally:
        for number, old in before.items():
            signal.signal(number, old)
        log.removeHandler(handler)
        log.setLevel(level)


def _stop(number: int, frame: object) -> None:
    """End by SystemExit, so that half-written files are removed on the way out."""
    sys.exit(128 + number)


def _verdict(error: BaseException) -> tuple[int, str] | None:
    """The exit code and the line of an error that people can do something about, else None."""
    inner: BaseException | None = error
    while inner is not None:
        if line := _shortage(inner):
            return _SHORT, str(error) if isinstance(error, JanusKitError) else line
        inner = inner.__cause__
    if isinstance(error, OSError) and error.errno in (*_DENIED, *_MISNAMED) and error.filename:
        return 2, f"{error.filename}: {error.strerror}; choose another file or folder"
    return (error.exit_code, str(error)) if isinstance(error, JanusKitError) else None


def _shortage(error: BaseException) -> str | None:
    """What ran out, if that is what the error says."""
    torch = sys.modules.get("torch")  # an error of torch's needs it to be there
    text = str(error)
    if (isinstance(error, OSError) and error.errno in _FULL) or "No space left on device" in text:
        place = getattr(error, "filename", None) or "the disk"
        return f"{place}: no space is left; free some, or choose another folder"
    if (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or "DefaultCPUAllocator" in text  # what torch says on a CPU, as a RuntimeError
    ):
        return "out of memory; try --dtype bfloat16, a smaller --batch-size or a smaller model"
    return None


def complain(error: object) -> None:
    """One line on stderr."""
    typer.echo(f"janus-kit: {' '.join(str(error).split())}", err=True)


def complain_of(lines: Iterable[str]) -> None:
    """complain, line by line."""
    for line in lines:
        complain(line)


def result(line: object, record: Mapping[str, Any], as_json: bool) -> None:
    """A result on stdout: the line, or the record as JSON, in ASCII for every terminal and pipe."""
    typer.echo(json.dumps(record, default=str) if as_json else line)


def read_prompts(arguments: Sequence[str]) -> list[str]:
    """The prompts of the arguments: texts, @file with one a line, or - for the lines of stdin."""
    prompts = []
    for argument in arguments:
        if argument == "-":
            log.info("reading prompts from stdin, one a line")
            prompts += _lines(sys.stdin.buffer.read(), "stdin")
        elif argument.startswith("@"):
            try:
                data = Path(argument[1:]).read_bytes()
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise PromptError(
                    f"{argument}: cannot be read ({reason}); what follows @ is a file of prompts"
                ) from error
            prompts += _lines(data, argument[1:])
        else:
            prompts.append(argument)
    return prompts


def _lines(data: bytes, place: str) -> list[str]:
    """The lines that are not empty, without BOM and CR; PromptError if there are none."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(f"{place}: is not UTF-8 text; save it as UTF-8") from error
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n")]
    if not any(lines):
        raise PromptError(f"{place}: holds no prompt; write one a line")
    return [line for line in lines if line]


def typed_lines() -> Iterator[str]:
    """Lines of stdin that are not empty, to its end or /quit; a person sees a mark to type at."""
    while True:
        if sys.stdin.isatty():
            typer.echo("> ", nl=False, err=True)
        line = sys.stdin.buffer.readline()
        text = line.decode("utf-8", "replace").strip("\ufeff \t\r\n")
        if not line or text == "/quit":
            return
        if text:
            yield text


class Album:
    """A folder of numbered pictures that only grows: no file in it is ever replaced."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError for a folder that cannot be written; the first picture makes a new one."""
        place = folder
        while True:
            with suppress(FileNotFoundError):
                place.stat()
                break
            place = place.parent
        if not place.is_dir():
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        if not os.access(place, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        self.folder = folder
        found = (re.match(r"(\d+)_", path.name) for path in folder.glob("*_*"))
        self.number = max((int(match[1]) for match in found if match), default=-1) + 1

    def add(self, image: "Image.Image", settings: "Settings") -> Path:
        """Write the picture, with its settings inside, under the next number."""
        from janus_kit.metadata import save_png

        names = (f"{number:03}_{settings.seed}.png" for number in count(self.number))
        with self._claimed(names) as path:
            save_png(image, path, settings)
        self.number += 1
        return path

    def add_grid(self, images: "Sequence[Image.Image]") -> Path:
        """Write all pictures on one sheet: grid.png, or grid_1.png where that is taken."""
        from janus_kit.vision.images import grid

        data = BytesIO()
        grid(images).save(data, format="PNG")
        names = (f"grid_{number}.png" for number in count(1))
        with self._claimed(chain(["grid.png"], names)) as path:
            path.write_bytes(data.getvalue())
        return path

    @contextmanager
    def _claimed(self, names: Iterable[str]) -> Iterator[Path]:
        """The first name that is free, as an empty file that no other process gets.

        It goes again if the work fails.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in map(self.folder.joinpath, names):
            with suppress(FileExistsError):
                path.touch(exist_ok=False)
                break
        try:
            yield path
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def describe() -> dict[str, Any]:
    """The versions and the memory of this machine; None for what is not there."""
    import platform
    from importlib import metadata

    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from janus_kit.generation.native import free_memory

    facts: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("janus_kit", "torch", "transformers"):
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = None
    facts["free_memory"] = free_memory()
    if torch.cuda.is_available():
        facts["free_gpu_memory"] = torch.cuda.mem_get_info()[0]
    facts["cache"] = HF_HUB_CACHE
    return facts


def lines(facts: Mapping[str, Any]) -> str:
    """Facts for people: one a line, with memory in GiB."""
    shown = []
    for name, fact in facts.items():
        text = "-" if fact is None else f"{fact:,}" if isinstance(fact, int) else str(fact)
        if isinstance(fact, int) and name.endswith("memory"):
            text = f"{fact / 2**30:.1f} GiB"
        shown.append(f"{name + ':':17} {text}")
    return "\n".join(shown)


def draw(
    pipe: "JanusPipeline",
    rows: Sequence[str],
    first: int,
    batch_size: int | None,
    options: Mapping[str, Any],
) -> "Iterator[tuple[Any, Settings | PromptError]]":
    """A picture and its settings for each prompt, or the error of one that cannot be drawn.

    The prompts go in parts, so that a long list keeps what is done when it is stopped.
    """
    size = batch_size or (64 if pipe.device.type == "cuda" else 8)  # at most, as "auto" has it
    chosen = {**options, "batch_size": batch_size or "auto"}
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        try:
            drawn = pipe(part, seed=first + start, **chosen)
        except PromptError as error:
            if len(part) == 1:
                yield None, error
            else:
                yield from draw(pipe, part, first + start, 1, options)
        else:
            yield from zip(drawn.images, drawn.settings, strict=True)


def compare(old: "Settings", new: "Settings") -> None:
    """Warn of what differs between two drawings of a picture and may change it."""
    for name in ("model", "model_hash", "dtype", "device", "torch_version", "version"):
        was, now = getattr(old, name), getattr(new, name)
        if was and was != now:
            log.warning("%s differs: %s then, %s now; so may the picture", name, was, now)


def table(figures: Mapping[str, Any]) -> str:
    """The result of an evaluation for people."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("section", "figure", "share", "95 %", "of")
    console = Console(markup=False)
    with console.capture() as written:
        for section, entries in figures.items():
            if not isinstance(entries, Mapping):
                console.print(f"{section}: {entries}")
                continue
            for name, entry in entries.items():
                if isinstance(entry, Mapping) and "share" in entry:
                    interval = f"{entry['low']:.0%} to {entry['high']:.0%}"
                    count = str(entry.get("of", ""))  # a mean of tasks is of no number of things
                    shown.add_row(section, name, f"{entry['share']:.1%}", interval, count)
                elif isinstance(entry, Mapping):
                    text = ", ".join(f"{key} {value}" for key, value in entry.items())
                    shown.add_row(section, name, text)
                else:
                    shown.add_row(section, name, str(entry))
            shown.add_section()
        console.print(shown)
    return written.get().rstrip()
