"""JanusPipeline on the tiny model: a picture is its seed's, whatever is beside it."""

import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from pipeline_parts import CAT, OTHERS, QUESTION, codes, picture, refused
from torch import Tensor

from janus_kit.checkpoint import convert
from janus_kit.errors import CheckpointError, DeviceError
from janus_kit.generation.sampling import SamplingOptions
from janus_kit.pipeline import JanusPipeline

# A picture is its seed's


def test_a_picture_is_the_same_alone_and_in_a_batch_of_eight(pipe: JanusPipeline) -> None:
    together = codes(pipe, seed=40, num_images_per_prompt=8, batch_size=8)
    assert len(together.unique(dim=0)) == 8
    for i in range(8):
        assert torch.equal(codes(pipe, seed=40 + i)[0], together[i])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 100])
def test_the_batch_size_changes_no_picture(pipe: JanusPipeline, size: int) -> None:
    expected = codes(pipe, seed=40, num_images_per_prompt=7)
    assert torch.equal(codes(pipe, seed=40, num_images_per_prompt=7, batch_size=size), expected)


def test_prompts_of_other_lengths_beside_it_change_no_picture(pipe: JanusPipeline) -> None:
    for place in range(len(OTHERS) + 1):
        prompts = [*OTHERS[:place], CAT, *OTHERS[place:]]
        found = codes(pipe, prompts, seed=60 - place)[place]
        assert torch.equal(found, codes(pipe, seed=60)[0])


def test_the_order_of_the_prompts_changes_no_picture(pipe: JanusPipeline) -> None:
    seeds = [3, 1, 4, 1]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        sources = [torch.Generator().manual_seed(seeds[i]) for i in order]
        found = codes(pipe, [OTHERS[i] for i in order], generator=sources)
        for place, i in enumerate(order):
            assert torch.equal(found[place], codes(pipe, OTHERS[i], seed=seeds[i])[0])


def test_two_threads_at_once_draw_and_answer_as_one_does(pipe: JanusPipeline) -> None:
    start = Barrier(2)

    def work(first: int) -> tuple[list[Tensor], list[str]]:
        start.wait(timeout=30)
        drawn = [codes(pipe, seed=first + i, num_images_per_prompt=2) for i in range(5)]
        said = [
            pipe.ask(picture(first + i), QUESTION, max_new_tokens=5, temperature=1, seed=first)
            for i in range(5)
        ]
        return drawn, said

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(work, [100, 200]))
    start = Barrier(1)
    for first, (drawn, said) in zip([100, 200], together, strict=True):
        alone_drawn, alone_said = work(first)
        assert said == alone_said
        assert all(torch.equal(a, b) for a, b in zip(drawn, alone_drawn, strict=True))


def test_seeds_are_counted_over_all_prompts(pipe: JanusPipeline) -> None:
    out = pipe([CAT, "mat"], seed=5, num_images_per_prompt=2, output_type="tokens")
    assert out.seeds == [5, 6, 7, 8]
    assert [s.seed for s in out.settings] == out.seeds
    assert [s.prompt for s in out.settings] == [CAT, CAT, "mat", "mat"]
    assert torch.equal(out.codes[1], codes(pipe, seed=6)[0])
    assert torch.equal(out.codes[2], codes(pipe, "mat", seed=7)[0])


def test_without_a_seed_pictures_differ_and_tell_theirs(pipe: JanusPipeline) -> None:
    first, second = (pipe(CAT, output_type="tokens") for _ in range(2))
    assert first.seeds != second.seeds
    assert torch.equal(codes(pipe, seed=first.seeds[0]), first.codes)


def test_the_largest_seed_draws(pipe: JanusPipeline) -> None:
    out = pipe(CAT, seed=2**63 - 2, num_images_per_prompt=2, output_type="tokens")
    assert out.seeds == [2**63 - 2, 2**63 - 1]


def test_generators_draw_what_their_seeds_draw(pipe: JanusPipeline) -> None:
    sources = [torch.Generator().manual_seed(seed) for seed in (8, 3)]
    found = pipe(CAT, num_images_per_prompt=2, generator=sources, output_type="tokens")
    assert found.seeds == [8, 3]
    assert torch.equal(found.codes[0], codes(pipe, seed=8)[0])
    assert torch.equal(found.codes[1], codes(pipe, seed=3)[0])


def test_one_generator_goes_on_from_picture_to_picture(pipe: JanusPipeline) -> None:
    def source() -> torch.Generator:
        return torch.Generator().manual_seed(8)

    out = pipe(CAT, num_images_per_prompt=2, generator=source(), output_type="tokens")
    together = out.codes
    assert out.seeds[0] == 8 != out.seeds[1]
    for seed, row in zip(out.seeds, together, strict=True):
        assert torch.equal(codes(pipe, seed=seed)[0], row)
    one = source()
    assert torch.equal(codes(pipe, generator=one), together[:1])
    assert torch.equal(codes(pipe, generator=one), together[1:])
    assert not torch.equal(together[0], together[1])


def test_no_global_random_state_is_used_or_changed(pipe: JanusPipeline) -> None:
    def states() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())

    before = states()
    codes(pipe, num_images_per_prompt=2)
    pipe.ask(picture(1), QUESTION, max_new_tokens=3, temperature=1)
    assert states() == before


def test_a_model_saved_and_loaded_again_draws_the_same(pipe: JanusPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "saved")
    again = JanusPipeline.from_pretrained(tmp_path / "saved", device="cpu")
    assert torch.equal(codes(again, [CAT, *OTHERS], seed=1), codes(pipe, [CAT, *OTHERS], seed=1))
    assert again.ask(picture(1), QUESTION, max_new_tokens=5) == pipe.ask(
        picture(1), QUESTION, max_new_tokens=5
    )


