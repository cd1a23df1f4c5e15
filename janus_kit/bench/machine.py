"""What a machine is, how fast it reads memory, and what loading a model takes there."""

import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from janus_kit.generation import native
from janus_kit.pipeline import JanusPipeline
from janus_kit.steps import native_step

__all__ = ["asked", "loads", "peak", "processor", "read_speed", "step_bytes"]

COPIED = 2 * 10**9  # bytes that a GPU copies to tell its speed
COPIES = 10


def asked() -> str:
    """The command that this process was started by, its program by its name alone."""
    name = Path(sys.argv[0]).name
    return shlex.join(["janus-kit" if name == "__main__.py" else name, *sys.argv[1:]])


def processor(device: torch.device) -> str:
    """The name of the GPU, or of the CPU, as far as the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = named[0] if named else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def read_speed(device: torch.device) -> float | None:
    """GB a second: what a sum reads on a CPU, what a copy reads and writes on a GPU; else None."""
    if device.type == "cuda":
        source, target = (torch.zeros(COPIED // 4, device=device) for _ in range(2))
        target.copy_(source)
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        for _ in range(COPIES):
            target.copy_(source)
        torch.cuda.synchronize(device)
        return round(2 * COPIED * COPIES / (time.perf_counter() - start) / 1e9, 2)
    return round(native.read_speed(), 2) if device.type == "cpu" and native.available() else None


def peak(device: torch.device) -> float:
    """GB of memory at the most so far, of a GPU or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def step_bytes(pipe: JanusPipeline, batch: int, count: int) -> float:
    """GB that a mean step of drawing count codes of each picture reads: weights, half a cache."""
    language, model = pipe.config.language, pipe.model
    step = native_step(model, "code")
    if step is not None:
        weights = step.bytes
    else:
        parts = (model.language.layers, model.language.norm, model.code_head)
        weights = sum(_held(t) for part in parts for t in _tensors(part))
    width = 2 * language.layers * language.kv_heads * language.head_dim * pipe.dtype.itemsize
    return round((weights + 2 * batch * (count / 2) * width) / 1e9, 4)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _held(tensor: Tensor) -> int:
    """Bytes of a tensor, or of those that a packed one consists of."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return tensor.nbytes
    return sum(_held(getattr(tensor, name)) for name in flatten()[0])


_LOAD = """
import resource, sys, time, torch
{imports}
def held():
    if {device!r} == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    if sys.platform == "linux":  # where the other figure begins with that of the process above
        (line,) = (x for x in open("/proc/self/status") if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
torch.zeros(1, device={device!r})
before = held()
start, used = time.perf_counter(), time.process_time()
model = {call}
if {device!r} == "cuda":
    torch.cuda.synchronize()
print(time.perf_counter() - start, time.process_time() - used, held() - before)
"""


def loads(
    folder: str, dtype: str, quantization: str | None, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Seconds and GB of loading, each in a process of its own with its imports made before.

    The first time it finds an empty cache: it looks for NaN in all weights and quantizes them.
    device: cpu or cuda, whose memory then counts.
    """
    ours = f"JanusPipeline.from_pretrained(sys.argv[1], dtype={dtype!r}, device={device!r}"
    chosen = "" if quantization is None else f", quantization={quantization!r}"
    theirs = f"JanusForConditionalGeneration.from_pretrained(sys.argv[1], dtype=torch.{dtype})"
    needs = (
        "from janus_kit import JanusPipeline\n"
        "from janus_kit.variants import measuring\n"
        "refused = measuring()  # kept: what nothing holds is over at once\n"
        "refused.__enter__()"
    )
    scripts = {
        "janus_kit, first time": (needs, f"{ours}{chosen})"),
        "janus_kit": (needs, f"{ours}{chosen})"),
        "transformers": (
            "from transformers import JanusForConditionalGeneration",
            f"{theirs}.to({device!r})",
        ),
    }
    found = {}
    with TemporaryDirectory() as cache:
        for name, (imports, call) in scripts.items():
            text = _LOAD.format(imports=imports, call=call, device=device)
            said = subprocess.run(  # noqa: S603 - this Python, and a text of this file
                [sys.executable, "-c", text, folder],
                check=True,
                capture_output=True,
                text=True,
                env=os.environ | {"XDG_CACHE_HOME": cache},
            )
            wall, used, size = (round(float(text), 3) for text in said.stdout.split()[-3:])
            found[name] = {"wall": wall, "cpu": used, "GB": size}
    return found
