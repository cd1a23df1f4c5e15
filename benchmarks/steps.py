"""Steps in C of a published shape with random weights: how near they are to the memory.

python benchmarks/steps.py --shape janus-pro-1b --rows 2,8,32 --quantization int8
"""

import argparse
import json
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from janus_kit import JanusPipeline
from janus_kit.bench.machine import asked as command
from janus_kit.bench.machine import processor
from janus_kit.bench.shapes import folder_of
from janus_kit.generation import native
from janus_kit.loading import version
from janus_kit.steps import native_step


@torch.inference_mode()
def measure(pipe: JanusPipeline, rows: int, slot: int, times: int) -> dict[str, float]:
    """Medians of steps to code logits at a slot, each beside a sum over memory."""
    step, language = native_step(pipe.model, "code"), pipe.config.language
    assert step is not None, "the step in C was not built"
    size = (language.layers, rows, language.kv_heads, slot + 1, language.head_dim)
    keys, values = (torch.full(size, 0.01, dtype=pipe.dtype) for _ in range(2))
    angles = torch.ones(slot + 1, 2, language.head_dim)
    padding = torch.zeros(rows, dtype=torch.long)
    embeds = torch.full((rows, language.hidden), 0.01)
    threads = torch.get_num_threads()
    seconds, reads = [], []
    for _ in range(times + 1):
        start = time.perf_counter()
        step(embeds, keys, values, angles, padding, slot, threads)
        seconds.append(time.perf_counter() - start)
        reads.append(native.read_speed())
    took, read = statistics.median(seconds[1:]), statistics.median(reads[1:])
    speed = (step.bytes + keys.nbytes + values.nbytes) / took / 1e9
    found = {"ms": 1000 * took, "GB/s": speed, "memory, GB/s": read, "share": speed / read}
    return {name: round(value, 2) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="the speed of steps in C")
    parser.add_argument("--shape", default="janus-pro-1b")
    parser.add_argument("--quantization", default=None, help="int8 or int4; bfloat16 if absent")
    parser.add_argument("--rows", default="2,8,32", help="two a picture with guidance")
    parser.add_argument("--slot", type=int, default=312, help="the position that is read")
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--threads", type=int, help="of torch; its own choice if absent")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    pipe = JanusPipeline.from_pretrained(
        str(folder_of(asked.shape, Path("runs/shapes"))),
        device="cpu",
        dtype="bfloat16",
        quantization=asked.quantization,
        components="draw",
        verify=False,
    )
    found = {
        f"{rows} rows": measure(pipe, int(rows), asked.slot, asked.times)
        for rows in asked.rows.split(",")
    }
    given = {
        "command": command(),
        **vars(asked),
        "threads": torch.get_num_threads(),
        "device": processor(torch.device("cpu")),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"torch": torch.__version__, "janus_kit": version()},
    }
    text = json.dumps({**given, "steps": found}, indent=1, default=str)
    print(text)
    if asked.output is not None:
        asked.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
