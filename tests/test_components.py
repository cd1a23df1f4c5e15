"""Models of which a part is loaded: to draw alone, or to understand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_parts import picture

from janus_kit import JanusPipeline, OptionError, checkpoint, loading, variants
from janus_kit.generation.native import available
from janus_kit.variants import HostEmbedding, Variant

needs_native = pytest.mark.skipif(not available(), reason="the native step was not built")
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("quantization", [None, pytest.param("int8", marks=needs_native)])
def test_parts_do_what_the_whole_does_and_refuse_the_rest(
    hf_folder: Path, quantization: str | None
) -> None:
    def load(components: str) -> JanusPipeline:
        pipe = JanusPipeline.from_pretrained(
            hf_folder, device="cpu", components=components, quantization=quantization
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    whole, draws, understands = load("all"), load("draw"), load("understand")
    count = {p: sum(w.numel() for w in p.model.parameters()) for p in (whole, draws, understands)}
    assert count[draws] < count[whole]
    assert count[understands] < count[whole]
    assert torch.equal(draws("a cat", seed=1).codes, whole("a cat", seed=1).codes)
    assert understands.ask(picture(1), "What?") == whole.ask(picture(1), "What?")
    for refuse in (lambda: draws.ask(picture(1), "What?"), lambda: understands("a cat")):
        with pytest.raises(OptionError, match="components="):
            refuse()


def test_embeds_of_text_may_stay_in_memory_and_draw_the_same(hf_folder: Path) -> None:
    variant = Variant(components="draw", host=True)
    pipes = [JanusPipeline.from_pretrained(hf_folder, device="cpu") for _ in range(2)]
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
    pipes[1].model = checkpoint.load(hf_folder, device=CPU, variant=variant)[0].eval()
    pipes[1].model.requires_grad_(False)
    model = pipes[1].model
    assert isinstance(model.language.embed, HostEmbedding)
    drawn = [pipe(["a cat", "two dogs"], seed=1).codes for pipe in pipes]
    assert torch.equal(*drawn)
    model.to(torch.bfloat16).to("meta")  # as to a GPU
    assert model.device.type == "meta"
    assert model.language.embed.weight.device == CPU
    assert model.language.embed.weight.dtype == model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("device", "options", "host"),
    [
        ("cuda", {"components": "draw"}, True),
        ("cuda", {"components": "draw", "quantization": "int8"}, True),
        ("cuda", {"components": "draw", "offload": "cpu"}, False),
        ("cuda", {}, False),
        ("cpu", {"components": "draw"}, False),
    ],
)
def test_embeds_of_text_stay_in_memory_beside_a_gpu_that_only_draws(
    hf_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    options: dict[str, str],
    host: bool,
) -> None:
    found: list[Variant] = []

    def load(*given: object, variant: Variant, **named: object) -> Any:
        found.append(variant)
        return checkpoint_load(hf_folder, device=CPU, variant=replace(variant, mapped=False))

    checkpoint_load = checkpoint.load
    monkeypatch.setattr(checkpoint, "load", load)
    monkeypatch.setattr(Variant, "check", lambda *given: None)
    monkeypatch.setattr(variants, "version", lambda package: "0")  # torchao's
    monkeypatch.setattr(variants, "quantize_to", lambda *given: {})
    monkeypatch.setattr(variants, "offload", lambda *given: None)
    loading.open_model(hf_folder, torch.device(device), None, True, Variant(**options))
    assert [variant.host for variant in found] == [host]


def test_what_is_not_whole_is_not_saved(hf_folder: Path, tmp_path: Path) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder, device="cpu", components="draw")
    with pytest.raises(OptionError, match="only a whole model"):
        pipe.save_pretrained(tmp_path / "new")
