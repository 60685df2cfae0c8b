"""ADA's transforms: pixel blits bit by bit, map and colours against the paper's matrices in float64, the chances."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pggan_plugins.augmentations import ADA, geometry
from pggan_plugins.augmentations.colour import recolour
from pggan_plugins.augmentations.dice import Dice
from pggan_plugins.augmentations.geometry import Affine


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 3, 7, 7), (3, 1, 8, 12), (2, 2, 6, 4)])
def test_p_0_changes_no_bit(shape: tuple[int, ...]) -> None:
    for images in (noise(*shape), noise(*shape).float()):
        assert torch.equal(ADA(p=0.0)(images), images)


def turned(image: np.ndarray) -> list[np.ndarray]:
    """The flips and turns of an image that keep its shape."""
    turns = [np.rot90(image, k, (1, 2)) for k in range(4)]
    return [t for turn in turns for t in (turn, turn[:, :, ::-1]) if t.shape == image.shape]


@pytest.mark.parametrize(("size", "count"), [((4, 4), 8), ((4, 3), 4), ((1, 2), 4)])
def test_blits_of_small_images_are_their_flips_and_turns(size: tuple[int, int], count: int) -> None:
    """At 4 pixels the shift of 1/8 rounds to 0. Bit by bit: pixels move and keep their values."""
    images = noise(300, 2, *size).float()
    torch.manual_seed(0)
    found = ADA(["blit"], p=1.0)(images)
    seen = set()
    for image, moved in zip(images.numpy(), found.numpy(), strict=True):
        matches = [i for i, wanted in enumerate(turned(image)) if np.array_equal(wanted, moved)]
        assert matches
        seen.add(matches[0])
    assert len(seen) == len(turned(images[0].numpy())) == count or size == (1, 2)


def test_blits_shift_by_whole_pixels_over_a_mirrored_border() -> None:
    images = noise(300, 1, 16, 24).float()
    torch.manual_seed(0)
    found = ADA(["blit"], p=1.0)(images)
    seen = set()
    for image, moved in zip(images.numpy(), found.numpy(), strict=True):
        fits = []
        for index, picture in enumerate(turned(image)):
            padded = np.pad(picture, ((0, 0), (2, 2), (3, 3)), mode="reflect")
            fits += [
                (index, dy, dx)
                for dy, dx in itertools.product(range(-2, 3), range(-3, 4))
                if np.array_equal(padded[:, 2 - dy : 18 - dy, 3 - dx : 27 - dx], moved)
            ]
        assert len(fits) == 1
        seen.add(fits[0][1:])
    assert len(seen) == 5 * 7


def test_a_shift_moves_to_the_right_and_down() -> None:
    images = noise(1, 1, 6, 6)
    one = torch.ones(1, dtype=torch.float64)
    found = geometry.warp(images, geometry.shift(one, 2 * one))
    torch.testing.assert_close(found[0, 0, 2:, 1:], images[0, 0, :-2, :-1])


@pytest.mark.parametrize(("h", "w"), [(7, 7), (5, 8), (1, 3)])
def test_warp_by_loops(h: int, w: int) -> None:
    images, numbers = noise(4, 2, h, w), noise(6, 4, seed=1) * torch.tensor([[1.0], [1], [5], [1], [1], [5]])
    found = geometry.warp(images, Affine(*numbers))

    def pixel(image: np.ndarray, i: int, j: int) -> np.ndarray:
        for _ in range(100):  # from mirror to mirror until it lies inside
            i = -i if i < 0 else (2 * (h - 1) - i if i >= h else i)
            j = -j if j < 0 else (2 * (w - 1) - j if j >= w else j)
            if h == 1:
                i = 0
        return image[:, i, j]

    for n, image in enumerate(images.numpy()):
        xx, xy, x0, yx, yy, y0 = numbers[:, n].tolist()
        for i, j in np.ndindex(h, w):
            x, y = j - (w - 1) / 2, i - (h - 1) / 2
            column, row = xx * x + xy * y + x0 + (w - 1) / 2, yx * x + yy * y + y0 + (h - 1) / 2
            left, top = math.floor(column), math.floor(row)
            wanted = sum(
                (1 - abs(row - a)) * (1 - abs(column - b)) * pixel(image, a, b)
                for a, b in itertools.product((top, top + 1), (left, left + 1))
            )
            np.testing.assert_allclose(found[n, :, i, j].numpy(), wanted, atol=1e-12)


class Listed(Dice):
    """Dice that remember what they gave."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.given: list[Tensor] = []

    def strike(self, values: Tensor, p: Tensor | None = None) -> Tensor:
        self.given.append(super().strike(values, p))
        return self.given[-1]


