"""Resampling against slow loops in float64, and the conformance suite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d

from pggan_kit.growth.fade import fade_reals
from pggan_kit.layers.resampling import Area
from pggan_kit.testing import ResamplingSuite
from pggan_kit.testing.support import noise
from pggan_plugins import resampling


def enlarged(x: np.ndarray, factor: int) -> np.ndarray:
    """Each pixel becomes a square."""
    return np.kron(x, np.ones((factor, factor)))


def averaged(x: np.ndarray, factor: int) -> np.ndarray:
    """Each square becomes its mean."""
    h, w = x.shape[0] // factor, x.shape[1] // factor
    return np.array([[x[i * factor :][:factor, j * factor :][:, :factor].mean() for j in range(w)] for i in range(h)])


def convolved(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(C, h, w) with (C', C, k, k), zero padding: torch's cross-correlation."""
    return np.array([sum(correlate2d(x[c], w[c], "same") for c in range(len(x))) for w in weight])


@pytest.mark.parametrize("pair", [Area(), resampling.Nearest()])
@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 9])
def test_nearest_and_area_against_loops(pair: Area, factor: int, channels: int) -> None:
    small = noise(2, channels, 3, 2, dtype=torch.float64)
    large = noise(2, channels, 3 * factor, 2 * factor, dtype=torch.float64)
    up, down = pair.up(channels, factor)(small), pair.down(channels, factor)(large)
    for n in range(2):
        for c in range(channels):
            np.testing.assert_array_equal(up[n, c].numpy(), enlarged(small[n, c].numpy(), factor))
            np.testing.assert_allclose(down[n, c].numpy(), averaged(large[n, c].numpy(), factor), atol=1e-14)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_fused_convolutions_against_loops(factor: int, kernel: int) -> None:
    pair = resampling.Nearest()
    weight = noise(3, 2, kernel, kernel, seed=1, dtype=torch.float64)
    small = noise(1, 2, 4, 3, dtype=torch.float64)
    large = noise(1, 2, 4 * factor, 3 * factor, dtype=torch.float64)
    up = pair.up(2, factor).conv2d(small, weight)[0].numpy()
    wanted = convolved(np.stack([enlarged(x, factor) for x in small[0].numpy()]), weight.numpy())
    np.testing.assert_allclose(up, wanted, atol=1e-12)
    down = pair.down(2, factor).conv2d(large, weight)[0].numpy()
    wanted = np.stack([averaged(x, factor) for x in convolved(large[0].numpy(), weight.numpy())])
    np.testing.assert_allclose(down, wanted, atol=1e-12)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("factor", [2, 3])
def test_fused_convolutions_have_the_derivatives_of_plain_ones(factor: int, memory_format: torch.memory_format) -> None:
    """First and second, with respect to features and weights."""
    fused, plain = resampling.Nearest(), Area()
    weight = noise(3, 2, 3, 3, seed=1, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    for way, size in (("up", 4), ("down", 2 * factor)):
        x = noise(2, 2, size, size, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()

        def derivatives(pair: Area, way: str = way, x: torch.Tensor = x) -> list[torch.Tensor]:
            out = getattr(pair, way)(2, factor).conv2d(x, weight)
            first = torch.autograd.grad(out.tanh().sum(), (x, weight), create_graph=True)
            total = torch.stack([each.square().sum() for each in first]).sum()
            return [out, *first, *torch.autograd.grad(total, (x, weight))]

        for one, two in zip(derivatives(fused), derivatives(plain), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 12))
def test_down_undoes_up(factor: int, height: int, width: int, channels: int) -> None:
    """What makes a fade in image space preserve the function."""
    x = noise(1, channels, height, width)
    pair = Area()
    torch.testing.assert_close(pair.down(channels, factor)(pair.up(channels, factor)(x)), x)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_reals_fade_between_their_mean_and_themselves(alpha: float) -> None:
    x = noise(2, 3, 6, 9)
    pair = Area()
    found = fade_reals(x, 3, torch.tensor(alpha), pair.up(3, 3), pair.down(3, 3)).numpy()
    for n in range(2):
        for c in range(3):
            image = x[n, c].numpy().astype(np.float64)
            wanted = (1 - alpha) * enlarged(averaged(image, 3), 3) + alpha * image
            np.testing.assert_allclose(found[n, c], wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["Nearest", "Bilinear", "Blur", "Learned", "PixelShuffle"])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_constant_stays_itself(name: str, factor: int) -> None:
    """Away from the border, where some pad with zeros."""
    torch.manual_seed(0)
    pair = getattr(resampling, name)()
    for module, size in ((pair.up(4, factor), 5), (pair.down(4, factor), 5 * factor)):
        output = module(torch.full((1, 4, size, size), 0.7))
        margin = output.shape[-1] // 5
        inside = output[..., margin:-margin, margin:-margin]
        torch.testing.assert_close(inside, torch.full_like(inside, 0.7))


class TestArea(ResamplingSuite):
    def make(self) -> Area:
        return Area()


class TestNearest(ResamplingSuite):
    def make(self) -> resampling.Nearest:
        return resampling.Nearest()


class TestNearestWide(ResamplingSuite):
    channels: Sequence[int] = (12,)
    factors: Sequence[int] = (2, 3)

    def make(self) -> resampling.Nearest:
        return resampling.Nearest()


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
