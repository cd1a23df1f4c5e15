"""The fixed-shape steps that a GPU replays, run here without capture, and what would break them."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_parts import picture
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from janus_kit import JanusPipeline, engine, graphs
from janus_kit.generation.sampling import SamplingOptions
from janus_kit.graphs import Steps, TextSteps
from janus_kit.model import Cache


@pytest.fixture
def pipe(hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> JanusPipeline:
    """A pipeline whose drawing goes by Steps, as on a GPU."""
    pipe = JanusPipeline.from_pretrained(hf_folder, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    monkeypatch.setattr("janus_kit.steps.available", lambda: False)
    return pipe


def by_steps(monkeypatch: pytest.MonkeyPatch) -> list[Steps]:
    """Lend steps on a CPU too; those that were lent."""
    lent: list[Steps] = []

    def lend(model: Any, *shape: Any) -> Steps:
        steps = Steps(model, *shape)
        assert steps.taken.acquire(blocking=False)
        lent.append(steps)
        return steps

    monkeypatch.setattr(engine, "lend", lend)
    return lent


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"guidance_scale": 1},
        {"top_k": 9, "top_p": 0.9},
        {"num_images_per_prompt": 3},
        {"batch_size": 1},
    ],
)
def test_steps_draw_what_the_plain_loop_draws(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    def draw() -> Tensor:
        return pipe(["a cat", "two green dogs"], seed=3, output_type="tokens", **options).codes

    expected = draw()
    lent = by_steps(monkeypatch)
    assert torch.equal(draw(), expected)
    assert lent
    assert not any(steps.taken.locked() for steps in lent)


def test_lent_steps_write_what_the_plain_loop_writes(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write() -> list[str]:
        images = [picture(0), picture(1)]
        return pipe.ask(images, "What is shown?", max_new_tokens=9, temperature=1, seed=3)

    expected = write()
    lent: list[TextSteps] = []

    def lend(model: Any, rows: int, slots: int) -> TextSteps:
        cache = Cache.empty(
            model.config.language, torch.zeros(rows, 0, dtype=torch.bool), slots + 70, model.dtype
        )
        steps = TextSteps(model, cache)
        steps.taken.acquire()
        lent.append(steps)
        return steps

    monkeypatch.setattr(engine, "lend_text", lend)
    assert write() == expected
    assert [steps.taken.locked() for steps in lent] == [False]
    pipe.ask(picture(0), "What is shown?", max_new_tokens=1)  # nothing is read after the first
    assert len(lent) == 1
    answer = pipe.chat([{"role": "user", "content": "Hello"}], stream=True, max_new_tokens=9)
    next(answer)
    assert lent[1].taken.locked()
    del answer
    gc.collect()
    assert not lent[1].taken.locked()


@pytest.mark.parametrize("given", [1, 3, 4, 7])
def test_steps_go_on_from_codes_that_were_given(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    def draw() -> Tensor:
        begun = torch.arange(given)
        return pipe("a cat", seed=3, output_type="tokens", initial_codes=begun).codes

    expected = draw()
    lent = by_steps(monkeypatch)
    assert torch.equal(draw(), expected)
    assert [steps.taken.locked() for steps in lent] == [False]


def test_steps_come_back_from_a_call_that_was_stopped_or_failed(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent = by_steps(monkeypatch)

    def fail(*row: Any) -> bool:
        raise RuntimeError("not this one")

    pipe("a cat", seed=3, callback_on_step_end=lambda *row: False)
    with pytest.raises(RuntimeError, match="not this one"):
        pipe("a cat", seed=3, callback_on_step_end=fail)
    assert [steps.taken.locked() for steps in lent] == [False, False]


class NoSync(TorchDispatchMode):
    """Fails where a tensor's value goes to Python: on a GPU, a wait for it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        back = ("_local_scalar_dense", "is_nonzero")
        assert not any(word in name for word in back), "a step reads a tensor back"
        assert "aten.nonzero" not in name, "a step has a shape that depends on data"
        return func(*args, **(kwargs or {}))


def steps_of(pipe: JanusPipeline) -> Steps:
    options = engine.SamplingOptions(top_k=5)
    with torch.inference_mode():
        return Steps(pipe.model, pipe.code_table, 2, 2, 40, options)


@torch.inference_mode()
def test_a_step_never_waits_for_the_device(pipe: JanusPipeline) -> None:
    steps = steps_of(pipe)
    with NoSync():
        steps.step(pipe.model, graphs.BUCKET)
    steps.take(steps.cache, 3)
    with NoSync():  # a whole row, too
        steps.draw(pipe.model, None, None, torch.rand(2, pipe.config.side).double())
    texts = TextSteps(pipe.model, steps.cache)
    with NoSync():
        texts(pipe.model, texts.embeds.clone(), 3)
    with pytest.raises(AssertionError, match="reads a tensor back"), NoSync():
        bool(steps.finite)


@torch.inference_mode()
@pytest.mark.parametrize("kind", [Steps, TextSteps])
def test_steps_are_one_graph_that_is_compiled_once(pipe: JanusPipeline, kind: Any) -> None:
    torch._dynamo.reset()
    calls = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append(len(graph.graph.nodes))
        return graph

    steps = steps_of(pipe)
    step = steps.step if kind is Steps else TextSteps(pipe.model, steps.cache).step
    run = torch.compile(step, backend=backend, fullgraph=True, dynamic=False)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(4):
            run(pipe.model, graphs.BUCKET)
    assert len(calls) == 1


