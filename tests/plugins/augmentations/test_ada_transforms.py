"""Tests of ADA's transforms: pixel blits bit for bit, map and colours against the paper's matrices, probabilities."""

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
from pggan_plugins.augmentations.geometry import Affine
from pggan_plugins.augmentations.random_draws import RandomDraws


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 3, 7, 7), (3, 1, 8, 12), (2, 2, 6, 4)])
def test_p_0_changes_no_bit(shape: tuple[int, ...]) -> None:
    for images in (noise(*shape), noise(*shape).float()):
        assert torch.equal(ADA(p=0.0)(images), images)


def list_flips_and_turns(image: np.ndarray) -> list[np.ndarray]:
    """Return the flips and turns of an image that keep its shape."""
    candidates = []
    for k in range(4):
        turn = np.rot90(image, k, (1, 2))
        candidates += [turn, turn[:, :, ::-1]]
    return [candidate for candidate in candidates if candidate.shape == image.shape]


@pytest.mark.parametrize(("size", "count"), [((4, 4), 8), ((4, 3), 4), ((1, 2), 4)])
def test_blits_of_small_images_are_their_flips_and_turns(size: tuple[int, int], count: int) -> None:
    """At 4 pixels the shift of 1/8 rounds to 0. Equal bit for bit: pixels move and keep their values."""
    images = noise(300, 2, *size).float()
    torch.manual_seed(0)
    augmented = ADA(["blit"], p=1.0)(images)

    seen = set()
    for image, moved in zip(images.numpy(), augmented.numpy(), strict=True):
        matches = [i for i, wanted in enumerate(list_flips_and_turns(image)) if np.array_equal(wanted, moved)]
        assert matches
        seen.add(matches[0])
    assert len(seen) == len(list_flips_and_turns(images[0].numpy())) == count or size == (1, 2)


def test_blits_shift_by_whole_pixels_over_a_mirrored_border() -> None:
    images = noise(300, 1, 16, 24).float()
    torch.manual_seed(0)
    augmented = ADA(["blit"], p=1.0)(images)

    # Exactly one flip or turn with one shift explains each result, and all shifts of up to 2 x 3 pixels occur.
    seen = set()
    for image, moved in zip(images.numpy(), augmented.numpy(), strict=True):
        fits = []
        for index, picture in enumerate(list_flips_and_turns(image)):
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
    shifted = geometry.warp(images, geometry.invert_shift(one, 2 * one))
    torch.testing.assert_close(shifted[0, 0, 2:, 1:], images[0, 0, :-2, :-1])


@pytest.mark.parametrize(("h", "w"), [(7, 7), (5, 8), (1, 3)])
def test_warp_by_loops(h: int, w: int) -> None:
    images = noise(4, 2, h, w)
    numbers = noise(6, 4, seed=1) * torch.tensor([[1.0], [1], [5], [1], [1], [5]])
    warped = geometry.warp(images, Affine(*numbers))

    def reflect(place: int, size: int) -> int:
        for _ in range(100):  # from mirror to mirror until it lies inside
            if place < 0:
                place = -place
            elif place >= size:
                place = 2 * (size - 1) - place
        return 0 if size == 1 else place

    for n, image in enumerate(images.numpy()):
        xx, xy, x0, yx, yy, y0 = numbers[:, n].tolist()
        for i, j in np.ndindex(h, w):
            # The place in the image that this pixel shows, and the four pixels around it with their weights.
            x = j - (w - 1) / 2
            y = i - (h - 1) / 2
            column = xx * x + xy * y + x0 + (w - 1) / 2
            row = yx * x + yy * y + y0 + (h - 1) / 2
            left = math.floor(column)
            top = math.floor(row)
            wanted = np.zeros(2)
            for a, b in itertools.product((top, top + 1), (left, left + 1)):
                weight = (1 - abs(row - a)) * (1 - abs(column - b))
                wanted += weight * image[:, reflect(a, h), reflect(b, w)]
            np.testing.assert_allclose(warped[n, :, i, j].numpy(), wanted, atol=1e-12)


