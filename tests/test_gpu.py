"""What needs a CUDA device: every dtype draws and answers there, and draws what the CPU draws."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from pipeline_parts import picture

from janus_kit import checkpoint, drawing, engine, writing
from janus_kit.batch.captions import caption_stream
from janus_kit.cache import cache_home
from janus_kit.drawing import drawing_rows
from janus_kit.generation.sampling import SamplingOptions
from janus_kit.model import Janus
from janus_kit.pipeline import JanusPipeline
from janus_kit.variants import PACKED, is_quantized

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),  # torch has some to give of its own debugging
]
PROMPTS = ["a red cat", "two green dogs and 3 birds sit on a blue mat"]


@pytest.fixture(params=[False, True], ids=["eager", "compiled"])
def captured_pipe(hf_folder: Path, request: pytest.FixtureRequest) -> JanusPipeline:
    """A pipeline whose steps are captured, as they are or after torch.compile."""
    return JanusPipeline.from_pretrained(
        hf_folder, device="cuda", dtype="float32", compile=request.param
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_dtype_draws_and_answers_on_a_gpu(hf_folder: Path, dtype: str) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder, device="cuda", dtype=dtype)
    out = pipe(PROMPTS, seed=1, output_type="pt")
    assert bool(out.images.isfinite().all())
    assert len(pipe.ask([picture(1), picture(2)], "what colour?", max_new_tokens=4)) == 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_gpu_draws_what_the_cpu_draws(hf_folder: Path, temperature: float) -> None:
    drawn = [
        JanusPipeline.from_pretrained(hf_folder, device=device, dtype="float32")(
            PROMPTS, seed=1, temperature=temperature, output_type="tokens"
        ).codes.cpu()
        for device in ("cpu", "cuda")
    ]
    assert torch.equal(*drawn)


def test_a_steady_picture_never_waits_for_the_device_within_a_row(hf_folder: Path) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder, device="cuda", dtype="float32")
    pipe("a cat", seed=1, output_type="tokens")  # captures
    with torch.inference_mode():
        ((row, other),) = drawing_rows(pipe, ["a cat"], [""], 1)
        drawer = engine.CodeDrawer(pipe.model, pipe.code_table, pipe.tokenizer.pad, [row], [other])
        logits = drawer.start()
        noise = torch.zeros(1, pipe.config.side, dtype=torch.float64, device="cuda")
        options = SamplingOptions()
        codes, _ = drawer.draw(logits, None, noise, options)
        try:
            torch.cuda.set_sync_debug_mode("error")
            drawer.draw(None, codes[:, -1].contiguous(), noise, options)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            drawer.close()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_another_gpu_than_the_first_draws_and_answers_the_same(hf_folder: Path) -> None:
    found = []
    for device in ("cuda:0", "cuda:1"):
        pipe = JanusPipeline.from_pretrained(hf_folder, device=device, dtype="float32")
        codes = pipe(PROMPTS * 2, seed=1, batch_size=2, output_type="tokens").codes.cpu()
        found.append((codes, pipe.ask([picture(1), picture(2)], "what?", max_new_tokens=6)))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_a_pipeline_that_was_moved_draws_the_same(hf_folder: Path) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder, device="cuda", dtype="float32")

    def work() -> tuple[torch.Tensor, str]:
        codes = pipe(PROMPTS, seed=1, output_type="tokens").codes.cpu()
        return codes, pipe.ask(picture(1), "what colour?", max_new_tokens=6)

    before = work()
    pipe.to("cpu")
    kept = [torch.zeros(1_000_000, device="cuda") for _ in range(20)]  # in the place of the weights
    after = (pipe.to("cuda"), work())[1]
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]
    assert len(kept) == 20


@pytest.mark.parametrize("given", [3, 4, 7])
def test_captured_steps_go_on_from_codes_that_were_given(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder, device="cuda", dtype="float32")

    def draw() -> torch.Tensor:
        begun = torch.arange(given)
        return pipe("a cat", seed=3, output_type="tokens", initial_codes=begun).codes

    captured = draw()
    monkeypatch.setattr(engine, "lend", lambda *shape: None)
    assert torch.equal(draw(), captured)


def test_memory_does_not_grow_over_fifty_pictures(hf_folder: Path) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder, device="cuda", dtype="float32")
    held = []
    for seed in range(55):
        pipe("a cat", seed=seed)
        held.append(torch.cuda.memory_allocated())
    assert max(held[5:]) <= held[4]


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_who_only_draws_keeps_embeds_of_text_in_memory(
    hf_folder: Path, quantization: str | None
) -> None:
    if quantization:
        pytest.importorskip("torchao")
    drawn = []
    for components in ("all", "draw"):
        pipe = JanusPipeline.from_pretrained(
            hf_folder,
            device="cuda",
            dtype="bfloat16",
            components=components,
            quantization=quantization,
        )
        drawn.append(pipe(PROMPTS, seed=1, output_type="tokens").codes.cpu())
    assert torch.equal(*drawn)
    assert pipe.model.language.embed.weight.device.type == "cpu"
    assert pipe.device.type == "cuda"


@pytest.fixture
def wide_folder(tmp_path: Path, tokenizer_folder: Path) -> Path:
    """A tiny model whose rows are of 128 and more numbers, which int4 wants."""
    config = tiny_config()
    language = replace(config.language, hidden=128, head_dim=32, intermediate=256)
    torch.manual_seed(0)
    model = Janus(replace(config, language=language))
    checkpoint.save(model, tmp_path / "wide", tokenizer_folder=tokenizer_folder)
    return tmp_path / "wide"


@pytest.mark.parametrize("quantization", ["int8", "int4", "fp8"])
def test_quantized_models_draw_on_a_gpu_what_they_draw_once_kept(
    wide_folder: Path, quantization: str
) -> None:
    pytest.importorskip("torchao")
    found = []
    for _ in range(2):  # made, and read from the cache
        pipe = JanusPipeline.from_pretrained(
            wide_folder, device="cuda", dtype="bfloat16", quantization=quantization
        )
        weights = dict(pipe.model.named_parameters())
        assert {n for n in weights if is_quantized(weights[n])} == {
            n for n in weights if PACKED.fullmatch(n)
        }
        assert all(weight.device.type == "cuda" for weight in weights.values())
        codes = pipe(PROMPTS, seed=1, output_type="tokens").codes.cpu()
        found.append((codes, pipe.ask([picture(1)], "what colour?", max_new_tokens=4)))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert len(list((cache_home() / "quantized").glob("*.pt"))) == 1


def test_captured_steps_draw_what_eager_ones_draw(
    captured_pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = captured_pipe
    captured = [pipe(PROMPTS, seed=s, output_type="tokens").codes for s in (1, 2)]
    monkeypatch.setattr(engine, "lend", lambda *shape: None)
    eager = [pipe(PROMPTS, seed=s, output_type="tokens").codes for s in (1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(captured, eager, strict=True))


def test_captured_steps_write_what_eager_ones_write(
    captured_pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = captured_pipe
    images = [picture(i) for i in range(11)]

    def write() -> tuple[list[str], list[str | None]]:
        stream = caption_stream(pipe, images, "what colour?", batch_size=2, max_new_tokens=12)
        return (
            pipe.ask(images, "what colour?", max_new_tokens=12),
            [found.text for found in stream],
        )

    captured = [write(), write()]
    monkeypatch.setattr(engine, "lend_text", lambda *shape: None)
    monkeypatch.setattr(writing, "replays", lambda model: False)
    assert captured == [write()] * 2


def test_batches_are_decoded_beside_the_drawing_of_the_next_as_they_are_after_it(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder, device="cuda", dtype="float32")
    beside = [pipe(PROMPTS * 3, seed=s, batch_size=2, output_type="pt") for s in (1, 2)]
    monkeypatch.setattr(drawing, "replays", lambda model: False)
    after = [pipe(PROMPTS * 3, seed=s, batch_size=2, output_type="pt") for s in (1, 2)]
    for a, b in zip(beside, after, strict=True):
        assert torch.equal(a.codes, b.codes)
        assert (a.images - b.images).abs().max() < 1e-5
