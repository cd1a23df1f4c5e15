"""Detectors and judges of color on random weights, against slow versions of their rules."""

import copy
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detector_parts import picture
from PIL import Image

from janus_kit.errors import OptionError, ScoringError
from janus_kit.scoring.detectors import (
    DetectorFacts,
    known_pictures,
    open_detector,
    self_test,
)
from janus_kit.scoring.geneval import COLORS, OBJECTS, Detection
from janus_kit.scoring.segmentation import Prepared, Segmenter, instances, prepare


def bilinear(plane: np.ndarray[Any, Any], h: int, w: int) -> np.ndarray[Any, Any]:
    """One plane at another size, pixel by pixel, pixels being areas."""
    found = np.zeros((h, w))
    for y in range(h):
        for x in range(w):
            v = min(max((y + 0.5) * plane.shape[0] / h - 0.5, 0), plane.shape[0] - 1)
            u = min(max((x + 0.5) * plane.shape[1] / w - 0.5, 0), plane.shape[1] - 1)
            y0, x0 = int(v), int(u)
            y1, x1 = min(y0 + 1, plane.shape[0] - 1), min(x0 + 1, plane.shape[1] - 1)
            top = plane[y0, x0] * (1 - (u - x0)) + plane[y0, x1] * (u - x0)
            low = plane[y1, x0] * (1 - (u - x0)) + plane[y1, x1] * (u - x0)
            found[y, x] = top * (1 - (v - y0)) + low * (v - y0)
    return found


def slow_instances(
    classes: np.ndarray[Any, Any], masks: np.ndarray[Any, Any], seen: Prepared
) -> list[tuple[str, tuple[float, ...], float]]:
    """The rule of the protocol, one pixel after the other, without any floor."""
    shares = np.exp(classes) / np.exp(classes).sum(1, keepdims=True)
    pairs = [(shares[q, c], q, c) for q in range(len(shares)) for c in range(shares.shape[1] - 1)]
    looks = []
    for mask in masks:
        whole = bilinear(mask, *seen.pixels.shape[1:])
        full = bilinear(whole[: seen.inner[0], : seen.inner[1]], *seen.size)
        inside = [
            (y, x) for y in range(full.shape[0]) for x in range(full.shape[1]) if full[y, x] > 0
        ]
        sure = sum(1 / (1 + np.exp(-full[place])) for place in inside) / (len(inside) + 1e-6)
        ys, xs = [y for y, _ in inside], [x for _, x in inside]
        box = (min(xs), min(ys), max(xs) + 1, max(ys) + 1) if inside else (0, 0, 0, 0)
        looks.append((tuple(map(float, box)), sure))
    best = sorted(pairs, reverse=True)[:100]
    return [
        (OBJECTS[label], looks[query][0], float(p * looks[query][1])) for p, query, label in best
    ]


def rows(things: Sequence[Detection]) -> list[tuple[str, tuple[float, ...]]]:
    return [(thing.label, thing.box) for thing in things]


def test_instances_follow_the_rule_pixel_by_pixel() -> None:
    draw = torch.Generator().manual_seed(1)
    classes = torch.randn(3, 81, generator=draw) * 3
    masks = torch.randn(3, 6, 8, generator=draw) * 2
    masks[2] = -1  # an empty mask
    seen = Prepared(torch.zeros(3, 32, 32), (20, 27), (9, 13))
    found = instances(classes, masks, seen, floor=-1)
    slow = slow_instances(classes.double().numpy(), masks.double().numpy(), seen)
    slow.sort(key=lambda row: (-row[2], row[0], row[1]))
    assert len(found) == len(slow) == 100
    assert sorted(rows(found)) == sorted((label, box) for label, box, _ in slow)
    for thing, (label, box, score) in zip(found, slow, strict=True):
        assert (thing.label, thing.box) == (label, box)
        assert thing.score == pytest.approx(score, abs=1e-6)
        assert thing.mask is not None
        assert thing.mask.shape == (9, 13)