class RecordedDraws(RandomDraws):
    """Draws that record what they returned."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.record: list[Tensor] = []

    def toss_coins(self, values: Tensor, p: Tensor | None = None) -> Tensor:
        self.record.append(super().toss_coins(values, p))
        return self.record[-1]


def matrix(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array([*rows, (0.0, 0.0, 1.0)])


def scale_by(x: float, y: float) -> np.ndarray:
    return matrix((x, 0, 0), (0, y, 0))


def turn_by(angle: float) -> np.ndarray:
    return matrix((math.cos(angle), math.sin(angle), 0), (-math.sin(angle), math.cos(angle), 0))


@pytest.mark.parametrize(("h", "w"), [(8, 8), (8, 16)])
def test_map_is_the_inverse_of_the_papers_transforms_in_order(h: int, w: int) -> None:
    """Forward matrices, the first transform innermost, inverted as a whole."""
    torch.manual_seed(0)
    draws = RecordedDraws(50, torch.tensor(0.8), torch.float64)
    drawn_map = geometry.draw_map(draws, ("blit", "geometry"), h, w)
    fields = [torch.as_tensor(field, dtype=torch.float64).expand(50) for field in drawn_map]
    for n in range(50):
        turns, flip, (tx, ty), size, stretch, before, after, (fx, fy) = (each[..., n].tolist() for each in draws.record)
        quarter = turns * (1 if h == w else 2) * math.pi / 2
        forward = [
            scale_by(1 - 2 * flip, 1),
            turn_by(quarter),
            matrix((1, 0, round(tx * w)), (0, 1, round(ty * h))),
            scale_by(2**size, 2**size),
            turn_by(before),
            scale_by(2**stretch, 2**-stretch),
            turn_by(after),
            matrix((1, 0, fx * w), (0, 1, fy * h)),
        ]
        product = np.eye(3)
        for step in forward:
            product = step @ product
        wanted = np.linalg.inv(product)[:2].flatten()
        np.testing.assert_allclose([field[n].item() for field in fields], wanted, atol=1e-9)


def test_rotations_stay_within_the_largest_angle() -> None:
    """A turn by at most 10 degrees, twice, leaves a line through the centre within 20 of where it was."""
    torch.manual_seed(0)
    draws = RecordedDraws(400, torch.tensor(1.0), torch.float64)
    geometry.draw_map(draws, ("geometry",), 8, 8, math.radians(10))
    _, _, before, after, _ = draws.record
    for angles in (before, after):
        assert 9 < math.degrees(angles.abs().max()) <= 10

    # By the whole augmentation: what is right of the centre stays there, which half a turn would move to the left.
    images = torch.zeros(64, 1, 33, 33)
    images[..., 14:19, 18:] = 1.0
    columns = torch.arange(33.0) - 16
    means = {
        angle: (ADA(["geometry"], p=1.0, largest_angle=angle)(images) * columns).sum((1, 2, 3))
        for angle in (10.0, 180.0)
    }
    assert (means[10.0] > 0).float().mean() > 0.9 > (means[180.0] > 0).float().mean() + 0.2
    for wrong in (-1.0, 181.0, math.nan):
        with pytest.raises(ValueError, match=r"^largest_angle must be in"):
            ADA(largest_angle=wrong)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_colour_is_the_papers_matrices(channels: int) -> None:
    """4x4 matrices on (r, g, b, 1), multiplied up; gray images take the mean row, as in the paper's code."""
    torch.manual_seed(0)
    draws = RecordedDraws(40, torch.tensor(0.8), torch.float64)
    images = noise(40, channels, 2, 3)
    recoloured = recolour(images, draws).numpy()

    v = np.ones(channels) / math.sqrt(channels)
    names = ["brightness", "contrast", "flip"] + ["hue"] * (channels == 3) + ["saturation"] * (channels > 1)
    for n, image in enumerate(images.numpy()):
        draw = dict(zip(names, (each[n].item() for each in draws.record), strict=True))
        linear = np.eye(channels)
        offset = np.full(channels, draw["brightness"])
        steps = [np.eye(channels) * 2 ** draw["contrast"], np.eye(channels) - 2 * draw["flip"] * np.outer(v, v)]
        if channels == 3:
            angle = draw["hue"]
            cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
            steps.append(np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross)
        if channels > 1:
            steps.append(np.outer(v, v) + (np.eye(channels) - np.outer(v, v)) * 2 ** draw["saturation"])
        for step in steps:
            linear = step @ linear
            offset = step @ offset
        wanted = np.einsum("ab,bhw->ahw", linear, image) + offset[:, None, None]
        np.testing.assert_allclose(recoloured[n], wanted, atol=1e-12)


def test_each_sample_has_a_coin_of_its_own_with_probability_p() -> None:
    torch.manual_seed(0)
    count = 40_000
    draws = RandomDraws(count, torch.tensor(0.3), torch.float64)
    normal = draws.draw_normal(0.2)
    uniform = draws.draw_uniform(2.0)
    integers = draws.draw_integers(4)

    for numbers in (normal, uniform):
        heads = numbers[numbers != 0]
        assert len(heads) / count == pytest.approx(0.3, abs=0.01)
    assert normal[normal != 0].std().item() == pytest.approx(0.2, rel=0.03)
    assert uniform.abs().max().item() == pytest.approx(2.0, abs=0.01)
    assert uniform[uniform != 0].mean().item() == pytest.approx(0.0, abs=0.06)
    shares = [(integers == k).double().mean().item() for k in range(4)]
    assert shares == pytest.approx([0.775, 0.075, 0.075, 0.075], abs=0.01)
    together = ((normal != 0) & (uniform != 0)).double().mean().item()
    assert together == pytest.approx(0.09, abs=0.01)


