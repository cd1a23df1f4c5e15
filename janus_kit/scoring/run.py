"""What the runs of both benchmarks share: the folder, its pictures' settings, speed, provenance."""

import datetime
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from janus_kit import loading
from janus_kit.errors import OptionError, ScoringError
from janus_kit.progress import steps_bar
from janus_kit.scoring.records import read_rows, to_json, write_whole

__all__ = ["Outcome", "Run", "Watch", "now", "same_pictures", "versions"]

log = logging.getLogger(__name__)

SETTINGS = "pictures.json"  # by what the pictures of a run folder were drawn
LAST = 2**63 - 1  # of the seeds that a generator takes
KEPT = "stages"  # folder of the stages' blocks
PACKAGES = ("janus-kit", "torch", "transformers", "diffusers", "ai-edge-litert", "numpy", "pillow")


@dataclass
class Watch:
    """Counts what stages did and how long it took; what was found done is not counted."""

    speed: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, unit: str, total: int) -> Iterator[Callable[..., None]]:
        """A stage over total units; yields advance(count, fresh): whether that was done just now.

        A log that tells INFO shows a bar.
        """
        start, done = time.monotonic(), 0
        show = total > 0 and log.isEnabledFor(logging.INFO)
        with steps_bar(name, unit, total, show) as advance:

            def count(number: int, fresh: bool = True) -> None:
                nonlocal done, start
                if not done and not fresh:
                    start = time.monotonic()  # what lies there is not timed
                done += number if fresh else 0
                advance(number)

            yield count
        seconds = time.monotonic() - start
        if done:
            self.speed[name] = {
                unit: done,
                "seconds": round(seconds, 2),
                "per_second": round(done / seconds, 3),
            }
            log.info("%s: %d %s in %.0f s", name, done, unit, seconds)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a run writes, and what it goes by in both benchmarks."""

    output: Path
    images: Path | None = None  # pictures of others; None: drawn here, in output/images
    samples: int = 4  # pictures a prompt
    seed: int = 42  # picture k of every prompt has the seed + k
    partial: bool = False  # go on where pictures are missing
    watch: Watch = field(default_factory=Watch)

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 1000:
            raise OptionError(f"samples must be from 1 to 1000, not {self.samples}")
        if not 0 <= self.seed <= LAST - self.samples:
            raise OptionError(f"seed must be from 0 to {LAST - self.samples}, not {self.seed}")
        if self.images is not None and not self.images.is_dir():
            raise ScoringError(f"{self.images}: is not a folder of pictures")

    @property
    def pictures(self) -> Path:
        """The folder of the pictures."""
        return self.images or self.output / "images"

    @property
    def kept(self) -> Path:
        """The folder of the stages' blocks."""
        return self.output / KEPT

    def forget(self) -> None:
        """Remove what the stages have found."""
        shutil.rmtree(self.kept, ignore_errors=True)

    def drawn_by(self) -> dict[str, Any]:
        """By what the pictures were drawn, as was noted then; of others', where they lie."""
        path = self.output / SETTINGS
        if self.images is not None:
            return {"images": str(self.images)}
        return _settings(path) if path.is_file() else {"images": str(self.pictures)}


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: the summary as written, and sentences about what could not be scored."""

    summary: dict[str, Any]
    complaints: tuple[str, ...]


def same_pictures(run: Run, facts: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Note by what the pictures are drawn, or see that those there were drawn by the same.

    Raises OptionError where they were not. overwrite removes what a run has written.
    """
    path = run.output / SETTINGS
    now = {**json.loads(to_json(dict(facts))), "seed": run.seed}
    if overwrite and path.is_file():  # a folder without it is not ours to empty
        for name in ("images", KEPT):
            shutil.rmtree(run.output / name, ignore_errors=True)
        for name in (SETTINGS, "results.jsonl", "summary.json", "report.html"):
            (run.output / name).unlink(missing_ok=True)
    if not path.is_file() or not any((run.output / "images").glob("**/*.png")):
        write_whole(path, to_json(now) + "\n")
        return
    before = _settings(path)
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            raise OptionError(
                f"{run.output}: holds pictures drawn with {name} {before.get(name)}, not "
                f"{now.get(name)}; take another -o, or --overwrite"
            )


def _settings(path: Path) -> dict[str, Any]:
    """What a run noted about its pictures; raises ScoringError where the file is another."""
    rows = read_rows(path)
    if not rows:
        raise ScoringError(f"{path}: is empty; draw anew with --overwrite, or into another -o")
    return rows[0]


def versions() -> dict[str, str]:
    """The versions of what a score can depend on, where they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = loading.version() if name == "janus-kit" else metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The date and time, to the second, in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