def test_a_floor_leaves_out_the_weak_and_nothing_else() -> None:
    draw = torch.Generator().manual_seed(2)
    classes, masks = torch.randn(4, 81, generator=draw) * 3, torch.randn(4, 6, 8, generator=draw)
    seen = Prepared(torch.zeros(3, 32, 32), (32, 32), (16, 16))
    everything = instances(classes, masks, seen, floor=-1)
    strong = instances(classes, masks, seen, floor=0.1)
    assert strong == [thing for thing in everything if thing.score > 0.1]
    assert 0 < len(strong) < len(everything)


@pytest.mark.parametrize(
    ("size", "inner", "padded"),
    [
        ((384, 384), (800, 800), (800, 800)),
        ((512, 512), (800, 800), (800, 800)),
        ((1024, 1024), (800, 800), (800, 800)),
        ((768, 512), (800, 1200), (800, 1216)),
        ((2000, 500), (333, 1333), (352, 1344)),
        ((500, 2000), (1333, 333), (1344, 352)),
    ],
)
def test_pictures_are_scaled_and_padded_as_mmdet_does(
    size: tuple[int, int], inner: tuple[int, int], padded: tuple[int, int]
) -> None:
    seen = prepare(Image.new("RGB", size, "white"))
    assert (seen.inner, tuple(seen.pixels.shape[1:])) == (inner, padded)
    assert seen.size == size[::-1]
    levels = seen.pixels * torch.tensor((58.395, 57.12, 57.375)).view(3, 1, 1)
    levels = levels + torch.tensor((123.675, 116.28, 103.53)).view(3, 1, 1)
    assert torch.allclose(levels[:, : inner[0], : inner[1]], torch.tensor(255.0))
    assert torch.allclose(levels[:, inner[0] :], torch.tensor(128.0))
    assert torch.allclose(levels[:, :, inner[1] :], torch.tensor(128.0))


def test_the_network_reads_red_first() -> None:
    seen = prepare(Image.new("RGB", (4, 4), "red"), 32, 32)
    assert seen.pixels[0].min() > 2
    assert seen.pixels[2].max() < -1.7


def test_a_picture_is_scaled_pixel_by_pixel() -> None:
    image = picture((13, 9))
    seen = prepare(image, 40, 20)
    assert seen.inner == (20, 29)
    for channel, (mean, std) in enumerate(((123.675, 58.395), (116.28, 57.12), (103.53, 57.375))):
        slow = bilinear(np.asarray(image, float)[..., channel], *seen.inner).round()
        found = seen.pixels[channel, :20, :29].numpy() * std + mean
        assert np.abs(found - slow).max() <= 1.001  # a half can be rounded either way
        assert (np.abs(found - slow) > 0.5).mean() < 0.01


@pytest.fixture(scope="module")
def mask2former() -> Any:
    """A tiny Mask2Former with random weights."""
    pytest.importorskip("scipy")  # its loss needs it, and is made even where it is not used
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        num_labels=80,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=6,
    )
    model = Mask2FormerForUniversalSegmentation(config).eval()
    with torch.no_grad():
        model.class_predictor.weight.mul_(40)  # random classes are too even to be seen
    return model


def test_a_segmenter_equals_its_parts_and_does_not_mix_pictures(mask2former: Any) -> None:
    segmenter = Segmenter(mask2former, DetectorFacts(name="tiny"), batch_size=2, long=64, short=40)
    images = [picture(size, seed) for seed, size in enumerate([(20, 15), (15, 20), (20, 15)])]
    found = segmenter.detect(images)
    assert any(found)
    for image, things in zip(images, found, strict=True):
        assert rows(segmenter.detect([image])[0]) == rows(things)
        seen = prepare(image, 64, 40)
        with torch.inference_mode():
            out = mask2former(pixel_values=seen.pixels[None])
        slow = slow_instances(
            out.class_queries_logits[0].double().numpy(),
            out.masks_queries_logits[0].double().numpy(),
            seen,
        )
        strong = [row for row in slow if row[2] > 0.05]
        assert sorted(rows(things)) == sorted((label, box) for label, box, _ in strong)
    assert segmenter.detect([]) == []


def test_a_detector_without_eighty_classes_is_refused(mask2former: Any) -> None:
    other = types.SimpleNamespace(config=types.SimpleNamespace(num_labels=133))
    with pytest.raises(ScoringError, match="133 classes, not the 80"):
        Segmenter(other, DetectorFacts(name="panoptic"))
    with pytest.raises(OptionError, match="batch_size"):
        Segmenter(mask2former, DetectorFacts(name="tiny"), batch_size=0)