def matrix(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array([*rows, (0.0, 0.0, 1.0)])


def scaling(x: float, y: float) -> np.ndarray:
    return matrix((x, 0, 0), (0, y, 0))


def turning(angle: float) -> np.ndarray:
    return matrix((math.cos(angle), math.sin(angle), 0), (-math.sin(angle), math.cos(angle), 0))


@pytest.mark.parametrize(("h", "w"), [(8, 8), (8, 16)])
def test_map_is_the_inverse_of_the_papers_transforms_in_order(h: int, w: int) -> None:
    """Forward matrices, the first transform innermost, inverted as a whole."""
    torch.manual_seed(0)
    dice = Listed(50, torch.tensor(0.8), torch.float64)
    found = [
        field if isinstance(field, Tensor) else torch.full((50,), field, dtype=torch.float64)
        for field in geometry.random_map(dice, ("blit", "geometry"), h, w)
    ]
    for n in range(50):
        turns, flip, (tx, ty), size, stretch, before, after, (fx, fy) = (given[..., n].tolist() for given in dice.given)
        quarter = turns * (1 if h == w else 2) * math.pi / 2
        forward = [
            scaling(1 - 2 * flip, 1),
            turning(quarter),
            matrix((1, 0, round(tx * w)), (0, 1, round(ty * h))),
            scaling(2**size, 2**size),
            turning(before),
            scaling(2**stretch, 2**-stretch),
            turning(after),
            matrix((1, 0, fx * w), (0, 1, fy * h)),
        ]
        whole = np.eye(3)
        for step in forward:
            whole = step @ whole
        wanted = np.linalg.inv(whole)[:2].flatten()
        np.testing.assert_allclose([field[n].item() for field in found], wanted, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_colour_is_the_papers_matrices(channels: int) -> None:
    """4x4 matrices on (r, g, b, 1), multiplied up; gray images take the mean row, as in the paper's code."""
    torch.manual_seed(0)
    dice = Listed(40, torch.tensor(0.8), torch.float64)
    images = noise(40, channels, 2, 3)
    found = recolour(images, dice).numpy()
    v = np.ones(channels) / math.sqrt(channels)
    names = ["brightness", "contrast", "flip"] + ["hue"] * (channels == 3) + ["saturation"] * (channels > 1)
    for n, image in enumerate(images.numpy()):
        draw = dict(zip(names, (given[n].item() for given in dice.given), strict=True))
        linear, offset = np.eye(channels), np.zeros(channels) + draw["brightness"]
        steps = [np.eye(channels) * 2 ** draw["contrast"], np.eye(channels) - 2 * draw["flip"] * np.outer(v, v)]
        if channels == 3:
            angle = draw["hue"]
            cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
            steps.append(np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross)
        if channels > 1:
            steps.append(np.outer(v, v) + (np.eye(channels) - np.outer(v, v)) * 2 ** draw["saturation"])
        for step in steps:
            linear, offset = step @ linear, step @ offset
        wanted = np.einsum("ab,bhw->ahw", linear, image) + offset[:, None, None]
        np.testing.assert_allclose(found[n], wanted, atol=1e-12)


def test_dice_strike_each_sample_on_its_own_with_chance_p() -> None:
    torch.manual_seed(0)
    count = 40_000
    dice = Dice(count, torch.tensor(0.3), torch.float64)
    normal, uniform, whole = dice.normal(0.2), dice.uniform(2.0), dice.whole(4)
    for draws in (normal, uniform):
        struck = draws[draws != 0]
        assert len(struck) / count == pytest.approx(0.3, abs=0.01)
    assert normal[normal != 0].std().item() == pytest.approx(0.2, rel=0.03)
    assert uniform.abs().max().item() == pytest.approx(2.0, abs=0.01)
    assert uniform[uniform != 0].mean().item() == pytest.approx(0.0, abs=0.06)
    shares = [(whole == k).double().mean().item() for k in range(4)]
    assert shares == pytest.approx([0.775, 0.075, 0.075, 0.075], abs=0.01)
    together = ((normal != 0) & (uniform != 0)).double().mean().item()
    assert together == pytest.approx(0.09, abs=0.01)


def test_sizes_of_the_draws_are_the_papers() -> None:
    """Deviations of the normal ones, and the largest of the uniform ones."""
    torch.manual_seed(0)
    dice = Listed(40_000, torch.tensor(1.0), torch.float64)
    geometry.random_map(dice, ("blit", "geometry"), 8, 8)
    turn, flip, (tx, ty), size, stretch, before, after, (fx, fy) = dice.given
    dice.given = []
    recolour(torch.zeros(40_000, 3, 1, 1, dtype=torch.float64), dice)
    brightness, contrast, luma, hue, saturation = dice.given
    normals = (size, 0.2), (stretch, 0.2), (fx, 0.125), (fy, 0.125), (brightness, 0.2), (contrast, 0.5), (saturation, 1)
    for draws, deviation in normals:
        assert draws.std().item() == pytest.approx(deviation, rel=0.02)
        assert draws.mean().item() == pytest.approx(0, abs=0.02 * deviation)
    for draws, most in ((tx, 0.125), (ty, 0.125), (before, math.pi), (after, math.pi), (hue, math.pi)):
        assert draws.abs().max().item() == pytest.approx(most, rel=1e-3) and draws.abs().max() <= most
        assert draws.std().item() == pytest.approx(most / math.sqrt(3), rel=0.02)
    for draws, count in ((turn, 4), (flip, 2), (luma, 2)):
        shares = torch.bincount(draws.long()) / len(draws)
        assert shares.tolist() == pytest.approx([1 / count] * count, abs=0.01)


def test_one_of_the_two_rotations_strikes_with_chance_p() -> None:
    torch.manual_seed(0)
    dice = Listed(40_000, torch.tensor(0.4), torch.float64)
    geometry.random_map(dice, ("geometry",), 8, 8)
    before, after = dice.given[2], dice.given[3]
    assert ((before != 0) | (after != 0)).double().mean().item() == pytest.approx(0.4, abs=0.01)


def test_each_transform_tosses_as_many_coins_as_in_the_paper() -> None:
    """Karras et al. 2020, appendix B: each transform tosses one coin, a shift too. Of `count` whole values, 0 among
    them, the coin shows `1 - 1 / count`; each of the two rotations has a coin of its own, with 1 - sqrt(1 - p)."""
    torch.manual_seed(0)
    p = 0.5
    dice = Listed(40_000, torch.tensor(p), torch.float64)
    geometry.random_map(dice, ("blit", "geometry"), 8, 8)
    recolour(torch.zeros(40_000, 3, 1, 1, dtype=torch.float64), dice)
    names = ["turn", "flip", "shift", "size", "stretch", "before", "after", "fraction"]
    names += ["brightness", "contrast", "luma", "hue", "saturation"]
    struck = {name: draws != 0 for name, draws in zip(names, dice.given, strict=True)}
    for name in ("shift", "fraction"):
        assert torch.equal(*struck[name]), f"the {name} strikes one axis alone"
        struck[name] = struck[name][0]
    either = 1 - math.sqrt(1 - p)
    wanted = {"turn": p * 3 / 4, "flip": p / 2, "luma": p / 2, "before": either, "after": either}
    for name, samples in struck.items():
        assert samples.double().mean().item() == pytest.approx(wanted.get(name, p), abs=0.012), name
    for one, two in itertools.combinations(struck, 2):
        both = (struck[one] & struck[two]).double().mean().item()
        assert both == pytest.approx(wanted.get(one, p) * wanted.get(two, p), abs=0.012), (one, two)


def test_as_many_images_stay_as_by_the_papers_chances() -> None:
    """Of 16x16 pixels with p = 0.5, blits leave those that are neither flipped, nor turned, nor shifted: a shift of
    U(-2, 2) pixels on each axis rounds to 0 with a chance of 1/4 each."""
    count, p = 20_000, 0.5
    images = noise(1, 1, 16, 16).float().expand(count, 1, 16, 16)
    torch.manual_seed(0)
    stay = (ADA(["blit"], p=p)(images) == images).flatten(1).all(1)
    wanted = (1 - p / 2) * (1 - p * 3 / 4) * (1 - p + p / 4 / 4)
    assert stay.double().mean().item() == pytest.approx(wanted, abs=0.01)


def test_ada_keeps_coordinates_under_autocast() -> None:
    """A coordinate in bfloat16 would be off by whole pixels at 256."""
    images = torch.rand(2, 1, 256, 256)
    part = ADA(["blit", "geometry"], p=1.0)
    torch.manual_seed(0)
    wanted = part(images)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = part(images)
    torch.testing.assert_close(found, wanted)
