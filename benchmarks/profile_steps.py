"""Where the time of steps goes: operators or kernels by their share, of a published shape.

python benchmarks/profile_steps.py --shape janus-pro-1b --device cuda -o profile.txt
"""

import argparse
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from janus_kit import JanusPipeline
from janus_kit.bench.machine import processor
from janus_kit.bench.peers import Ours
from janus_kit.bench.shapes import folder_of

ROWS = 25  # of the table


def main() -> None:
    parser = argparse.ArgumentParser(description="a profile of drawing steps")
    parser.add_argument("--shape", default="janus-pro-1b", help="or a model's folder")
    parser.add_argument("--folder", type=Path, default=Path("runs/shapes"), help="random weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--codes", type=int, default=144, help="of a picture; a square number")
    parser.add_argument("-o", "--output", type=Path, help="a text file for the table")
    asked = parser.parse_args()
    known = asked.shape.startswith("janus-pro-")
    place = str(folder_of(asked.shape, asked.folder)) if known else asked.shape
    pipe = JanusPipeline.from_pretrained(
        place, device=asked.device, dtype=asked.dtype, verify=False
    )
    pipe.set_progress_bar_config(disable=True)
    ours = Ours(pipe)
    ours.draw(asked.codes)  # captures, where that is done
    kinds = [ProfilerActivity.CPU]
    if pipe.device.type == "cuda":
        kinds.append(ProfilerActivity.CUDA)
    with profile(activities=kinds) as seen:
        ours.draw(asked.codes)
    order = "self_cuda_time_total" if pipe.device.type == "cuda" else "self_cpu_time_total"
    table = seen.key_averages().table(sort_by=order, row_limit=ROWS)
    text = (
        f"{asked.shape} in {asked.dtype}, {asked.codes} codes, {processor(pipe.device)}\n{table}\n"
    )
    print(text)
    if asked.output is not None:
        asked.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
