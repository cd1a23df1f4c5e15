"""The native step against the PyTorch one that it stands in for."""

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_config
from torch import Tensor

from janus_kit import JanusPipeline, steps
from janus_kit.generation import native
from janus_kit.generation.native import NativeStep, available, library
from janus_kit.generation.native import step as native_steps
from janus_kit.generation.native.step import _Threads
from janus_kit.model import Cache, Janus
from janus_kit.steps import native_step

pytestmark = pytest.mark.skipif(not available(), reason="the native step was not built")


def random_janus(half: bool = False, **changes: Any) -> Janus:
    """Random weights, none 0 or 1; half: such that bfloat16 holds them."""
    torch.manual_seed(0)
    config = tiny_config()
    config = tiny_config(language=dataclasses.replace(config.language, **changes))
    janus = Janus(config).eval()
    with torch.no_grad():
        for parameter in janus.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + 0.05)
            if half:
                parameter.copy_(parameter.bfloat16().float())
    return janus


@torch.inference_mode()
def caches(janus: Janus, mask: Tensor, slots: int) -> list[Cache]:
    """Two equal caches, filled from equal rows."""
    b, t = mask.shape
    embeds = torch.randn(b, t, janus.config.language.hidden)
    cache = Cache.empty(janus.config.language, mask, slots, torch.float32)
    janus.language(embeds, mask, cache)
    return [cache.pick(torch.arange(b)), cache]


def run(janus: Janus, step: NativeStep, embeds: Tensor, cache: Cache, threads: int) -> Tensor:
    """Native logits of embeds [b, n, d], read one by one from the first free slot on."""
    start = int((cache.bias[0, 0, 0] == 0).nonzero().max()) + 1
    stores = (cache.keys, cache.values, cache.angles, cache.padding)
    found = [
        step(embeds[:, i], *stores, start + i, threads).clone() for i in range(embeds.shape[1])
    ]
    return torch.stack(found, 1)


@torch.inference_mode()
def plain(
    janus: Janus, head: Callable[[Tensor], Tensor], embeds: Tensor, cache: Cache, start: int
) -> Tensor:
    found = []
    for i in range(embeds.shape[1]):
        position = torch.tensor([start + i])
        found.append(head(janus.language.step(embeds[:, i], cache, position, start + i + 1)))
    return torch.stack(found, 1)


