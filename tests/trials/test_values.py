"""The values that an evaluation gives, known before anything is trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pggan_kit import ConfigError, Quantity
from pggan_kit.schedule import ScheduleSettings
from pggan_kit.trials.values import list_values


class Needy:
    """A metric that needs a number of images."""

    def __init__(self, least: int) -> None:
        self.quantities = {"Needy": Quantity("lower")}
        self.least = least

    def describe(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def fingerprint(self) -> str:
        return "needy"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        if min(len(real), len(fake)) < self.least:
            raise ConfigError(f"needs {self.least} images, and has {len(fake)}: raise evaluation.count")
        return {"Needy": float(torch.cdist(real, fake).mean())}


def list_values_of(metric: Any, count: int) -> tuple[list[str], list[str]]:
    """Return the names of a metric's values where evaluations compare `count` images."""
    schedule = ScheduleSettings((4,), 0, 8, 4).resolve(dataset_length=8, image_channels=1, classes=0)
    experiment = SimpleNamespace(
        metrics=[metric],
        evaluation=SimpleNamespace(count=count),
        latent_size=4,
        find_architecture=lambda net: SimpleNamespace(conditional=False),
    )
    prepared: Any = SimpleNamespace(built=SimpleNamespace(experiment=experiment))
    return list_values(prepared, schedule, schedule.stages[-1])


@pytest.mark.parametrize("least", [1, 9, 100])
def test_a_metric_may_need_as_many_images_as_it_will_have(least: int) -> None:
    assert list_values_of(Needy(least), 100) == (["Needy"], [])


def test_a_metric_that_needs_more_than_it_will_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^needs 101 images, and has 100: raise evaluation\.count"):
        list_values_of(Needy(101), 100)
