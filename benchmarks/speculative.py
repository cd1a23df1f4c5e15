"""How many passes speculative drawing saves, and how much time, beside drawing code by code.

Draws some of GenEval's prompts both ways in turns, on this machine, without decoding, and once more
with it. A pass reads the last code and --windows guesses.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from janus_kit import JanusPipeline
from janus_kit.bench.run import processor
from janus_kit.drawing import drawing_rows
from janus_kit.engine import CodeDrawer
from janus_kit.generation.sampling import SamplingOptions, sample, uniforms
from janus_kit.generation.speculative import sample_ahead
from janus_kit.scoring.promptset import prompts


class Counted(CodeDrawer):
    """A drawer that counts its passes."""

    passes = 0

    def ahead(self, codes: Tensor) -> Tensor:
        self.passes += 1
        return super().ahead(codes)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--windows", type=int, nargs="+", default=[3, 7, 15])
    parser.add_argument("--every", type=int, default=28, help="Of GenEval's prompts.")
    parser.add_argument("--guidance", type=float, help="Without it, the model's own.")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    pipe = JanusPipeline.from_pretrained(given.model)
    pipe.set_progress_bar_config(disable=True)
    own = pipe.defaults
    options = SamplingOptions(
        guidance=own.guidance if given.guidance is None else given.guidance,
        temperature=own.temperature if given.temperature is None else given.temperature,
    )
    texts = [line["prompt"] for line in prompts()][:: given.every]
    count = pipe.config.codes
    start = time.perf_counter()
    first = pipe.untold
    once = time.perf_counter() - start
    passes: dict[int, list[int]] = {window: [] for window in given.windows}
    times: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], Any]) -> None:
        start = time.perf_counter()
        call()
        times.setdefault(name, []).append(time.perf_counter() - start)

    for number, text in enumerate(texts):
        row, other = drawing_rows(pipe, [text], [""], 1)[0]
        guided = None if options.guidance == 1 else [other]
        drawer = Counted(pipe.model, pipe.code_table, pipe.tokenizer.pad, [row], guided)
        noise = uniforms([number], count)
        timed("code by code", lambda: sample(drawer, noise, options))  # noqa: B023 - called at once
        for window in given.windows:
            drawer.passes = 0
            random = torch.Generator().manual_seed(number)
            timed(
                str(window),
                lambda: sample_ahead(drawer, random, first, options, window=window),  # noqa: B023
            )
            passes[window].append(drawer.passes)
        asked = {
            "seed": number,
            "guidance_scale": options.guidance,
            "temperature": options.temperature,
        }
        timed("whole", lambda: pipe(text, **asked))  # noqa: B023
        timed("whole, speculative", lambda: pipe(text, speculative=True, **asked))  # noqa: B023
    plain = median(times["code by code"])
    result: dict[str, Any] = {
        "model": pipe.name,
        "hash": pipe.model_hash,
        "cpu": processor(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d"),
        "pictures": len(texts),
        "guidance": options.guidance,
        "temperature": options.temperature,
        "codes": count,
        "first guesses, beside a picture's codes": round(once / plain, 2),
        "windows": {
            str(window): {
                "passes": round(mean(passes[window]), 1),
                "times as fast": round(plain / median(times[str(window)]), 2),
            }
            for window in given.windows
        },
        "a whole picture, times as fast": round(
            median(times["whole"]) / median(times["whole, speculative"]), 2
        ),
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if given.output:
        given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
