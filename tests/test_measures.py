"""The arithmetic of an evaluation: intervals, means, times as fast, PSNR and SSIM."""

import numpy as np
import pytest

from janus_kit.training.measures import faster, middle, psnr, share, ssim


def test_an_interval_holds_its_share_and_narrows() -> None:
    few, many = share(9, 10), share(900, 1000)
    assert few["low"] < 0.9 < few["high"]
    assert many["high"] - many["low"] < few["high"] - few["low"]
    assert share(0, 0)["high"] == 1.0


def test_a_mean_has_its_interval() -> None:
    assert middle([1.0, 3.0], 2) == {"mean": 2.0, "low": 0.04, "high": 3.96}
    narrow = middle([1.0, 3.0] * 50, 2)
    assert (narrow["mean"], narrow["low"], narrow["high"]) == (2.0, 1.8, 2.2)


def test_times_as_fast_have_the_extremes_of_single_rounds() -> None:
    own, other = {"wall": 2.0, "least": 1.0, "most": 4.0}, {"wall": 8.0, "least": 6.0, "most": 9.0}
    assert faster(own, other) == {"ratio": 4.0, "low": 1.5, "high": 9.0}


def test_psnr_and_ssim_are_those_of_the_papers() -> None:
    random = np.random.default_rng(0)
    true = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert psnr(true, true) > 100
    assert ssim(true, true) == pytest.approx(1.0)
    off = np.clip(true.astype(int) + 10, 0, 255).astype(np.uint8)
    flat = np.full((32, 32, 3), 100, np.uint8)
    assert psnr(flat, flat + 10) == pytest.approx(28.13, abs=0.01)
    # Without any structure only the means count: (2ab + C1) / (a² + b² + C1).
    a, b, c = 100.0, 110.0, (0.01 * 255) ** 2
    assert ssim(flat, flat + 10) == pytest.approx((2 * a * b + c) / (a * a + b * b + c))
    assert 0.9 < ssim(true, off) < 1
    assert abs(ssim(true, true[::-1].copy())) < 0.2
