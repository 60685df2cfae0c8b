"""What all updates do with penalties and with what they report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pggan_kit import at_height
from pggan_kit.components import Critic, Loss, Penalty, Scores
from pggan_kit.steps import DiscriminatorCall


def add_penalties(
    terms: dict[str, Tensor],
    penalties: Sequence[Penalty],
    critic: Critic,
    images: tuple[Tensor, Tensor],
    scores: tuple[Scores, Scores],
    mix: Tensor,
) -> None:
    """Add each penalty's weighted term to `terms` under its class's name; two of one class share a term.

    Args:
        images, scores: of reals and of fakes, in this order.
    """
    for penalty in penalties:
        name = type(penalty).__name__
        weight: float = at_height(penalty.weight, images[0].shape[-2])
        weighted = weight * penalty.every * penalty(critic, *images, *scores, mix)
        terms[name] = terms[name] + weighted if name in terms else weighted


def scores_of_reals(D: DiscriminatorCall, loss: Loss, real: Tensor | None, labels: Tensor | None) -> Scores | None:
    """For G's part of a loss that needs them; G's gradient goes through the fakes alone."""
    if not loss.needs_real:
        return None
    assert real is not None
    with torch.no_grad():
        return D(real, labels)


def report(
    d_losses: Mapping[str, Tensor], g_losses: Mapping[str, Tensor], scores: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What an update returns: both networks' terms, and the mean scores `real` and `fake`, (N,) each.

    `Scores/real_sign`, the mean sign of the reals' scores, is what adaptive augmentation goes by.
    """
    return {
        **{f"Loss/discriminator/{name}": value for name, value in d_losses.items()},
        **{f"Loss/generator/{name}": value for name, value in g_losses.items()},
        "Scores/real": scores["real"].mean(),
        "Scores/fake": scores["fake"].mean(),
        "Scores/real_sign": scores["real"].sign().mean(),
    }
