"""Tests of the sum of losses: its terms, its penalties, and what its parts are given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.variants import train_once
from torch import Tensor

from pggan_kit import Scores, SettingError
from pggan_kit.testing import LossSuite
from pggan_kit.testing.support import draw_noise, make_labels
from pggan_plugins.losses import AuxiliaryClassifier, Hinge, NonSaturating, Relativistic, Sum
from pggan_plugins.penalties import R1, R2


def make_scores(seed: int) -> Scores:
    logits = draw_noise(6, 3, seed=seed + 10, dtype=torch.float64)
    return Scores(draw_noise(6, seed=seed, dtype=torch.float64), logits, make_labels(3, 6))


REAL = make_scores(0)
FAKE = make_scores(1)


def test_terms_are_those_of_the_parts_times_their_weights() -> None:
    loss = Sum([Hinge(), AuxiliaryClassifier(None, weight=2.0, generator_weight=0.5)], weights=[0.5, 3.0])
    cross_entropy = [-scores.class_logits.log_softmax(1)[range(6), scores.labels].mean() for scores in (REAL, FAKE)]  # type: ignore[union-attr]

    terms = loss.discriminator(REAL, FAKE)
    hinge = (1 - REAL.score).clamp(min=0).mean() + (1 + FAKE.score).clamp(min=0).mean()
    assert terms.keys() == {"hinge", "class"}
    torch.testing.assert_close(terms["hinge"], 0.5 * hinge)
    torch.testing.assert_close(terms["class"], 3 * 2 * cross_entropy[0])

    terms = loss.generator(FAKE, None)
    torch.testing.assert_close(terms["hinge"], -0.5 * FAKE.score.mean())
    torch.testing.assert_close(terms["class"], 3 * 0.5 * cross_entropy[1])


def test_terms_of_one_name_are_kept_apart() -> None:
    """Also where a part itself has a name that another would have got."""

    class Named(Hinge):
        def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
            return {"hinge_2": fake.score.mean()}

    terms = Sum([Hinge(), Named(), Hinge()], [1.0, 2.0, 4.0]).generator(FAKE, None)
    mean = FAKE.score.mean()
    assert list(terms) == ["hinge", "hinge_2", "hinge_3"]
    assert [float(value / mean) for value in terms.values()] == pytest.approx([-1.0, 2.0, -4.0])


def test_penalties_and_needs_are_those_of_all_parts() -> None:
    first = R1()
    second = R2()
    loss = Sum([Hinge([first]), NonSaturating([second])])
    assert loss.penalties == (first, second) and not loss.needs_real
    assert AuxiliaryClassifier(None).penalties == () and not AuxiliaryClassifier(None).needs_real

    class Jealous(Hinge):
        def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
            assert real is None, "it does not need them"
            return super().generator(fake, real)

    paired = Sum([Jealous(), Relativistic()])
    assert paired.needs_real
    assert paired.generator(FAKE, REAL).keys() == {"hinge", "relativistic"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"losses": []}, "losses must have at least one loss"),
        ({"losses": [Hinge()], "weights": [1.0, 2.0]}, "weights must have one number for each of the 1 losses"),
        ({"losses": [Hinge()], "weights": [-1.0]}, "weights must be at least 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        Sum(**arguments)


def test_in_a_config(train: Any) -> None:
    run = train(
        "train.loss = @losses.Sum()",
        "losses.Sum.losses = [@losses.Hinge(), @losses.NonSaturating()]",
        "losses.Sum.weights = [1.0, 0.5]",
        "losses.NonSaturating.penalties = [@penalties.R1()]",
    )
    stats = run.files.stats()[-1]
    assert {"Loss/discriminator/hinge", "Loss/discriminator/logistic", "Loss/discriminator/R1"} <= stats.keys()
    assert {"Loss/generator/hinge", "Loss/generator/logistic"} <= stats.keys()


class TestSum(LossSuite):
    def make(self) -> Sum:
        return Sum([Hinge(), NonSaturating([R1()])], [0.5, 2.0])


@train_once
class TestSumWithPairs(LossSuite):
    def make(self) -> Sum:
        return Sum([Relativistic(), Hinge()])
