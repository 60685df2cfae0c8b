"""Interpolate latents on spheres: between two of them, and along a smooth closed loop through several."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_ANGLE = 1e-4
"""Minimum angle in radians at which points of a sphere are interpolated along its arc, which else has no direction."""


def interpolate_directions(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    """Return the unit vectors at a share of the way from `a` to `b` along the great circle (Shoemake 1985).

    Args:
        a, b: Unit vectors (..., Z).
        share: Share of the way, 0-dim; below 0 and above 1 the circle goes on. Points that are opposite of each other,
            or equal, have no arc between them, and are interpolated along the line.
    """
    angle = (a * b).sum(-1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    has_arc = sine > SMALLEST_ANGLE
    divisor = torch.where(has_arc, sine, torch.ones_like(sine))
    on_arc = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / divisor
    return torch.where(has_arc, on_arc, torch.lerp(a, b, torch.as_tensor(share, dtype=a.dtype)))


def interpolate_latents(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return the latents (..., Z) at a share of the way from `a` to `b`, which keep the lengths of latents.

    Args:
        a, b: Latents (..., Z).
        share: Share of the way, in [0, 1].
    """
    lengths, directions = _split_latents(torch.stack([a, b]))
    length = torch.lerp(lengths[0], lengths[1], share)
    return length * interpolate_directions(directions[0], directions[1], share)


def interpolate_loop(keys: Tensor, place: float) -> Tensor:
    """Return the latents at a place of a smooth closed loop.

    The directions follow a Catmull-Rom spline of great circles, whose speed is continuous at the keys too (Schlag 1991,
    Using geometric constructions to interpolate orientation with quaternions). The lengths go from one key's to the
    next one's without overshooting, so that they stay those of latents.

    Args:
        keys: Latents (K, ..., Z), K >= 2.
        place: Place on the loop: k at the key k, and again at k + K.

    Returns:
        Latents (..., Z).
    """
    count = len(keys)
    lengths, directions = _split_latents(keys)
    start = int(place // 1)
    share = place - start
    before, here, there, after = (directions[(start + step) % count] for step in (-1, 0, 1, 2))

    # Circles through neighbouring keys, then through the points on them.
    first = interpolate_directions(before, here, share + 1)
    second = interpolate_directions(here, there, share)
    third = interpolate_directions(there, after, share - 1)
    earlier = interpolate_directions(first, second, (share + 1) / 2)
    later = interpolate_directions(second, third, share / 2)
    direction = interpolate_directions(earlier, later, share)

    eased = share * share * (3 - 2 * share)
    length = torch.lerp(lengths[start % count], lengths[(start + 1) % count], eased)
    return length * direction


def _split_latents(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lengths (..., 1) of latents (..., Z) and their directions (..., Z)."""
    lengths = latents.norm(dim=-1, keepdim=True)
    return lengths, latents / lengths.clamp_min(torch.finfo(latents.dtype).tiny)