def test_a_detector_of_another_kind_is_refused(tmp_path: Path) -> None:
    from transformers import DetrConfig, DetrForSegmentation, ResNetConfig

    config = DetrConfig(
        num_labels=80, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
        decoder_ffn_dim=16, encoder_attention_heads=8, decoder_attention_heads=8, num_queries=4,
        use_timm_backbone=False, use_pretrained_backbone=False,
        backbone_config=ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1],
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
    )  # fmt: skip
    DetrForSegmentation(config).save_pretrained(tmp_path / "detr")
    with pytest.raises(ScoringError, match="is a detr, and mask2former or maskformer is read"):
        open_detector(str(tmp_path / "detr"), device="cpu")


def test_a_segmenter_opens_a_folder(mask2former: Any, tmp_path: Path) -> None:
    mask2former.save_pretrained(tmp_path / "tiny")
    found = open_detector(str(tmp_path / "tiny"), device="cpu")
    assert found.facts.notes == ("another detector than the published one",)
    other = copy.deepcopy(mask2former)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained(tmp_path / "other")
    assert open_detector(str(tmp_path / "other"), device="cpu").facts.version != found.facts.version
    with pytest.raises(ScoringError, match="cannot be loaded as a segmentation model"):
        open_detector(str(tmp_path / "none"), device="cpu")


class Fake:
    """A detector that answers what it was told, in the order of the known pictures."""

    def __init__(self, answers: dict[str, list[Detection]]) -> None:
        self.facts = DetectorFacts(name="fake")
        self.answers = answers

    def detect(self, images: Sequence[Image.Image]) -> list[list[Detection]]:
        return [
            self.answers.get(name, []) for name, _ in zip(known_pictures(), images, strict=True)
        ]


def test_a_self_test_tells_garbage_from_answers() -> None:
    box = (0.0, 0.0, 9.0, 9.0)
    names = [name for name in known_pictures() if name]
    good = {name: [Detection(name, box, 0.9)] for name in names}
    assert self_test(Fake(good)) == []
    assert len(self_test(Fake({}))) == 2
    assert (
        "names none" in self_test(Fake({name: [Detection("dog", box, 0.9)] for name in names}))[0]
    )
    blind = {name: things for name, things in good.items() if name != "cat"}
    assert self_test(Fake(blind)) == ["it sees no cat in a photograph of one"]
    ghost = {**good, "": [Detection("zebra", box, 0.95)]}
    assert self_test(Fake(ghost)) == ["it sees zebra in an empty picture"]


def test_a_detector_plugs_in_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from janus_kit.scoring.geneval import Detection\n"
        "class Mine:\n"
        "    def detect(self, images):\n"
        "        return [[Detection('cat', (0, 0, 1, 1), 0.5)] for image in images]\n"
        "class Short:\n"
        "    def detect(self, images):\n"
        "        return []\n"
        "def none():\n"
        "    return 3\n"
        "def broken():\n"
        "    return 1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = open_detector("mine:Mine")
    assert found.facts.name == "mine:Mine"
    assert found.facts.notes
    assert [thing.label for thing in found.detect([Image.new("RGB", (2, 2))])[0]] == ["cat"]
    with pytest.raises(ScoringError, match="for each of the 1 pictures"):
        open_detector("mine:Short").detect([Image.new("RGB", (2, 2))])
    assert len(found.facts.version) == 10  # of its source, so that another is looked with anew
    with pytest.raises(ScoringError, match="has no detect"):
        open_detector("mine:none")
    with pytest.raises(ScoringError, match="ZeroDivisionError: division by zero"):
        open_detector("mine:broken")
    for name in ("mine:other", "nowhere:at_all"):
        with pytest.raises(ScoringError, match="cannot be imported"):
            open_detector(name)


def test_facts_are_checked_at_birth() -> None:
    with pytest.raises(OptionError, match="counting_threshold"):
        DetectorFacts(name="x", counting_threshold=1.5)
    with pytest.raises(OptionError, match="threshold must be from"):
        DetectorFacts(name="x", threshold=0.01)
    with pytest.raises(ScoringError, match="did you mean"):
        DetectorFacts(name="x", names=("computer mous",))
    assert COLORS
