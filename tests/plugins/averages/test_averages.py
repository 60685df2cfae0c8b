"""The shipped averages pass the conformance suite; their numbers are tested in tests/runs/test_average.py."""

from __future__ import annotations

import pytest

from pggan_kit.errors import SettingError
from pggan_kit.testing import AverageSuite
from pggan_plugins.averages import Copy, HalfLife, PerUpdate, PowerFunction


class TestHalfLife(AverageSuite):
    bad_arguments = ({"half_life": -1}, {"half_life": {4: 1, 8: -1}}, {"ramp_up": 0}, {"ramp_up": 2})

    def make(self) -> HalfLife:
        return HalfLife(half_life={4: 20, 8: 100}, ramp_up=0.5)


class TestPerUpdate(AverageSuite):
    bad_arguments = ({"decay": 1.0}, {"decay": {4: 0.5, 8: -0.1}})

    def make(self) -> PerUpdate:
        return PerUpdate(decay={4: 0.5, 8: 0.9})


class TestCopy(AverageSuite):
    bad_arguments = ({"name": ""}, {"name": "0.1"}, {"name": "a-b"}, {"name": "a.pt"}, {"name": "best"})

    def make(self) -> Copy:
        return Copy()


class TestPowerFunction(AverageSuite):
    bad_arguments = (
        {"widths": ()},
        {"widths": (0.1, 0.1)},
        {"widths": (0.1, 0.3)},
        {"widths": (1e-200,)},
        {"widths": (1e-12,)},
        {"widths": (0.05, 0.05000001)},
        {"snapshots": 0},
        {"snapshots": 1.5},
    )

    def make(self) -> PowerFunction:
        return PowerFunction(snapshots=4)


@pytest.mark.parametrize("widths", [(1e-200,), (1e-12, 0.1), (0.05, 0.05000001)])
def test_widths_that_have_no_average_or_no_name_of_their_own_name_their_setting(widths: tuple[float, ...]) -> None:
    with pytest.raises(SettingError, match=r"^widths must be "):
        PowerFunction(widths)
