"""How much faster a CPU trains by what janus_kit does for it, in one process and on the same work.

A step forward and back, under autocast to bfloat16: of the embedded model's VQ decoder with
PyTorch's layout and with channels last, with PyTorch's group norms there and with those of
training/norms.py, and as a sketch of a quarter of the size; of the embedded model's encoder with
PyTorch's fused attention and with two products, and with half of its places left out.

    OMP_NUM_THREADS=1 python benchmarks/training.py --rounds 5 -o benchmarks/results/training.json
"""

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from janus_kit.bench.run import medians, processor
from janus_kit.config import PRESETS
from janus_kit.generation.vq import Decoder
from janus_kit.training.norms import train_channels_last
from janus_kit.vision import encoder
from janus_kit.vision.encoder import VisionEncoder


def step(module: nn.Module, run: Callable[[], Tensor]) -> None:
    """One way there and back."""
    with torch.autocast("cpu", torch.bfloat16):
        loss = run().float().square().mean()
    loss.backward()
    module.zero_grad(set_to_none=True)


def main() -> None:
    """Time the contenders in turns and print ratios to the first of each pair."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    config = PRESETS["tiny"]
    latents = torch.randn(1, config.vq.latent_channels, 24, 24)
    plain, last, ours = (Decoder(config.vq) for _ in range(3))
    last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train_channels_last(ours)

    net = VisionEncoder(config.vision)
    pixels = torch.randn(4, 3, 384, 384)
    half = torch.stack([torch.randperm(576)[:288] for _ in range(len(pixels))])

    def fused() -> None:
        with patch.object(encoder, "learns_on_cpu", lambda x: False):
            step(net, lambda: net(pixels))

    calls = {
        "decoder": lambda: step(plain, lambda: plain(latents)),
        "decoder, channels last": lambda: step(last, lambda: last(latents)),
        "decoder, channels last, our norms": lambda: step(ours, lambda: ours(latents)),
        "decoder, our norms, a quarter's sketch": lambda: step(
            ours, lambda: ours.lower(latents, 3)
        ),
        "encoder": fused,
        "encoder, two products": lambda: step(net, lambda: net(pixels)),
        "encoder, two products, half of the places": lambda: step(net, lambda: net(pixels, half)),
    }
    for call in calls.values():
        call()
    taken = medians(calls, options.rounds)
    result = {
        "device": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "rounds": options.rounds,
    }
    for name, seconds in taken.items():
        ratio = taken[name.split(",")[0]]["cpu"] / seconds["cpu"]
        result[name] = {**seconds, "times as fast by cpu": round(ratio, 2)}
        print(f"{name}: {seconds['cpu']:.2f} s of cpu, {ratio:.2f} times as fast")
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
