"""How much faster a CPU trains by what janus_kit does for it, in one process and on the same work.

A step forward and back, as training does it: in bfloat16 where the CPU multiplies that, else in
float32. Of the embedded model's VQ decoder with PyTorch's layout and with channels last, with
PyTorch's group norms there and with those of training/norms.py, and as sketches of half and of a
quarter of the size; of the embedded model's encoder with PyTorch's fused attention and with two
products, and with two thirds of its places left out; and an update of the decoder by PyTorch's Muon
and by that of training/muon.py.

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

from janus_kit.bench.machine import processor
from janus_kit.bench.run import medians
from janus_kit.config import PRESETS
from janus_kit.generation.vq import Decoder
from janus_kit.linears import quick_in_half
from janus_kit.training.muon import Muon32
from janus_kit.training.norms import train_channels_last
from janus_kit.vision import encoder
from janus_kit.vision.encoder import VisionEncoder

HALF = quick_in_half(torch.device("cpu"))


def update(kind: type[torch.optim.Muon], module: nn.Module) -> Callable[[], object]:
    """An update of all kernels by gradients that stay as they are."""
    rows = [nn.Parameter(p.data.flatten(1)) for p in module.parameters() if p.dim() > 1]
    for row in rows:
        row.grad = torch.randn_like(row)
    return kind(rows, lr=1e-6, weight_decay=0.0, adjust_lr_fn="match_rms_adamw").step


def step(module: nn.Module, run: Callable[[], Tensor]) -> None:
    """One way there and back."""
    with torch.autocast("cpu", torch.bfloat16, enabled=HALF):
        loss = run().float().square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
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
    third = torch.stack([torch.randperm(576)[:192] for _ in range(len(pixels))])
    quick = ours if HALF else plain  # as training/vq_stage.py has it

    def fused() -> None:
        with patch.object(encoder, "learns_on_cpu", lambda x: False):
            step(net, lambda: net(pixels))

    calls: dict[str, Callable[[], object]] = {
        "decoder": lambda: step(plain, lambda: plain(latents)),
        "decoder, channels last": lambda: step(last, lambda: last(latents)),
        "decoder, channels last, our norms": lambda: step(ours, lambda: ours(latents)),
        "decoder, a sketch of half": lambda: step(quick, lambda: quick.lower(latents, 4)),
        "decoder, a sketch of a quarter": lambda: step(quick, lambda: quick.lower(latents, 3)),
        "encoder": fused,
        "encoder, two products": lambda: step(net, lambda: net(pixels)),
        "encoder, two products, a third of the places": lambda: step(
            net, lambda: net(pixels, third)
        ),
        "muon": update(torch.optim.Muon, plain),
        "muon, float32": update(Muon32, plain),
    }
    for call in calls.values():
        call()
    taken = medians(calls, options.rounds)
    result = {
        "device": processor(torch.device("cpu")),
        "dtype": "bfloat16" if HALF else "float32",
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