@torch.inference_mode()
@pytest.mark.parametrize("kind", [Steps, TextSteps])
def test_one_layer_is_compiled_for_all(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    torch._dynamo.reset()
    made = []

    def backend(graph: Any, inputs: Any) -> Any:
        made.append(graph)
        return graph

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **how: compile(f, backend=backend, **how))
    assert pipe.config.language.layers > 1

    def run() -> list[Tensor]:
        steps = Steps(pipe.model, pipe.code_table, 2, 2, 2 * graphs.BUCKET, SamplingOptions())
        steps.noise.fill_(0.5)
        one = steps if kind is Steps else TextSteps(pipe.model, steps.cache)
        if isinstance(one, TextSteps):
            one.embeds.fill_(0.1)
        for span in (graphs.BUCKET, 2 * graphs.BUCKET):
            one.step(pipe.model, span)
        return [steps.codes] if one is steps else [one.logits]

    plain = run()
    assert not made
    pipe.model.compiled = True
    assert torch.equal(*plain, *run())
    # A layer for each span, of which a picture has five; and what follows the layers once.
    assert len(made) == 2 + 1
    run()
    assert len(made) == 2 + 1
    torch._dynamo.reset()


@torch.inference_mode()
def test_more_shapes_are_compiled_than_torch_allows_unasked(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **how: compile(f, backend="eager", **how))
    pipe.model.compiled = True
    options = engine.SamplingOptions()
    for pictures in (1, 2, 3):
        steps = Steps(pipe.model, pipe.code_table, pictures, 2, 400, options)
        for filled in (1, 129, 257, 385):
            steps.place.zero_()
            steps.graphs(steps, pipe.model, filled)
    torch._dynamo.reset()


def test_what_is_lent_is_kept_for_a_gpu_alone(pipe: JanusPipeline) -> None:
    options = engine.SamplingOptions()
    assert graphs.lend(pipe.model, pipe.code_table, 1, 2, 40, options) is None
    assert graphs.lend_text(pipe.model, 1, 40) is None


def test_steps_of_text_are_kept_while_they_are_wide_enough(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "replays", lambda model: True)
    steps = graphs.lend_text(pipe.model, 2, 40)
    assert steps is not None
    assert steps.cache.slots == graphs.BUCKET
    assert graphs.lend_text(pipe.model, 2, 40) is None  # another thread has them
    steps.taken.release()
    for rows, slots, same in ((2, graphs.BUCKET, True), (1, 40, False), (1, 200, False)):
        other = graphs.lend_text(pipe.model, rows, slots)
        assert other is not None
        assert (other is steps) == same
        other.taken.release()
        steps = other


def test_what_is_lent_goes_with_its_model_and_is_clean(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "replays", lambda model: True)
    model = JanusPipeline.from_pretrained(hf_folder, device="cpu").model
    steps = graphs.lend_text(model, 2, 40)
    assert steps is not None
    other = Cache.empty(
        model.config.language, torch.zeros(2, 0, dtype=torch.bool), 9, torch.float32
    )
    steps.cache.values.fill_(float("nan"))
    steps.take(other, 5)
    assert bool(steps.cache.values.isfinite().all())
    steps.taken.release()
    gone = weakref.ref(model), weakref.ref(steps)
    del model, steps
    assert [ref() for ref in gone] == [None, None]


def test_what_is_lent_is_forgotten_when_the_weights_move(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "replays", lambda model: True)
    pipe = JanusPipeline.from_pretrained(hf_folder, device="cpu")
    lent = (
        graphs.lend_text(pipe.model, 2, 40),
        graphs.lend(pipe.model, pipe.code_table, 1, 2, 40, engine.SamplingOptions()),
    )
    gone = [weakref.ref(steps) for steps in lent]
    del lent
    pipe.to(torch.bfloat16)
    assert [ref() for ref in gone] == [None, None]


def test_a_stream_has_one_owner_and_goes_to_the_next_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Owner:
        pass

    made: list[object] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or object())
    monkeypatch.setattr(graphs, "_streams", {})
    device, other = torch.device("cuda:0"), torch.device("cuda:1")
    first, second = Owner(), Owner()
    streams = [graphs.own_stream(owner, device) for owner in (first, second)]
    assert streams[0] is not streams[1]
    graphs.own_stream(second, other)
    assert made == [device, device, other]
    del first
    gc.collect()
    assert graphs.own_stream(Owner(), device) is streams[0]
    assert len(made) == 3


@pytest.mark.slow
def test_memory_does_not_grow_over_fifty_pictures() -> None:
    """With the embedded model, natively where that was built."""
    pipe = JanusPipeline.from_pretrained(device="cpu")
    pipe.set_progress_bar_config(disable=True)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc on this system")
    for seed in range(5):
        pipe("a red apple", seed=seed)
    before = resident()
    for seed in range(50):
        pipe("a red apple", seed=seed)
    assert resident() - before < 30e6
