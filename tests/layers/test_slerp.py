"""Interpolation on spheres, against formulas and properties in float64."""

from __future__ import annotations

import math

import torch

from pggan_kit.layers.slerp import interpolate_directions, interpolate_latents, interpolate_loop


def test_a_great_circle_has_constant_speed() -> None:
    """In the plane of both vectors, the angle from the first grows in proportion; beyond them too."""
    a = torch.tensor([1.0, 0.0, 0.0]).double()
    b = torch.tensor([math.cos(1.2), 0.0, math.sin(1.2)]).double()
    for share in (-0.5, 0.0, 0.25, 1.0, 1.5):
        wanted = torch.tensor([math.cos(1.2 * share), 0.0, math.sin(1.2 * share)]).double()
        torch.testing.assert_close(interpolate_directions(a, b, share), wanted)


def test_equal_and_opposite_points_stay_finite() -> None:
    a = torch.tensor([0.6, 0.8]).double()
    torch.testing.assert_close(interpolate_directions(a, a, 0.3), a)
    torch.testing.assert_close(interpolate_directions(a, -a, 0.25), 0.5 * a)


def test_a_loop_goes_through_its_keys_smoothly_and_closes() -> None:
    keys = torch.randn(5, 3, 16, generator=torch.Generator().manual_seed(0)).double()
    for place in range(5):
        torch.testing.assert_close(interpolate_loop(keys, float(place)), keys[place])
    torch.testing.assert_close(interpolate_loop(keys, 5.0), keys[0])
    torch.testing.assert_close(interpolate_loop(keys, -0.25), interpolate_loop(keys, 4.75))

    # The speed before each key is that after it, in direction and size, and is not zero.
    step = 1e-5
    for place in range(5):
        before = (interpolate_loop(keys, float(place)) - interpolate_loop(keys, place - step)) / step
        after = (interpolate_loop(keys, place + step) - interpolate_loop(keys, float(place))) / step
        torch.testing.assert_close(before, after, rtol=0, atol=1e-2)
        assert before.norm(dim=-1).min() > 0.1


def test_lengths_stay_between_those_of_the_keys() -> None:
    """On the line between two latents, lengths fall to 1 / sqrt 2 of theirs, where the generator was not trained."""
    keys = torch.randn(4, 64, generator=torch.Generator().manual_seed(1)).double()
    for place in torch.linspace(0, 4, 41).tolist():
        start = int(place) % 4
        low, high = sorted((float(keys[start].norm()), float(keys[(start + 1) % 4].norm())))
        length = float(interpolate_loop(keys, place).norm())
        assert low - 1e-6 <= length <= high + 1e-6


def test_the_way_between_two_latents_turns_evenly_and_keeps_their_lengths() -> None:
    """The angle and the length go from those of one latent to those of the other in proportion."""
    a = torch.tensor([2.0, 0.0, 0.0]).double()
    b = 4 * torch.tensor([math.cos(1.2), 0.0, math.sin(1.2)]).double()
    for share in (0.0, 0.25, 1.0):
        wanted = (2 + 2 * share) * torch.tensor([math.cos(1.2 * share), 0.0, math.sin(1.2 * share)]).double()
        torch.testing.assert_close(interpolate_latents(a, b, share), wanted)
