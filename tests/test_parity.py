"""Our modules equal transformers' Janus on the same random weights."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from janus_kit.checkpoint import load, save
from janus_kit.model import Cache, Janus

CLOSE = 1e-4
LENGTHS = (9, 4, 7)  # tokens of each row


@pytest.fixture(scope="module")
def theirs(hf_folder: Path) -> Any:
    from transformers import JanusForConditionalGeneration

    return JanusForConditionalGeneration.from_pretrained(hf_folder).eval()


@pytest.fixture(scope="module")
def ours(hf_folder: Path) -> Janus:
    return load(hf_folder, device=torch.device("cpu"))[0]


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def padded(side: str = "left") -> tuple[Tensor, Tensor]:
    """Tokens [3, 9] and their mask, rows of LENGTHS padded on one side."""
    places = torch.arange(max(LENGTHS)).expand(len(LENGTHS), -1)
    lengths = torch.tensor(LENGTHS)[:, None]
    mask = places >= max(LENGTHS) - lengths if side == "left" else places < lengths
    tokens = torch.randint(0, 260, mask.shape, generator=torch.Generator().manual_seed(2))
    return tokens, mask


def their_hidden(theirs: Any, embeds: Tensor, mask: Tensor) -> Tensor:
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    return theirs.model.language_model(  # type: ignore[no-any-return]
        inputs_embeds=embeds, attention_mask=mask.long(), position_ids=positions
    ).last_hidden_state


def test_text_logits_are_theirs(ours: Janus, theirs: Any) -> None:
    tokens = padded()[0]
    logits = ours.text_head(ours.language(ours.embed(tokens, -1, [])))
    torch.testing.assert_close(logits, theirs(tokens).logits, atol=CLOSE, rtol=0)
    assert logits.std() > 0.3  # else closeness would mean little


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_logits_of_a_padded_batch_are_theirs(ours: Janus, theirs: Any, side: str) -> None:
    tokens, mask = padded(side)
    embeds = ours.language.embed(tokens)
    logits = ours.text_head(ours.language(embeds, mask))
    expected = theirs.lm_head(their_hidden(theirs, embeds, mask))
    torch.testing.assert_close(logits[mask], expected[mask], atol=CLOSE, rtol=0)
    assert logits.isfinite().all()


def test_a_padded_row_equals_the_row_alone(ours: Janus) -> None:
    tokens, mask = padded()
    together = ours.language(ours.language.embed(tokens), mask)
    for row, length in enumerate(LENGTHS):
        alone = ours.language(ours.language.embed(tokens[row : row + 1, -length:]))
        torch.testing.assert_close(together[row, -length:], alone[0], atol=1e-5, rtol=0)


def test_vision_features_are_theirs(ours: Janus, theirs: Any) -> None:
    pixels = normal(2, 3, 64, 64)
    expected = theirs.model.get_image_features(pixels)
    torch.testing.assert_close(ours.vision(pixels), expected.last_hidden_state, atol=CLOSE, rtol=0)
    torch.testing.assert_close(ours.features(pixels), expected.pooler_output, atol=CLOSE, rtol=0)


def test_text_logits_after_two_images_are_theirs(ours: Janus, theirs: Any) -> None:
    pixels = normal(2, 3, 64, 64)
    image = theirs.config.image_token_id
    tokens = torch.tensor([[5, *[image] * 16, 6, *[image] * 16, 7, 8]])
    hidden = ours.language(ours.embed(tokens, image, list(ours.features(pixels))))
    expected = theirs(input_ids=tokens, pixel_values=pixels).logits
    torch.testing.assert_close(ours.text_head(hidden), expected, atol=CLOSE, rtol=0)


def test_codes_of_pixels_are_theirs(ours: Janus, theirs: Any) -> None:
    pixels = normal(3, 3, 64, 64).tanh()
    expected = theirs.model.vqmodel.encode(pixels).image_tokens.view(3, -1)
    codes = ours.vq.encode(pixels)
    assert torch.equal(codes, expected)
    assert len(codes.unique()) > 8


def test_pixels_of_codes_are_theirs(ours: Janus, theirs: Any) -> None:
    codes = torch.randint(0, 64, (3, 16), generator=torch.Generator().manual_seed(3))
    expected = theirs.model.vqmodel.decode(codes)
    torch.testing.assert_close(ours.vq.decode(codes), expected, atol=CLOSE, rtol=0)


def test_a_codebook_off_the_unit_sphere_decodes_as_theirs(ours: Janus, theirs: Any) -> None:
    codes = torch.arange(16)[None]
    ours, theirs = copy.deepcopy(ours.vq), copy.deepcopy(theirs.model.vqmodel)
    expected = ours.decode(codes)
    scale = 1 + torch.arange(64)[:, None] / 8
    ours.codebook.weight.mul_(scale)
    theirs.quantize.embedding.weight.mul_(scale)
    torch.testing.assert_close(ours.decode(codes), expected, atol=CLOSE, rtol=0)
    torch.testing.assert_close(theirs.decode(codes), expected, atol=CLOSE, rtol=0)


def test_embeds_and_logits_of_codes_are_theirs(ours: Janus, theirs: Any) -> None:
    codes = torch.arange(64).view(4, 16)
    expected = theirs.prepare_embeddings_for_image_generation(codes)
    torch.testing.assert_close(ours.embed_codes(codes), expected, atol=CLOSE, rtol=0)
    assert torch.equal(ours.code_table(), ours.embed_codes(torch.arange(64)))
    hidden = normal(2, 5, 32)
    expected = theirs.model.generation_head(hidden)
    torch.testing.assert_close(ours.code_head(hidden), expected, atol=CLOSE, rtol=0)


def test_code_logits_of_a_padded_prompt_and_codes_are_theirs(ours: Janus, theirs: Any) -> None:
    tokens, mask = padded()
    codes = torch.randint(0, 64, (3, 16), generator=torch.Generator().manual_seed(4))
    embeds = torch.cat((ours.language.embed(tokens), ours.embed_codes(codes)), 1)
    mask = torch.cat((mask, torch.ones(3, 16, dtype=torch.bool)), 1)
    logits = ours.code_head(ours.language(embeds, mask))
    expected = theirs.model.generation_head(their_hidden(theirs, embeds, mask))
    torch.testing.assert_close(logits[:, -17:], expected[:, -17:], atol=CLOSE, rtol=0)


def steps(ours: Janus, embeds: Tensor, cache: Cache, start: int) -> Tensor:
    """Hidden states of embeds [b, t, d] read one by one from slot start on."""
    found = []
    for i in range(embeds.shape[1]):
        position = torch.tensor([start + i])
        found.append(ours.language.step(embeds[:, i], cache, position, start + i + 1 + i % 3))
    return torch.stack(found, 1)


@pytest.mark.parametrize("pad", [True, False])
def test_steps_with_a_cache_equal_whole_rows(ours: Janus, pad: bool) -> None:
    tokens, mask = padded()
    mask = mask if pad else torch.ones_like(mask)
    start, more = tokens.shape[1], 6
    embeds = torch.cat((ours.language.embed(tokens), normal(3, more, 32)), 1)
    cache = Cache.empty(ours.config.language, mask, start + more + 2, torch.float32)
    before = ours.language(embeds[:, :start], mask, cache)
    after = steps(ours, embeds[:, start:], cache, start)
    whole_mask = torch.cat((mask, torch.ones(3, more, dtype=torch.bool)), 1)
    whole = ours.language(embeds, whole_mask)
    torch.testing.assert_close(before[mask], whole[:, :start][mask], atol=1e-5, rtol=0)
    torch.testing.assert_close(after, whole[:, start:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pad", [True, False])
def test_the_last_position_alone_is_that_of_the_whole_rows(ours: Janus, pad: bool) -> None:
    tokens, mask = padded()
    mask = mask if pad else torch.ones_like(mask)
    embeds = ours.language.embed(tokens)
    caches = [Cache.empty(ours.config.language, mask, 20, torch.float32) for _ in range(2)]
    whole = ours.language(embeds, mask, caches[0])
    last = ours.language(embeds, mask, caches[1], last=True)
    torch.testing.assert_close(last, whole[:, -1:], atol=1e-5, rtol=0)
    assert torch.equal(caches[0].keys, caches[1].keys)


def test_a_picked_cache_goes_on_as_the_rows_picked(ours: Janus) -> None:
    tokens, mask = padded()
    start, rows = tokens.shape[1], torch.tensor([2, 0, 2, 1])
    embeds, more = ours.language.embed(tokens), normal(4, 5, 32)
    cache = Cache.empty(ours.config.language, mask, start + 8, torch.float32)
    ours.language(embeds, mask, cache)
    after = steps(ours, more, cache.pick(rows), start)
    whole_mask = torch.cat((mask[rows], torch.ones(4, 5, dtype=torch.bool)), 1)
    whole = ours.language(torch.cat((embeds[rows], more), 1), whole_mask)
    torch.testing.assert_close(after, whole[:, start:], atol=1e-5, rtol=0)
    assert not cache.keys[..., start:, :].any()  # the steps wrote into a copy


def test_what_we_save_computes_the_same_in_transformers(
    ours: Janus, theirs: Any, hf_folder: Path, tmp_path: Path
) -> None:
    from transformers import JanusForConditionalGeneration

    save(ours, tmp_path, tokenizer_folder=hf_folder)
    back = JanusForConditionalGeneration.from_pretrained(tmp_path).eval()
    tokens = padded()[0]
    assert torch.equal(back(tokens).logits, theirs(tokens).logits)