def test_sizes_of_the_draws_are_the_papers() -> None:
    """The deviations of the normal ones, and the limits of the uniform ones."""
    torch.manual_seed(0)
    draws = RecordedDraws(40_000, torch.tensor(1.0), torch.float64)
    geometry.draw_map(draws, ("blit", "geometry"), 8, 8)
    turn, flip, (tx, ty), size, stretch, before, after, (fx, fy) = draws.record
    draws.record = []
    recolour(torch.zeros(40_000, 3, 1, 1, dtype=torch.float64), draws)
    brightness, contrast, luma, hue, saturation = draws.record

    normals = (size, 0.2), (stretch, 0.2), (fx, 0.125), (fy, 0.125), (brightness, 0.2), (contrast, 0.5), (saturation, 1)
    for numbers, deviation in normals:
        assert numbers.std().item() == pytest.approx(deviation, rel=0.02)
        assert numbers.mean().item() == pytest.approx(0, abs=0.02 * deviation)
    for numbers, limit in ((tx, 0.125), (ty, 0.125), (before, math.pi), (after, math.pi), (hue, math.pi)):
        assert numbers.abs().max().item() == pytest.approx(limit, rel=1e-3) and numbers.abs().max() <= limit
        assert numbers.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    for numbers, count in ((turn, 4), (flip, 2), (luma, 2)):
        shares = torch.bincount(numbers.long()) / len(numbers)
        assert shares.tolist() == pytest.approx([1 / count] * count, abs=0.01)


def test_one_of_the_two_rotations_happens_with_probability_p() -> None:
    torch.manual_seed(0)
    draws = RecordedDraws(40_000, torch.tensor(0.4), torch.float64)
    geometry.draw_map(draws, ("geometry",), 8, 8)
    _, _, before, after, _ = draws.record
    assert ((before != 0) | (after != 0)).double().mean().item() == pytest.approx(0.4, abs=0.01)


def test_each_transform_tosses_as_many_coins_as_in_the_paper() -> None:
    """Karras et al. 2020, appendix B: each transform tosses one coin, a shift too.

    A draw of `count` integers, 0 among them, shows its coin with probability 1 - 1 / count; each of the two rotations
    has a coin of its own, with 1 - sqrt(1 - p).
    """
    torch.manual_seed(0)
    p = 0.5
    draws = RecordedDraws(40_000, torch.tensor(p), torch.float64)
    geometry.draw_map(draws, ("blit", "geometry"), 8, 8)
    recolour(torch.zeros(40_000, 3, 1, 1, dtype=torch.float64), draws)
    names = ["turn", "flip", "shift", "size", "stretch", "before", "after", "fraction"]
    names += ["brightness", "contrast", "luma", "hue", "saturation"]
    heads = {name: numbers != 0 for name, numbers in zip(names, draws.record, strict=True)}

    # Both axes of a shift move, or neither.
    for name in ("shift", "fraction"):
        assert torch.equal(*heads[name]), f"the {name} moves one axis alone"
        heads[name] = heads[name][0]

    # Each alone, and in pairs: the coins are independent.
    either = 1 - math.sqrt(1 - p)
    wanted = {"turn": p * 3 / 4, "flip": p / 2, "luma": p / 2, "before": either, "after": either}
    for name, samples in heads.items():
        assert samples.double().mean().item() == pytest.approx(wanted.get(name, p), abs=0.012), name
    for one, two in itertools.combinations(heads, 2):
        both = (heads[one] & heads[two]).double().mean().item()
        assert both == pytest.approx(wanted.get(one, p) * wanted.get(two, p), abs=0.012), (one, two)


def test_as_many_images_stay_as_in_the_paper() -> None:
    """Blits leave those unchanged that are neither flipped, nor turned, nor shifted.

    At 16x16 pixels a shift of U(-2, 2) pixels on each axis rounds to 0 with a probability of 1/4 each.
    """
    count = 8000
    p = 0.5
    images = noise(1, 1, 16, 16).float().expand(count, 1, 16, 16)
    torch.manual_seed(0)
    stay = (ADA(["blit"], p=p)(images) == images).flatten(1).all(1)
    wanted = (1 - p / 2) * (1 - p * 3 / 4) * (1 - p + p / 4 / 4)
    assert stay.double().mean().item() == pytest.approx(wanted, abs=0.01)


def test_ada_keeps_coordinates_under_autocast() -> None:
    """A coordinate in bfloat16 would be off by whole pixels at 256."""
    images = torch.rand(2, 1, 256, 256)
    ada = ADA(["blit", "geometry"], p=1.0)
    torch.manual_seed(0)
    wanted = ada(images)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        augmented = ada(images)
    torch.testing.assert_close(augmented, wanted)
