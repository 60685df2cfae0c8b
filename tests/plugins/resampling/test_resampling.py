"""Tests of resampling against slow loops in float64, and the conformance suite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from helpers.variants import train_once
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d

from pggan_kit.growth.fade import fade_reals
from pggan_kit.layers.resampling import Area
from pggan_kit.testing import ResamplingSuite
from pggan_kit.testing.support import draw_noise
from pggan_plugins import resampling


def enlarge(x: np.ndarray, factor: int) -> np.ndarray:
    """Turn each pixel into a square."""
    return np.kron(x, np.ones((factor, factor)))


def average(x: np.ndarray, factor: int) -> np.ndarray:
    """Turn each square into its mean."""
    h = x.shape[0] // factor
    w = x.shape[1] // factor
    means = np.empty((h, w))
    for i, j in np.ndindex(h, w):
        means[i, j] = x[factor * i : factor * (i + 1), factor * j : factor * (j + 1)].mean()
    return means


def convolve(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Convolve (C, h, w) with (C', C, k, k) and zero padding: torch's cross-correlation."""
    return np.array([sum(correlate2d(x[c], w[c], "same") for c in range(len(x))) for w in weight])


@pytest.mark.parametrize("pair", [Area(), resampling.Nearest()])
@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 9])
def test_nearest_and_area_against_loops(pair: Area, factor: int, channels: int) -> None:
    small = draw_noise(2, channels, 3, 2, dtype=torch.float64)
    large = draw_noise(2, channels, 3 * factor, 2 * factor, dtype=torch.float64)
    up = pair.up(channels, factor)(small)
    down = pair.down(channels, factor)(large)
    for n in range(2):
        for c in range(channels):
            np.testing.assert_array_equal(up[n, c].numpy(), enlarge(small[n, c].numpy(), factor))
            np.testing.assert_allclose(down[n, c].numpy(), average(large[n, c].numpy(), factor), atol=1e-14)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_fused_convolutions_against_loops(factor: int, kernel: int) -> None:
    pair = resampling.Nearest()
    weight = draw_noise(3, 2, kernel, kernel, seed=1, dtype=torch.float64)
    small = draw_noise(1, 2, 4, 3, dtype=torch.float64)
    large = draw_noise(1, 2, 4 * factor, 3 * factor, dtype=torch.float64)
    up = pair.up(2, factor).conv2d(small, weight)[0].numpy()
    wanted = convolve(np.stack([enlarge(x, factor) for x in small[0].numpy()]), weight.numpy())
    np.testing.assert_allclose(up, wanted, atol=1e-12)
    down = pair.down(2, factor).conv2d(large, weight)[0].numpy()
    wanted = np.stack([average(x, factor) for x in convolve(large[0].numpy(), weight.numpy())])
    np.testing.assert_allclose(down, wanted, atol=1e-12)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("factor", [2, 3])
def test_fused_convolutions_have_the_derivatives_of_plain_ones(factor: int, memory_format: torch.memory_format) -> None:
    """First and second derivatives with respect to features and weights."""
    fused = resampling.Nearest()
    plain = Area()
    weight = draw_noise(3, 2, 3, 3, seed=1, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    for way, size in (("up", 4), ("down", 2 * factor)):
        x = draw_noise(2, 2, size, size, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()

        def differentiate(pair: Area, way: str = way, x: torch.Tensor = x) -> list[torch.Tensor]:
            out = getattr(pair, way)(2, factor).conv2d(x, weight)
            first = torch.autograd.grad(out.tanh().sum(), (x, weight), create_graph=True)
            total = torch.stack([each.square().sum() for each in first]).sum()
            return [out, *first, *torch.autograd.grad(total, (x, weight))]

        for one, two in zip(differentiate(fused), differentiate(plain), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 12))
def test_down_undoes_up(factor: int, height: int, width: int, channels: int) -> None:
    """This is why a fade in image space preserves the function."""
    x = draw_noise(1, channels, height, width)
    pair = Area()
    torch.testing.assert_close(pair.down(channels, factor)(pair.up(channels, factor)(x)), x)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_reals_fade_between_their_mean_and_themselves(alpha: float) -> None:
    x = draw_noise(2, 3, 6, 9)
    pair = Area()
    faded = fade_reals(x, 3, torch.tensor(alpha), pair.up(3, 3), pair.down(3, 3)).numpy()
    for n in range(2):
        for c in range(3):
            image = x[n, c].numpy().astype(np.float64)
            wanted = (1 - alpha) * enlarge(average(image, 3), 3) + alpha * image
            np.testing.assert_allclose(faded[n, c], wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["Nearest", "Bilinear", "Blur", "Learned", "PixelShuffle"])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_constant_does_not_change(name: str, factor: int) -> None:
    """Away from the border, where some pad with zeros."""
    torch.manual_seed(0)
    pair = getattr(resampling, name)()
    for module, size in ((pair.up(4, factor), 5), (pair.down(4, factor), 5 * factor)):
        output = module(torch.full((1, 4, size, size), 0.7))
        margin = output.shape[-1] // 5
        inside = output[..., margin:-margin, margin:-margin]
        torch.testing.assert_close(inside, torch.full_like(inside, 0.7))


@train_once
class TestArea(ResamplingSuite):
    def make(self) -> Area:
        return Area()


@train_once
class TestNearest(ResamplingSuite):
    def make(self) -> resampling.Nearest:
        return resampling.Nearest()


@train_once
class TestNearestWide(ResamplingSuite):
    channels: Sequence[int] = (12,)
    factors: Sequence[int] = (2, 3)

    def make(self) -> resampling.Nearest:
        return resampling.Nearest()


@train_once
class TestBilinear(ResamplingSuite):
    def make(self) -> resampling.Bilinear:
        return resampling.Bilinear()


class TestBlur(ResamplingSuite):
    def make(self) -> resampling.Blur:
        return resampling.Blur()


class TestLearned(ResamplingSuite):
    def make(self) -> resampling.Learned:
        return resampling.Learned()


class TestPixelShuffle(ResamplingSuite):
    def make(self) -> resampling.PixelShuffle:
        return resampling.PixelShuffle()
