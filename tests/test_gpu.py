"""What needs a CUDA device: every dtype draws and answers there, and draws what the CPU draws."""

from pathlib import Path

import pytest
import torch
from test_pipeline import picture

from janus_kit.pipeline import JanusPipeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
PROMPTS = ["a red cat", "two green dogs and 3 birds sit on a blue mat"]


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
