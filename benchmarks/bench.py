"""`janus-kit bench` with its result in benchmarks/results: make bench.

Arguments are those of the command; without -o the file is named by what was measured.
"""

import sys
from pathlib import Path

import torch

from janus_kit.cli import main

if __name__ == "__main__":
    given = sys.argv[1:]
    if not {"-o", "--output"} & set(given):
        words = [word.lstrip("-") for word in given if not word.startswith(("/", "."))]
        kind = torch.backends.cpu.get_cpu_capability().lower()
        place = "gpu" if torch.cuda.is_available() and "cpu" not in given else f"cpu-{kind}"
        shape = [] if {"--shape", "--model"} & set(given) else ["embedded"]
        name = "-".join([place, *shape, *words])
        given += ["-o", str(Path(__file__).parent / "results" / f"{name}.json")]
    sys.argv = ["janus-kit", "bench", *given]
    main()
