"""`datasets.StackedMNIST`: which digits its pictures show, and its labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pggan_kit.data.sampler import open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError
from pggan_kit.testing import DatasetSuite
from pggan_plugins.datasets import MNIST, StackedMNIST


class TestStackedMNIST(DatasetSuite):
    bad_arguments = ({"length": 0}, {"seed": -1}, {"split": "both"})

    def make(self, **options: Any) -> StackedMNIST:
        return StackedMNIST(**{"labels": True, **options})

    def make_others(self) -> list[StackedMNIST]:
        return [self.make(seed=1), self.make(length=3000), self.make(labels=False)]


@pytest.fixture(scope="module")
def digits() -> MNIST:
    return MNIST()


@pytest.fixture(scope="module")
def stacked() -> StackedMNIST:
    return StackedMNIST(length=3000, labels=True)


def test_its_channels_are_digits_that_the_label_names(digits: MNIST, stacked: StackedMNIST) -> None:
    numbers = {digits.image(i).tobytes(): digits.label(i) for i in range(len(digits))}
    for i in range(0, 3000, 100):
        image = stacked.image(i)
        assert image.shape == (28, 28, 3)
        shown = [numbers[np.ascontiguousarray(image[..., channel]).tobytes()] for channel in range(3)]
        assert stacked.label(i) == int("".join(map(str, shown)))


def test_modes_are_equally_likely_and_channels_independent(stacked: StackedMNIST) -> None:
    """By chi-squared tests with 9 and 81 degrees of freedom, whose bounds are the quantiles at 1 - 1e-4."""
    modes = np.array([stacked.label(i) for i in range(3000)])
    channels = np.stack([modes // 100, modes // 10 % 10, modes % 10])
    for channel in channels:
        counts = np.bincount(channel, minlength=10)
        assert ((counts - 300) ** 2 / 300).sum() < 33.7
    for first, second in ((0, 1), (0, 2), (1, 2)):
        table = np.bincount(10 * channels[first] + channels[second], minlength=100).reshape(10, 10)
        expected = np.outer(table.sum(1), table.sum(0)) / 3000
        assert ((table - expected) ** 2 / expected).sum() < 136.2


def test_a_picture_depends_on_seed_and_place_alone(stacked: StackedMNIST) -> None:
    """Neither the length nor what was read before changes it."""
    other = StackedMNIST(length=5)
    for i in (4, 1, 4):
        np.testing.assert_array_equal(other.image(i), stacked.image(i))
    assert (len(other), len(StackedMNIST())) == (5, 128_000)
    assert other.classes == 0 and other.label(4) == 0
    assert (StackedMNIST(seed=1, length=5).image(0) != stacked.image(0)).any()


def test_its_fingerprint_tells_what_differs(stacked: StackedMNIST) -> None:
    options: list[dict[str, Any]] = [{}, {"seed": 1}, {"length": 2999}, {"labels": False}]
    prints = [StackedMNIST(**{"length": 3000, "labels": True, **change}).fingerprint() for change in options]
    assert prints[0] == stacked.fingerprint() and len(set(prints)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, r"^length must be a whole number of at least 1, and is 0"),
        ({"length": 2.5}, r"^length must be a whole number"),
        ({"seed": -1}, r"^seed must be a whole number of at least 0, and is -1"),
        ({"split": "both"}, r"^split must be 'train'"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StackedMNIST(**options)


def test_a_missing_folder(tmp_path: Any) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere: name one with the MNIST files"):
        StackedMNIST(str(tmp_path / "nowhere"))


def test_resized_copies_keep_channels_and_labels(tmp_path: Any, stacked: StackedMNIST) -> None:
    few = StackedMNIST(length=7, labels=True)
    images, labels = open_data(few, DataSettings(cache=str(tmp_path)), [(28, 28), (7, 7)], 0).level((28, 28))
    assert labels is not None and labels.tolist() == [stacked.label(i) for i in range(7)]
    np.testing.assert_array_equal(images[6].transpose(1, 2, 0), stacked.image(6))


@pytest.mark.parametrize("labels", [True, False])
def test_a_run_measures_modes_with_and_without_labels(train: Callable[..., Any], labels: bool) -> None:
    """With labels, a generator may be asked for each of the 1,000 modes."""
    run = train(
        "schedule.sizes = (7, 14)",
        "train.dataset = @datasets.StackedMNIST()",
        "datasets.StackedMNIST.length = 40",
        f"datasets.StackedMNIST.labels = {labels}",
        "train.architecture = @architectures.PGGAN()",
        "architectures.PGGAN.channels = 8",
        f"architectures.PGGAN.conditioning = {'projection' if labels else 'none'!r}",
        "train.metrics = [@metrics.Modes()]",
        "metrics.Modes.features = @features.DigitClasses()",
        "evaluation.count = 20",
    )
    row = run.stats[-1]
    assert 1 <= row["Metrics/ModesCovered"] <= 20
    assert row["Metrics/ModeDivergence"] > 0
    assert run.state.stage.classes == (1000 if labels else 0)
