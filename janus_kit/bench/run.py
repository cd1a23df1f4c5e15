"""Contenders in turns within one process; medians, versions and device as JSON.

The wall clock counts unless the machine is busy with other work: then the CPU seconds of one thread
(--threads 1) still compare, since all contenders are counted so.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from math import isqrt
from pathlib import Path
from typing import Any

import torch

from janus_kit.bench.machine import loads, peak, processor, read_speed, step_bytes
from janus_kit.bench.peers import PROMPT, Ours, Theirs, agreement
from janus_kit.bench.shapes import folder_of
from janus_kit.errors import OptionError
from janus_kit.graphs import replays
from janus_kit.pipeline import CAPTION, JanusPipeline
from janus_kit.prompts import Message, chat_ids, drawing_ids
from janus_kit.variants import measuring

__all__ = ["PEERS", "bench", "show"]

PEERS = ("generate", "dynamic cache", "published loop")
SHAPES = ("embedded", "janus-pro-1b", "janus-pro-7b")
LONG = 100  # tokens of an answer in which the end is not allowed


class Noted(partial[Any]):
    """A call that keeps what it gave last."""

    last: Any = None

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.last = super().__call__(*given, **named)
        return self.last


def medians(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Median wall and CPU seconds of each call, and the extremes of the wall seconds.

    Every second round runs backwards.
    """
    wall: dict[str, list[float]] = {name: [] for name in calls}
    work: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            start, used = time.perf_counter(), time.process_time()
            calls[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            wall[name].append(time.perf_counter() - start)
            work[name].append(time.process_time() - used)
    return {
        name: {
            "wall": round(statistics.median(wall[name]), 4),
            "least": round(min(wall[name]), 4),
            "most": round(max(wall[name]), 4),
            "cpu": round(statistics.median(work[name]), 4),
        }
        for name in calls
    }


def bench(
    shape: str = "embedded",
    *,
    model: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    quantization: str | None = None,
    components: str = "all",
    batch: int = 1,
    codes: int | None = None,
    tokens: int = 24,
    rounds: int = 3,
    threads: int | None = None,
    compile: bool = False,
    compiled: bool = False,
    captions: bool = True,
    load: bool = False,
    peers: Sequence[str] = PEERS,
    folder: Path | None = None,
    so_far: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Time janus_kit and transformers on the same weights; returns what `show` prints.

    shape: embedded (its true weights) or a published one with random weights, made in folder; or
    model names any folder or id. codes: how many of a picture's codes are drawn, a square number;
    decoding is counted when they are all. compile: ours by torch.compile, on a GPU; compiled: also
    transformers' steps by it. load: also time loading, each in a process of its own. peers: which
    of PEERS draw, too; transformers is left out where there is none and nothing else asks for it.
    components: "draw" where pictures alone are asked of janus_kit alone. so_far: called after each
    task with what there is by then, for work of an hour that may be killed.
    """
    if components != "all" and (components != "draw" or captions or compiled or peers):
        raise OptionError(
            f"components={components!r} leaves out what captions and peers need; take 'draw', "
            "--no-captions and no peers"
        )
    for peer in peers:
        if peer not in PEERS:
            raise OptionError(f"peers must be of {', '.join(PEERS)}, not {peer!r}")
    if shape not in SHAPES:
        raise OptionError(f"shape must be one of {', '.join(SHAPES)}, not {shape!r}")
    if threads:
        torch.set_num_threads(threads)
    place = model
    if shape != "embedded" and model is None:
        place = str(folder_of(shape, folder or Path("runs/shapes")))
    with measuring():
        pipe = JanusPipeline.from_pretrained(
            place,
            device=device,
            dtype=dtype,
            quantization=quantization,
            components=components,
            compile=compile,
            verify=False,
        )
    pipe.set_progress_bar_config(disable=True)
    if place is not None and model is None:
        pipe.__dict__["model_hash"] = ""  # random numbers; reading all of them takes long
    count = codes or pipe.config.codes
    if isqrt(count) ** 2 != count or count > pipe.config.codes:
        raise OptionError(f"codes must be a square number up to {pipe.config.codes}, not {count}")
    ours = Ours(pipe)
    # The whole picture: a GPU captures what is replayed, and all memory is taken.
    start = time.perf_counter()
    ours.draw(count, batch)
    first_call, own_peak = time.perf_counter() - start, peak(pipe.device)
    drawers: dict[str, Callable[[int, int], list[list[int]]]] = {"janus_kit": ours.draw}
    if peers or captions or compiled:
        theirs = Theirs(pipe, pipe.dtype)
        drawers["generate"] = theirs.draw
        drawers["dynamic cache"] = theirs.draw_dynamic
        drawers["published loop"] = theirs.draw_published
    work = {name: Noted(drawers[name], count, batch) for name in ("janus_kit", *peers)}
    for name in work:
        drawers[name](4, batch)  # what a first call prepares is there for those that count
    if count == pipe.config.codes:
        pipe.decode(torch.zeros(batch, count, dtype=torch.long))
    ours.steps.clear()
    written: dict[str, float] = {}
    found = {"read": [read_speed(pipe.device)]}
    tasks: dict[str, dict[str, dict[str, float]]] = {}
    same: dict[str, dict[str, Any]] = {}

    def figures() -> dict[str, Any]:
        return {
            "shape": shape if model is None else pipe.name,
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "quantization": quantization,
            "components": components,
            "compile": compile,
            "model hash": pipe.model_hash,
            "date": datetime.now(UTC).date().isoformat(),
            "device": processor(pipe.device),
            "threads": torch.get_num_threads(),
            "load average": list(os.getloadavg()),
            "rounds": rounds,
            "versions": {"python": platform.python_version()}
            | {
                n: version(n)
                for n in ("janus-kit", "torch", "transformers")
                if find_spec(_module(n))
            },
            "first call, s": round(first_call, 4),
            "seconds": tasks,
            "tokens a second after the first": written,
            "memory read, GB/s": found["read"],
            "step, ms": round(1000 * statistics.median(ours.steps), 3) if ours.steps else None,
            "step reads, GB": step_bytes(pipe, batch, count),
            "share of a memory read": share_of_read(pipe, ours.steps, batch, count, found["read"]),
            "agreement": same,
            "peak memory of janus_kit, GB": round(own_peak, 2),
            "peak memory of all, GB": round(peak(pipe.device), 2),
        }

    tasks[f"{batch} × {count} codes"] = medians(work, rounds)
    drawn = work["janus_kit"].last
    same.update({f"codes, {peer}": agreement(drawn, work[peer].last) for peer in peers})
    so_far(figures())
    if count == pipe.config.codes:  # transformers shows nothing before the end
        pipe.model_hash  # noqa: B018 - told on pictures, and read from the weights the first time
        first = {"janus_kit": lambda: ours.first_row(batch)}
        tasks[f"{batch} × preview of the first row"] = medians(first, rounds)
        painters = {"janus_kit": partial(ours.paint, drawn)}
        if peers:
            painters["transformers"] = partial(theirs.paint, drawn)
        tasks[f"{batch} × decoding"] = medians(painters, rounds)
        so_far(figures())
    if captions:
        question = [Message("user", CAPTION, images=1)]
        ids = chat_ids(pipe.tokenizer, pipe.template, question, pipe.config.vision.tokens)
        pixels = pipe.decode(torch.tensor(drawn), "pt").float().cpu() * 2 - 1  # those just drawn
        # A GPU captures steps for each span of the cache, and anew for a wider one.
        ours.answer(ids, pixels, max(tokens, LONG) if replays(pipe.model) else 2, end=False)
        theirs.answer(ids, pixels, 2, end=True)
        for length, end in ((tokens, True), (1, False), (LONG, False)):
            name = f"{batch} × {'caption' if end else 'answer'}, {length} tokens"
            given = {"tokens": length, "end": end}
            answers = {
                "janus_kit": Noted(ours.answer, ids, pixels, **given),
                "generate": Noted(theirs.answer, ids, pixels, **given),
            }
            tasks[name] = medians(answers, rounds)
            if end:  # without one, transformers takes the likeliest other token, and we the end
                same[name] = agreement(*(answer.last for answer in answers.values()))
            so_far(figures())
        short, long = (tasks[f"{batch} × answer, {n} tokens"] for n in (1, LONG))
        written = {
            name: round((LONG - 1) * batch / max(1e-9, long[name]["wall"] - short[name]["wall"]), 1)
            for name in long
        }
    if compiled:
        theirs.compile()
        theirs.draw(count, batch)
        again: dict[str, Callable[[], object]] = {"generate": lambda: theirs.draw(count, batch)}
        if not replays(pipe.model):  # whose graphs read what Inductor's captures have freed
            again = {"janus_kit": work["janus_kit"], **again}
        before = {"janus_kit": tasks[f"{batch} × {count} codes"]["janus_kit"]}
        tasks["static cache, compiled"] = before | medians(again, rounds)
    found["read"].append(read_speed(pipe.device))
    result = figures()
    so_far(result)
    if batch == 1 and (quantization is not None or pipe.dtype != torch.float32):
        plain = JanusPipeline.from_pretrained(place, device=device, dtype="float32", verify=False)
        result["logits' difference"] = difference(pipe, plain, drawn[:1])
    if load:
        kind = str(pipe.dtype).removeprefix("torch.")
        result["load"] = loads(str(pipe.folder), kind, quantization, pipe.device.type)
    return result


@torch.inference_mode()
def difference(
    pipe: JanusPipeline, plain: JanusPipeline, codes: list[list[int]]
) -> dict[str, float]:
    """How far the logits of codes after the prompt are from those of plain, which is in float32.

    relative: the norm of the difference over that of the logits less their mean; divergence: the
    mean Kullback-Leibler divergence in nats; likeliest: the share of places with the same one.
    """
    found = []
    for one in (plain, pipe):
        ids = drawing_ids(one.tokenizer, one.template, PROMPT)
        embeds = torch.cat(
            [
                one.model.language.embed(torch.tensor([ids], device=one.device)),
                one.code_table[torch.tensor(codes, device=one.device)[:, :-1]],
            ],
            1,
        )
        hidden = one.model.language(embeds)[0, len(ids) - 1 :]
        found.append(one.model.code_logits(hidden).float().cpu())
    true, other = (logits - logits.mean(1, keepdim=True) for logits in found)
    p, q = true.log_softmax(1), other.log_softmax(1)
    return {
        "relative": round(float((true - other).norm() / true.norm()), 5),
        "divergence": round(float((p.exp() * (p - q)).sum(1).mean()), 6),
        "likeliest": round(float((true.argmax(1) == other.argmax(1)).float().mean()), 4),
    }


def _module(package: str) -> str:
    return package.replace("-", "_")


def share_of_read(
    pipe: JanusPipeline,
    steps: Sequence[float],
    batch: int,
    count: int,
    reads: Sequence[float | None],
) -> float | None:
    """What steps of so many seconds read a second, over what was read before and after. None where
    a step reads less than a CPU's caches may hold."""
    size, speeds = step_bytes(pipe, batch, count), [speed for speed in reads if speed]
    if size < 0.5 or not speeds or not steps:
        return None
    return round(size / statistics.median(steps) / statistics.mean(speeds), 2)


def show(result: Mapping[str, Any]) -> str:
    """The result as lines for people."""
    lines = [
        f"{result['shape']} in {result['quantization'] or result['dtype']}, {result['device']}"
    ]
    lines.append(f"{'seconds, median':<34}{'wall':>9}{'cpu':>9}{'ratio':>8}{'cpu ratio':>11}")
    for task, contenders in result["seconds"].items():
        own = contenders["janus_kit"]
        lines.append(task)
        for name, seconds in contenders.items():
            ratios = [seconds[kind] / max(own[kind], 1e-9) for kind in ("wall", "cpu")]
            lines.append(
                f"  {name:<32}{seconds['wall']:>9.3f}{seconds['cpu']:>9.3f}"
                f"{ratios[0]:>8.2f}{ratios[1]:>11.2f}"
            )
    for what, found in result["agreement"].items():
        verdict = "equal" if found["equal"] else "NOT EQUAL"
        lines.append(f"{what + ':':<34}{verdict}, {found['same']} of {found['of']}")
        if not found["equal"]:
            lines[-1] += f" before they part, {found['share']:.1%} in all"
        if found["ours"] != found["of"]:
            lines[-1] += f", {found['ours']} written here: the times are of other work"
    if "logits' difference" in result:
        lines.append("logits' difference from float32: " + str(result["logits' difference"]))
    for name, figures in result.get("load", {}).items():
        lines.append(f"load, {name}: {figures['wall']} s, {figures['GB']} GB")
    for name, speed in result["tokens a second after the first"].items():
        lines.append(f"{name}: {speed} tokens a second after the first")
    if result["step, ms"] is not None:
        share = result["share of a memory read"]
        of = "" if share is None else f", {share:.0%} of a memory read"
        lines.append(f"a step: {result['step, ms']} ms{of}")
    lines.append(
        f"first call: {result['first call, s']} s; "
        f"peak memory: {result['peak memory of janus_kit, GB']} GB"
    )
    lines.append(f"memory read: {result['memory read, GB/s']} GB/s; load: {result['load average']}")
    return "\n".join(lines)


def write(result: Mapping[str, Any], path: Path) -> None:
    """The result as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
