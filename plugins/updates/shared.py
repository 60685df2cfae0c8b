"""What all updates do with penalties and with what they report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pggan_kit import Critic, DiscriminatorCall, Loss, Penalty, Scores, at_height


def name_penalties(penalties: Sequence[Penalty]) -> list[str]:
    """Return the name of each penalty's term: its class's; of a second of one class, `R1_2`."""
    names: list[str] = []
    for index, penalty in enumerate(penalties):
        earlier = sum(type(each) is type(penalty) for each in penalties[:index])
        name = type(penalty).__name__
        names.append(f"{name}_{earlier + 1}" if earlier else name)
    return names


def add_penalties(
    terms: dict[str, Tensor],
    penalties: Sequence[Penalty],
    due: Sequence[Penalty],
    critic: Critic,
    images: tuple[Tensor, Tensor],
    scores: tuple[Scores, Scores],
    mix: Tensor,
) -> None:
    """Add the term of each penalty that is due to `terms`: `weight * every` times its value.

    Args:
        terms: the loss's.
        penalties: all that the loss has: the names follow from their order.
        due: those to be added.
        images, scores: of reals and of fakes, in this order.

    Raises:
        ValueError: the loss itself has a term with a penalty's name.
    """
    named = [
        (name, penalty)
        for name, penalty in zip(name_penalties(penalties), penalties, strict=True)
        if any(penalty is each for each in due)
    ]
    assert len(named) == len(due), "no other penalties than the loss's are due"
    for name, penalty in named:
        if name in terms:
            raise ValueError(f"the loss has a term {name}, which is the name of its penalty's term: rename one of them")
        weight: float = at_height(penalty.weight, images[0].shape[-2])
        terms[name] = weight * penalty.every * penalty(critic, *images, *scores, mix)


def unscale_penalties(terms: Mapping[str, Tensor], penalties: Sequence[Penalty]) -> dict[str, Tensor]:
    """Return the terms as they are logged: those of lazy penalties without the factor `every`, which stands for the
    updates that leave them out."""
    logged = dict(terms)
    for name, penalty in zip(name_penalties(penalties), penalties, strict=True):
        if name in logged and penalty.every > 1:
            logged[name] = logged[name] / penalty.every
    return logged


def scores_of_reals(D: DiscriminatorCall, loss: Loss, real: Tensor | None, labels: Tensor | None) -> Scores | None:
    """For G's part of a loss that needs them; G's gradient goes through the fakes alone."""
    if not loss.needs_real:
        return None
    assert real is not None
    with torch.no_grad():
        return D(real, labels)


def report(
    d_losses: Sequence[Mapping[str, Tensor]],
    g_losses: Mapping[str, Tensor],
    scores: Sequence[Mapping[str, Tensor]],
    penalties: Sequence[Penalty],
) -> dict[str, Tensor]:
    """What an update returns: both networks' terms, and D's mean scores. Where D was updated several times, (k,) each:
    k is how often it was updated, of a lazy penalty how often that was computed.

    `Scores/real_sign`, the mean sign of the reals' scores, is what adaptive augmentation goes by.

    Args:
        d_losses: the terms of each of D's updates.
        g_losses: those of G's.
        scores: what D said in each of its updates: `real` and `fake`, (N,) each.
        penalties: all that the loss has.
    """
    seen: dict[str, list[Tensor]] = {}
    for terms in d_losses:
        for name, value in unscale_penalties(terms, penalties).items():
            seen.setdefault(f"Loss/discriminator/{name}", []).append(value)
    for name, value in g_losses.items():
        seen[f"Loss/generator/{name}"] = [value]
    seen["Scores/real"] = [said["real"].mean() for said in scores]
    seen["Scores/fake"] = [said["fake"].mean() for said in scores]
    seen["Scores/real_sign"] = [said["real"].sign().mean() for said in scores]
    return {tag: values[0] if len(values) == 1 else torch.stack(values) for tag, values in seen.items()}
