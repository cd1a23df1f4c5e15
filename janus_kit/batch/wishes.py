"""The pictures that a file of prompts asks for, each with its seed, and how they are drawn."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from janus_kit.batch.files import blocks, json_lines, reason
from janus_kit.errors import BatchError, OptionError
from janus_kit.generation.sampling import SamplingOptions
from janus_kit.options import SEEDS, batch_rows, whole

__all__ = ["DrawOptions", "Drawing", "read_prompts", "usual"]

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
    batch_size: int | str = "auto"  # pictures at once; auto: 8, or 64 on a GPU
    existing: str = "skip"  # or overwrite: what other options have drawn is drawn again
    retry_failed: bool = False

    def __post_init__(self) -> None:
        whole("samples", self.samples, 1, 100_000)
        whole("seed", self.seed, 0, SEEDS - 1)
        batch_rows(self.batch_size, 8, 0, torch.device("cpu"))
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
    if kind == ".jsonl":
        yield from (row for _, row in json_lines(path))
        return
    with blocks(path), path.open(encoding="utf-8-sig") as file:
        yield from ({"prompt": line.strip()} for line in file if line.strip())
