"""Tests of the resampling pairs other than `Nearest`, against matrices and loops that are written out here, in float64.

Their conformance suites are in `test_resampling.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pggan_kit.growth.fade import fade_reals
from pggan_kit.layers.resampling import Area
from pggan_plugins.resampling import Bilinear, Blur, Learned, PixelShuffle

FACTORS = (2, 3, 4)
SIZE = (5, 4)
CHANNELS = 3


def make_bilinear_up(size: int, factor: int) -> np.ndarray:
    """Return (factor * size, size): values between the two nearest centres, clamped to the outermost ones."""
    matrix = np.zeros((factor * size, size))
    for o in range(factor * size):
        place = min(max((o + 0.5) / factor - 0.5, 0.0), size - 1.0)
        low = min(int(place), max(size - 2, 0))
        matrix[o, low] += 1 - (place - low)
        matrix[o, min(low + 1, size - 1)] += place - low
    return matrix


def make_bilinear_down(size: int, factor: int) -> np.ndarray:
    """Return (size, factor * size): a triangle of half-width `factor` around each new centre, rows summing to 1."""
    centres = (np.arange(size)[:, None] + 0.5) * factor
    weights = np.maximum(0.0, 1 - np.abs(np.arange(factor * size) + 0.5 - centres) / factor)
    return weights / weights.sum(1, keepdims=True)


def make_taps(factor: int) -> np.ndarray:
    if factor == 2:
        return np.array([1.0, 3.0, 3.0, 1.0]) / 8
    box = np.ones(factor) / factor
    return np.convolve(np.convolve(box, box), box)


def upfirdn(line: np.ndarray, taps: np.ndarray, up: int, down: int, pad: tuple[int, int]) -> np.ndarray:
    """Filter in StyleGAN2's order: zeros between the samples, zeros around, filter, every down-th."""
    wide = np.zeros(len(line) * up)
    wide[::up] = line
    return np.convolve(np.pad(wide, pad), taps, "valid")[::down]