# Guidance


def test_a_negative_prompt_changes_the_picture(pipe: JanusPipeline) -> None:
    plain = codes(pipe, seed=1)
    assert not torch.equal(codes(pipe, seed=1, negative_prompt="a green dog"), plain)
    assert pipe(CAT, seed=1, negative_prompt="dog").settings[0].negative_prompt == "dog"


@pytest.mark.parametrize("negative", [None, "", [None], [""]])
def test_without_a_negative_prompt_guidance_reads_the_published_pads(
    pipe: JanusPipeline, read: list[Tensor], negative: Any
) -> None:
    found = codes(pipe, [CAT], seed=1, negative_prompt=negative)
    tokens, words = pipe.tokenizer, read[0].shape[1] - 2
    assert read[0][1].tolist() == [tokens.bos, *[tokens.pad] * words, tokens.begin_image]
    assert torch.equal(found, codes(pipe, seed=1))


def test_every_prompt_can_have_a_negative_prompt_of_its_own(pipe: JanusPipeline) -> None:
    found = codes(pipe, [CAT, CAT, "mat"], negative_prompt=["dog", None, "a blue bird"], seed=1)
    assert torch.equal(found[0], codes(pipe, seed=1, negative_prompt="dog")[0])
    assert torch.equal(found[1], codes(pipe, seed=2)[0])
    assert torch.equal(found[2], codes(pipe, "mat", seed=3, negative_prompt="a blue bird")[0])


@pytest.mark.parametrize(("guidance", "copies"), [(1, 1), (5, 2)])
def test_guidance_one_runs_half_the_rows(
    pipe: JanusPipeline, rows: dict[str, list[int]], guidance: float, copies: int
) -> None:
    codes(pipe, [CAT, "mat", "two green dogs"], guidance_scale=guidance, batch_size=3)
    assert rows["forward"] == [3 * copies]
    assert rows["step"] == [3 * copies] * 15


def test_equal_prompts_are_read_once(pipe: JanusPipeline, rows: dict[str, list[int]]) -> None:
    codes(pipe, num_images_per_prompt=8, batch_size=8)
    assert rows["forward"] == [2]
    assert rows["step"] == [16] * 15
    codes(pipe, num_images_per_prompt=6, batch_size=2)
    assert rows["forward"] == [2, 2]  # once for three batches
    codes(pipe, [CAT, CAT, "a dog"], batch_size=2)
    assert rows["forward"] == [2, 2, 2, 2]  # the batches differ


def test_options_reach_the_choice_of_codes(pipe: JanusPipeline) -> None:
    greedy = codes(pipe, temperature=0, seed=1)
    assert torch.equal(codes(pipe, temperature=0, seed=2), greedy)
    assert torch.equal(codes(pipe, top_k=1), greedy)
    assert torch.equal(codes(pipe, top_p=1e-6), greedy)
    assert not torch.equal(codes(pipe, seed=1), greedy)


def test_a_dtype_may_have_the_name_that_diffusers_gives_it(hf_folder: Path) -> None:
    load = JanusPipeline.from_pretrained
    assert load(hf_folder, device="cpu", torch_dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_dtype_may_be_given_to_to_alone_or_by_name(spare: JanusPipeline) -> None:
    assert spare.to(torch.bfloat16).dtype == torch.bfloat16
    assert spare.to("cpu", "float32").dtype == torch.float32
    assert spare.to(dtype=torch.bfloat16).dtype == torch.bfloat16
    assert spare.to("cpu").to().dtype == torch.bfloat16
    refused(DeviceError, lambda: spare.to("cpu", "int8"))


def test_a_model_whose_folder_has_gone_still_draws(
    hf_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(hf_folder, tmp_path / "model"))
    loaded = JanusPipeline.from_pretrained(folder, device="cpu")
    loaded.set_progress_bar_config(disable=True)
    shutil.rmtree(folder)
    out = loaded(CAT, seed=1)
    assert out.settings[0].model_hash == ""
    assert "hash" in caplog.text


def test_how_a_model_draws_unless_told_is_in_its_generation_config(
    hf_folder: Path, tmp_path: Path
) -> None:
    def said(folder: Path) -> Any:
        return json.loads((folder / "generation_config.json").read_text())

    folder = tmp_path / "own"
    shutil.copytree(hf_folder, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**said(folder), "guidance_scale": 2, "temperature": 0.5}))
    pipe = JanusPipeline.from_pretrained(folder, device="cpu")
    drawn = pipe(CAT, seed=1, output_type="tokens")
    (settings,) = drawn.settings
    assert (settings.guidance_scale, settings.temperature) == (2, 0.5)
    told = codes(pipe, seed=1, guidance_scale=2, temperature=0.5)
    assert torch.equal(drawn.codes, told)
    assert not torch.equal(drawn.codes, codes(pipe, seed=1, guidance_scale=5, temperature=1))
    pipe.save_pretrained(tmp_path / "saved")
    convert(folder, tmp_path / "converted")
    for name in ("saved", "converted"):
        assert said(tmp_path / name)["guidance_scale"] == 2
        assert said(tmp_path / name)["temperature"] == 0.5
    path.write_text('{"temperature": "hot"}')
    with pytest.raises(CheckpointError, match=r"generation_config.json: temperature must be"):
        JanusPipeline.from_pretrained(folder)
    path.unlink()
    assert JanusPipeline.from_pretrained(folder).defaults == SamplingOptions()