SHAPES: dict[str, dict[str, Any]] = {
    "shared heads": {},
    "a head each": {"kv_heads": 4},
    "odd sizes": {"hidden": 30, "head_dim": 6, "intermediate": 37},
    "many layers": {"layers": 5, "rms_eps": 1e-6},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["code", "text"])
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_native_step_equals_the_plain_one(
    shape: str, kind: Any, half: bool, threads: int
) -> None:
    janus = random_janus(half, **SHAPES[shape])
    head = janus.code_logits if kind == "code" else janus.text_head
    step = native_step(janus, kind)
    assert step is not None
    assert step.kind == half
    for b in (1, 2, 5):
        mask = torch.ones(b, 7, dtype=torch.bool)
        mask[-1, :3] = b == 1
        ours, theirs = caches(janus, mask, 16)
        embeds = torch.randn(b, 6, janus.config.language.hidden)
        found = run(janus, step, embeds, ours, threads)
        expected = plain(janus, head, embeds, theirs, 7)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
        torch.testing.assert_close(
            ours.keys[..., :13, :], theirs.keys[..., :13, :], atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(
            ours.values[..., :13, :], theirs.values[..., :13, :], atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(
    ("b", "heads", "kv_heads", "t", "size"),
    [(1, 4, 4, 640, 64), (2, 4, 2, 37, 8), (3, 3, 1, 5, 6), (1, 2, 2, 2, 40), (1, 1, 1, 33, 128)],
)
@torch.inference_mode()
def test_native_attention_equals_the_plain_one(
    b: int, heads: int, kv_heads: int, t: int, size: int
) -> None:
    torch.manual_seed(0)
    q = torch.randn(b, t, heads, size).transpose(1, 2)
    k, v = (torch.randn(b, kv_heads, t, size) for _ in range(2))
    assert native.attends(q, k, v)
    found = native.attend(q, k, v, 1)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=heads != kv_heads
    )
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    for threads in (2, 3):
        assert torch.equal(native.attend(q, k, v, threads), found)
    for row in range(b):
        alone = native.attend(*(x[row : row + 1] for x in (q, k, v)), 1)
        assert torch.equal(alone[0], found[row])
    large = native.attend(30 * q, 30 * k, v, 1)  # no exponent overflows
    assert large.isfinite().all()


def test_attention_with_gradients_other_dtypes_or_a_cache_is_left_to_torch() -> None:
    q = torch.randn(1, 2, 5, 8)
    assert not native.attends(q, q, q)
    with torch.no_grad():
        assert native.attends(q, q, q)
        assert not native.attends(*[q.bfloat16()] * 3)
        assert not native.attends(q[:, :, 3:], q, q)
        assert not native.attends(*[q.transpose(2, 3)] * 3)


def test_a_row_is_the_same_to_the_bit_alone_in_a_batch_and_with_more_threads() -> None:
    janus = random_janus()
    step = native_step(janus, "code")
    assert step is not None
    mask = torch.ones(5, 7, dtype=torch.bool)
    cache, spare = caches(janus, mask, 16)
    embeds = torch.randn(5, 6, 32)
    together = run(janus, step, embeds, cache, 1)
    for row in range(5):
        alone = spare.pick(torch.tensor([row]))
        assert torch.equal(run(janus, step, embeds[row : row + 1], alone, 1)[0], together[row])
    assert torch.equal(run(janus, step, embeds, spare, 2), together)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_rows_of_a_large_batch_and_wide_matrices_are_those_of_small_ones(
    dtype: torch.dtype,
) -> None:
    janus = random_janus(True, hidden=1100, intermediate=2090, layers=1).to(dtype)
    step = native_step(janus, "code")
    assert step is not None
    for b in (3, 6, 8, 70):  # 70: more than a block has
        mask = torch.ones(b, 9, dtype=torch.bool)
        mask[-1, :4] = False
        filled = torch.randn(b, 9, 1100, dtype=dtype)
        cache = Cache.empty(janus.config.language, mask, 24, dtype)
        janus.language(filled, mask, cache)
        spare = cache.pick(torch.arange(b))
        plainly = cache.pick(torch.arange(b))
        embeds = torch.randn(b, 3, 1100, dtype=dtype)
        together = run(janus, step, embeds, cache, 2)
        for row in (0, b // 2, b - 1):
            alone = spare.pick(torch.tensor([row]))
            assert torch.equal(run(janus, step, embeds[row : row + 1], alone, 1)[0], together[row])
        expected = plain(janus, janus.code_logits, embeds, plainly, 9).float()
        error = (together - expected).norm() / expected.norm()
        assert error < (1e-5 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("simd", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("half", [True, False])
@torch.inference_mode()
def test_every_kind_of_cpu_gets_the_same_from_its_own_instructions(
    simd: int, dtype: torch.dtype, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if simd > native.level() % 4:
        pytest.skip("this CPU has no such instructions")
    monkeypatch.setattr(native_steps, "level", lambda: simd)
    for changes in ({}, {"hidden": 30, "head_dim": 6, "intermediate": 37}):
        janus = random_janus(half, **changes).to(dtype)
        step = native_step(janus, "code")
        assert step is not None
        assert step._shape.level == simd
        mask = torch.ones(2, 7, dtype=torch.bool)
        hidden = janus.config.language.hidden
        cache = Cache.empty(janus.config.language, mask, 16, dtype)
        janus.language(torch.randn(2, 7, hidden, dtype=dtype), mask, cache)
        spare = cache.pick(torch.arange(2))
        embeds = torch.randn(2, 6, hidden, dtype=dtype)
        found = run(janus, step, embeds, cache, 2).float()
        expected = plain(janus, janus.code_logits, embeds, spare, 7).float()
        error = (found - expected).norm() / expected.norm()
        assert error < (1e-5 if dtype == torch.float32 else 2e-2)


def test_weights_that_change_are_noticed() -> None:
    janus = random_janus()
    first = native_step(janus, "code")
    assert native_step(janus, "code") is first
    assert native_step(janus, "text") is not first
    with torch.no_grad():
        janus.code_head.fc2.bias.add_(1.0)
    second = native_step(janus, "code")
    assert second is not first
    assert second is native_step(janus, "code")


def test_other_dtypes_and_machines_without_it_take_the_plain_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert native_step(random_janus().half(), "code") is None
    monkeypatch.setattr(steps, "available", lambda: False)
    assert native_step(random_janus(), "code") is None


def test_a_library_that_cannot_be_loaded_is_told_of_and_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "_step.so"
    broken.write_bytes(b"no library")

    class Found:
        origin = str(broken)

    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: Found)
    library.library.cache_clear()
    try:
        assert not available()
        assert "cannot be loaded" in caplog.text
    finally:
        library.library.cache_clear()


def test_pictures_and_answers_are_those_of_the_plain_step(
    hf_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder)
    pipe.set_progress_bar_config(disable=True)

    def work() -> tuple[Tensor, str]:
        codes = pipe(["a cat", "two dogs"], seed=3, num_images_per_prompt=2, output_type="tokens")
        return codes.codes, pipe.ask(torch.zeros(64, 64, 3).byte().numpy(), "What?", seed=1)

    fast = work()
    monkeypatch.setattr(steps, "available", lambda: False)
    slow = work()
    assert torch.equal(fast[0], slow[0])
    assert fast[1] == slow[1]


def test_threads_share_a_step() -> None:
    janus = random_janus()
    step = native_step(janus, "code")
    assert step is not None
    cache, spare = caches(janus, torch.ones(2, 7, dtype=torch.bool), 40)
    embeds = torch.randn(2, 30, 32)
    expected = run(janus, step, embeds, cache, 1)
    copies = [spare.pick(torch.arange(2)) for _ in range(4)]
    found: dict[int, Tensor] = {}

    def work(number: int) -> None:
        found[number] = run(janus, step, embeds, copies[number], 1)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(found[number], expected) for number in range(4))


def test_fewer_threads_than_before_are_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    janus = random_janus()
    step = native_step(janus, "code")
    assert step is not None
    cache, _ = caches(janus, torch.ones(2, 7, dtype=torch.bool), 40)
    stores = (cache.keys, cache.values, cache.angles, cache.padding)
    ran: list[int] = []
    call = _Threads.call
    monkeypatch.setattr(
        _Threads,
        "call",
        lambda self, run, steps=1: call(self, lambda n: (ran.append(n), run(n))[1], steps),
    )
    for position, threads in enumerate((3, 1, 2), 7):
        monkeypatch.setattr(native_steps.torch, "get_num_threads", lambda n=threads: n)
        step(torch.randn(2, 32), *stores, position)
    assert ran == [3, 1, 2]  # room is made for no more


@pytest.mark.parametrize("begun", [False, True])
def test_another_number_of_threads_is_tried_for_a_part_of_a_row(
    monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    monkeypatch.setattr(native_steps.torch, "get_num_threads", lambda: 2)
    janus = random_janus()
    step = native_step(janus, "code")
    assert step is not None
    cache, spare = caches(janus, torch.ones(4, 7, dtype=torch.bool), 200)
    noise, table = torch.rand(2, 12, dtype=torch.float64), torch.randn(64, 32)
    first = torch.randn(4, 64)
    given: dict[str, Any] = {"guided": True, "guidance": 2.0, "temperature": 1.0}
    logits, before = (None, torch.tensor([3, 5])) if begun else (first, None)
    calls: list[tuple[int, int]] = []

    def draw(cache: Cache, threads: int | None) -> Tensor:
        stores = (table, cache.keys, cache.values, cache.angles, cache.padding)
        return step.draw(logits, before, noise, *stores, 7, threads=threads, **given)[0]

    def noted(self: _Threads, run: Callable[[int], None], steps: int = 1) -> None:
        run(self.other if self.due else self.now)
        calls.append((self.other if self.due else self.now, steps))
        self.steps += steps
        if calls[-1][0] == self.other:
            self.trial = 10**9

    monkeypatch.setattr(_Threads, "call", noted)
    found = [draw(spare.pick(torch.arange(4)), None) for _ in range(3)]
    expected = draw(cache, 1)
    assert all(torch.equal(codes, expected) for codes in found)
    assert calls == [(2, 12), (1, 2), (2, 10), (2, 12)]


def test_the_number_of_threads_is_the_one_that_was_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, busy = [0.0], [False]
    monkeypatch.setattr(native_steps.time, "perf_counter", lambda: clock[0])
    calls: list[int] = []

    def step(threads: int) -> None:
        calls.append(threads)
        clock[0] += (100.0 if busy[0] else 0.6) if threads == 2 else 1.0

    chosen = _Threads(2)
    for _ in range(100):
        chosen.call(step)
    assert calls.count(1) < 10
    busy[0] = True
    calls.clear()
    for _ in range(4000):
        chosen.call(step)
    assert calls[2000:].count(2) < 20
    busy[0] = False
    calls.clear()
    for _ in range(4000):
        chosen.call(step)
    assert calls[2000:].count(2) > 1900


def test_a_step_does_all_of_its_work_with_fewer_threads_than_it_asked_for() -> None:
    script = (
        "import sys, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_native import caches, random_janus, run\n"
        "from janus_kit.steps import native_step\n"
        "janus = random_janus()\n"
        "step = native_step(janus, 'code')\n"
        "cache, spare = caches(janus, torch.ones(2, 7, dtype=torch.bool), 40)\n"
        "embeds = torch.randn(2, 3, 32)\n"
        "found = [run(janus, step, embeds, c, n) for c, n in ((cache, 1), (spare, 3))]\n"
        "assert torch.equal(*found)\n"
    )
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)