def make_blur_up(size: int, factor: int) -> np.ndarray:
    taps = make_taps(factor)
    p = len(taps) - factor
    pad = ((p + 1) // 2 + factor - 1, p // 2)
    return np.stack([upfirdn(row, taps * factor, factor, 1, pad) for row in np.eye(size)], 1)


def make_blur_down(size: int, factor: int) -> np.ndarray:
    taps = make_taps(factor)
    p = len(taps) - factor
    pad = ((p + 1) // 2, p // 2)
    return np.stack([upfirdn(row, taps, 1, factor, pad) for row in np.eye(size * factor)], 1)


MATRICES: dict[str, tuple[Any, Callable[..., np.ndarray], Callable[..., np.ndarray]]] = {
    "bilinear": (Bilinear(), make_bilinear_up, make_bilinear_down),
    "blur": (Blur(), make_blur_up, make_blur_down),
}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def apply_matrix(matrix: Callable[..., np.ndarray], x: Tensor, size: tuple[int, int], factor: int) -> Tensor:
    rows, columns = (torch.from_numpy(matrix(n, factor)) for n in size)
    return torch.einsum("oh,nchw,pw->ncop", rows, x, columns)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("size", [SIZE, (1, 2)])
def test_pair_without_parameters_is_its_matrix(name: str, factor: int, size: tuple[int, int]) -> None:
    pair, up, down = MATRICES[name]  # (1, 2): a size at which torch's antialiased `interpolate` has a wrong gradient
    small = noise(2, CHANNELS, *size)
    large = noise(2, CHANNELS, *(factor * n for n in size))
    torch.testing.assert_close(pair.up(CHANNELS, factor).double()(small), apply_matrix(up, small, size, factor))
    torch.testing.assert_close(pair.down(CHANNELS, factor).double()(large), apply_matrix(down, large, size, factor))
    assert not list(pair.up(CHANNELS, factor).parameters()) + list(pair.down(CHANNELS, factor).parameters())


@pytest.mark.parametrize("factor", FACTORS)
def test_pairs_are_matched_by_transposition(factor: int) -> None:
    size = 6
    np.testing.assert_allclose(make_blur_down(size, factor), make_blur_up(size, factor).T / factor, atol=1e-12)
    inner = slice(1, -1)
    np.testing.assert_allclose(
        make_bilinear_down(size, factor)[inner], make_bilinear_up(size, factor).T[inner] / factor, atol=1e-12
    )


def test_bilinear_leaves_constants_as_they_are_up_to_the_border() -> None:
    for factor in FACTORS:
        for name in ("up", "down"):
            module = getattr(Bilinear(), name)(1, factor)
            output = module(torch.ones(1, 1, 4 * factor, factor))
            torch.testing.assert_close(output, torch.ones_like(output))


@pytest.mark.parametrize("equalized", [True, False])
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("kind", [Learned, PixelShuffle])
def test_learned_pairs_begin_as_nearest_and_area(kind: Any, factor: int, equalized: bool) -> None:
    pair = kind(equalized)
    small = noise(2, CHANNELS, *SIZE)
    large = noise(2, CHANNELS, *(factor * n for n in SIZE))
    for name, x in (("up", small), ("down", large)):
        wanted = getattr(Area(), name)(CHANNELS, factor)(x)
        torch.testing.assert_close(getattr(pair, name)(CHANNELS, factor).double()(x), wanted, rtol=1e-6, atol=1e-6)


def make_shaken(module: nn.Module) -> tuple[nn.Module, np.ndarray]:
    """Return the module with random weights, and these weights as they are at run time."""
    module = module.double()
    with torch.no_grad():
        module.weight.copy_(noise(*module.weight.shape, seed=3))  # type: ignore[union-attr, operator]
    return module, (module.weight * module.scale).detach().numpy()  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("factor", FACTORS)
def test_transposed_and_strided_convolution_by_loops(factor: int) -> None:
    (h, w), c = SIZE, CHANNELS
    small = noise(1, c, h, w)
    large = noise(1, c, factor * h, factor * w)

    # Up: each pixel adds its patch.
    up, weight = make_shaken(Learned().up(c, factor))
    wide = np.zeros((c, factor * h + 2, factor * w + 2))
    for i, j in np.ndindex(h, w):
        patch = np.einsum("a,abuv->buv", small[0, :, i, j].numpy(), weight)
        wide[:, factor * i : factor * i + factor + 2, factor * j : factor * j + factor + 2] += patch
    torch.testing.assert_close(up(small)[0], torch.from_numpy(wide[:, 1:-1, 1:-1]))

    # Down: each patch becomes a pixel.
    down, weight = make_shaken(Learned().down(c, factor))
    padded = np.pad(large[0].numpy(), ((0, 0), (1, 1), (1, 1)))
    wanted = np.zeros((c, h, w))
    for i, j in np.ndindex(h, w):
        patch = padded[:, factor * i : factor * i + factor + 2, factor * j : factor * j + factor + 2]
        wanted[:, i, j] = np.einsum("auv,bauv->b", patch, weight)
    torch.testing.assert_close(down(large)[0], torch.from_numpy(wanted))


@pytest.mark.parametrize("factor", FACTORS)
def test_pixel_shuffle_by_loops(factor: int) -> None:
    (h, w), c = SIZE, CHANNELS
    small = noise(1, c, h, w)
    large = noise(1, c, factor * h, factor * w)

    # Up: each pixel of the result has a kernel of its own.
    up, weight = make_shaken(PixelShuffle().up(c, factor))
    padded = np.pad(small[0].numpy(), ((0, 0), (1, 1), (1, 1)))
    wanted = np.zeros((c, factor * h, factor * w))
    for y, x in np.ndindex(factor * h, factor * w):
        i = y // factor
        j = x // factor
        sub = (y % factor) * factor + x % factor
        for b in range(c):
            wanted[b, y, x] = (padded[:, i : i + 3, j : j + 3] * weight[b * factor**2 + sub]).sum()
    torch.testing.assert_close(up(small)[0], torch.from_numpy(wanted))

    # Down: each square becomes a pixel.
    down, weight = make_shaken(PixelShuffle().down(c, factor))
    wanted = np.zeros((c, h, w))
    for i, j in np.ndindex(h, w):
        square = large[0, :, factor * i : factor * (i + 1), factor * j : factor * (j + 1)].numpy()
        wanted[:, i, j] = weight[:, :, 0, 0] @ square.reshape(-1)
    torch.testing.assert_close(down(large)[0], torch.from_numpy(wanted))


@pytest.mark.parametrize("kind", [Learned, PixelShuffle])
def test_equalized_weights_have_the_scale_of_their_fan_in(kind: Any) -> None:
    """Count from the module how many weights one output pixel far from the border depends on."""
    for name, size in (("up", 4), ("down", 8)):
        module = getattr(kind(), name)(4, 2)
        with torch.no_grad():
            module.weight.fill_(1.0)
        x = torch.ones(1, 4, size, size)
        fan_in = module(x)[0, 0, 2, 2] / module.scale
        assert module.scale == pytest.approx(fan_in.item() ** -0.5)
        plain = getattr(kind(equalized=False), name)(4, 2)
        assert plain.scale == 1.0
        assert plain.weight.max().item() == pytest.approx(1.0 if name == "up" else 0.25)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("kind", [Bilinear, Blur, Learned, PixelShuffle])
def test_gradients_of_both_orders(kind: Any, factor: int) -> None:
    for name, size in (("up", (2, 3)), ("down", (2 * factor, factor))):
        module = getattr(kind(), name)(2, factor).double()
        x = noise(1, 2, *size).requires_grad_(True)
        inputs = (x, *module.parameters())

        def square_output(x: Tensor, *_: Tensor, module: nn.Module = module) -> Tensor:
            return module(x).square()

        torch.autograd.gradcheck(square_output, inputs, fast_mode=True)
        torch.autograd.gradgradcheck(square_output, inputs, fast_mode=True)


@pytest.mark.parametrize("kind", [Bilinear, Blur])
def test_fades_reals_without_being_part_of_a_network(kind: Any) -> None:
    """The filter takes the dtype of the images."""
    for dtype in (torch.float32, torch.float64):
        x = noise(2, 3, 8, 8).to(dtype)
        up = kind().up(3, 2)
        down = kind().down(3, 2)
        faded = fade_reals(x, 2, torch.tensor(0.25), up, down)
        assert faded.dtype == dtype
        torch.testing.assert_close(faded, 0.25 * x + 0.75 * up(down(x)))


def test_filter_is_no_part_of_checkpoints() -> None:
    assert not Blur().up(4, 2).state_dict()


@pytest.mark.parametrize("name", ["Bilinear", "Blur"])
def test_trains_as_the_pair_for_images(train: Callable[..., Any], name: str) -> None:
    run = train(f"train.image_resampling = @resampling.{name}()")
    assert run.state.images == run.schedule.total
    assert all(p.isfinite().all() for p in run.state.ema.parameters())
