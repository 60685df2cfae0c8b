"""The terms of a step: penalties added to the loss, and the values that an update reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pggan_kit import Critic, DiscriminatorCall, DuePenalty, Loss, Penalty, Scores, TensorBatch


def name_penalties(penalties: Sequence[Penalty]) -> list[str]:
    """Return the name of each penalty's term: its class's name, and `R1_2` for a second one of a class."""
    names: list[str] = []
    for index, penalty in enumerate(penalties):
        earlier = sum(type(each) is type(penalty) for each in penalties[:index])
        name = type(penalty).__name__
        if earlier:
            name = f"{name}_{earlier + 1}"
        names.append(name)
    return names


def add_penalties(
    terms: dict[str, Tensor],
    penalties: Sequence[Penalty],
    due: Sequence[DuePenalty],
    batch: TensorBatch,
    critic: Critic,
    images: tuple[Tensor, Tensor],
    scores: tuple[Scores, Scores],
    mix: Tensor,
) -> None:
    """Add the term of each penalty that is due to `terms`: `weight * every` times its value.

    Args:
        terms: The loss's terms; the penalties' are added in place.
        penalties: All penalties of the loss; their order decides the names.
        due: The penalties to add.
        batch: The batch that `terms` was given, which holds weights that move.
        critic: D, with its labels bound.
        images: Reals and fakes, (N, C, h, w) each.
        scores: The scores of reals and of fakes.
        mix: Numbers (N,), uniform in [0, 1).

    Raises:
        ValueError: A term of the loss itself with a penalty's name.
    """
    # A lazy penalty is added rarely, and weighs more to make up for it.
    names = name_penalties(penalties)
    for each in due:
        name = names[each.number]
        if name in terms:
            raise ValueError(f"the loss has a term {name}, which is the name of its penalty's term: rename one of them")
        terms[name] = each.weigh(each.penalty(critic, *images, *scores, mix), batch)


def unscale_penalties(terms: Mapping[str, Tensor], penalties: Sequence[Penalty]) -> dict[str, Tensor]:
    """Return the terms as they are logged: without the factor `every` of lazy penalties.

    That factor stands for the updates that leave a penalty out.
    """
    logged = dict(terms)
    for name, penalty in zip(name_penalties(penalties), penalties, strict=True):
        if name in logged and penalty.every > 1:
            logged[name] = logged[name] / penalty.every
    return logged


def score_reals(D: DiscriminatorCall, loss: Loss, real: Tensor | None, labels: Tensor | None) -> Scores | None:
    """Return the scores of reals for G's terms, without gradients; None where the loss does not need them."""
    if not loss.needs_real:
        return None
    assert real is not None
    with torch.no_grad():
        return D(real, labels)


def report_step(
    d_losses: Sequence[Mapping[str, Tensor]],
    g_losses: Mapping[str, Tensor],
    d_scores: Sequence[Mapping[str, Tensor]],
    penalties: Sequence[Penalty],
) -> dict[str, Tensor]:
    """Return the values that an update reports, by tag: both networks' terms, and D's mean scores.

    They are 0-dim; where D was updated several times, its values are (k,), with k the number of updates that computed
    them. `Scores/real_sign`, the mean sign of the reals' scores, drives adaptive augmentation.

    Args:
        d_losses: The terms of each of D's updates.
        g_losses: The terms of G's update.
        d_scores: The scores `real` and `fake`, (N,) each, of each of D's updates.
        penalties: All penalties of the loss.
    """
    values: dict[str, list[Tensor]] = {}
    for terms in d_losses:
        for name, value in unscale_penalties(terms, penalties).items():
            values.setdefault(f"Loss/discriminator/{name}", []).append(value)
    for name, value in g_losses.items():
        values[f"Loss/generator/{name}"] = [value]
    values["Scores/real"] = [scores["real"].mean() for scores in d_scores]
    values["Scores/fake"] = [scores["fake"].mean() for scores in d_scores]
    values["Scores/real_sign"] = [scores["real"].sign().mean() for scores in d_scores]

    # A single value stays 0-dim.
    report = {}
    for tag, several in values.items():
        report[tag] = several[0] if len(several) == 1 else torch.stack(several)
    return report
