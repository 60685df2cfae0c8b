"""Test that attributes are found, set and removed wherever an object keeps them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pggan_kit.training.attributes import open_attributes
from pggan_kit.training.parity import collect_settings
from pggan_kit.training.state_copy import PartsCopy


class Base:
    __slots__ = ("__own", "empty", "number")

    def __init__(self) -> None:
        self.__own = "private"
        self.number = 1


class Mixed(Base):
    """Slots of the class before it, and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = [1.0]


@dataclass(frozen=True)
class Frozen:
    __slots__ = ("tensor",)
    tensor: torch.Tensor


def test_attributes_are_those_of_slots_and_dict() -> None:
    mixed = Mixed()
    attributes = open_attributes(mixed)
    assert attributes is not None
    assert dict(attributes) == {"listed": [1.0], "_Base__own": "private", "number": 1}
    attributes["empty"] = 2
    del attributes["number"]
    assert mixed.empty == 2 and not hasattr(mixed, "number")
    assert "number" not in attributes and len(attributes) == 3
    with pytest.raises(KeyError):
        attributes["number"]

    plain = SimpleNamespace(number=1)
    assert open_attributes(plain) is vars(plain)
    assert open_attributes(1.0) is None


@pytest.mark.parametrize("part", [Mixed(), {"mixed": Mixed()}], ids=["itself", "held"])
def test_what_is_in_slots_is_a_setting_and_is_restored(part: Any) -> None:
    mixed = part["mixed"] if isinstance(part, dict) else part
    settings = collect_settings(part)
    copy = PartsCopy({"part": part})
    mixed.number = 5
    mixed.empty = "filled"
    mixed.listed.append(2.0)
    assert collect_settings(part) != settings
    copy.restore()
    assert collect_settings(part) == settings
    assert mixed.number == 1 and not hasattr(mixed, "empty") and mixed.listed == [1.0]


def test_what_is_frozen_and_what_is_random_is_restored() -> None:
    frozen = Frozen(torch.zeros(2))
    copy = PartsCopy({"frozen": frozen})
    frozen.tensor.fill_(3.0)
    drawn = random.random()
    copy.restore()
    assert frozen.tensor.tolist() == [0.0, 0.0]
    assert random.random() == drawn


def test_a_path_is_a_setting_by_its_text_whatever_it_has_computed_of_itself() -> None:
    part = SimpleNamespace(path=Path("folder") / "file")
    settings = collect_settings(part)
    assert hash(part.path) and str(part.path) and part.path.parts
    assert collect_settings(part) == settings != collect_settings(SimpleNamespace(path=Path("other")))
