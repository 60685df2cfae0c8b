"""Test the settings in effect as text: nested components, defaults, scopes, and objects that no config describes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import STUB

from pggan_kit import Component
from pggan_kit.api.prepare import prepare
from pggan_plugins.losses import Hinge
from pggan_plugins.penalties import R1


class Knot:
    """An observer that keeps arbitrary arguments, and one that it was not given under its own name."""

    def __init__(self, value: Any = None, hidden: Any = None) -> None:
        self.value = value
        self.other = hidden
        self.itself = self
        self._state = object()


class Kept:
    """An observer whose only argument is kept, beside its state."""

    def __init__(self, value: Any = None) -> None:
        self._value = value
        self.ticks = [1, 2, 3]


def make_kept_twice(first: Any, value: Any = None) -> Kept:
    """A factory that is no class."""
    return Kept((first, value))


PLUGINS = [
    str(STUB),
    Component("observers", "Kept", Kept),
    Component("observers", "Partial", functools.partial(make_kept_twice, "first")),
]


def read_settings(config: str, place: str, value: Any = None) -> dict[str, str]:
    """Return the settings at a place, where an object may be given."""
    parts = {} if value is None else {place: value}
    return prepare(config, plugins=PLUGINS, parts=parts).built.settings[place]


def test_nested_components_and_defaults_are_listed_below_their_place(tiny: Callable[..., str]) -> None:
    config = tiny(
        "WEIGHT = 5",
        "losses.Hinge.penalties = [@a/penalties.R1(), @penalties.Drift()]",
        "a/penalties.R1.weight = %WEIGHT",
    )
    settings = prepare(config, plugins=PLUGINS).built.settings
    listed = settings["train.loss"]
    assert listed["train.loss"] == "@losses.Hinge()"
    assert listed["losses.Hinge.penalties"] == "[@a/penalties.R1(), @penalties.Drift()]"
    assert listed["a/penalties.R1.weight"] == "5" and listed["a/penalties.R1.every"] == "1", "bound, and a default"
    assert "penalties.Drift.weight" in listed
    assert settings["train.latent_size"] == {"train.latent_size": "8"}
    assert settings["train.image_resampling"] == {"train.image_resampling": "Area"}, "made for each experiment"
    assert settings["data.filter"] == {"data.filter": "'area'"} and "train.data" not in settings
    assert settings["train.generator_optimizer"]["g/optimizers.Adam.lr"] == "0.001"


def test_what_means_the_same_has_the_same_text(tiny: Callable[..., str]) -> None:
    texts = set()
    for value in ("{4: 1, 8: (2, 3)}", "{8: [2.0, 3], 4: 1.0}"):
        config = tiny("train.observers = [@observers.Kept()]", f"observers.Kept.value = {value}")
        texts.add(read_settings(config, "train.observers")["observers.Kept.value"])
    assert texts == {"{4: 1, 8: [2, 3]}"}
    assert read_settings(tiny("train.fade_reals = True"), "train.fade_reals") == {"train.fade_reals": "True"}


def test_factories_are_listed_with_what_they_made(tiny: Callable[..., str]) -> None:
    """Of a factory that is no class the object tells its settings, too."""
    config = tiny(
        "train.observers = [@observers.Partial(), @s/gin.singleton()]",
        "observers.Partial.value = @observers.Kept",
        "s/gin.singleton.constructor = @observers.Kept",
        "s/observers.Kept.value = 4",
    )
    assert read_settings(config, "train.observers") == {
        "train.observers": "[@observers.Partial(), @s/observers.Kept()]",
        "observers.Partial.value": "['first', @observers.Kept]",
        "s/observers.Kept.value": "4",
    }


def test_objects_tell_what_they_were_made_with_and_not_their_state(tiny: Callable[..., str]) -> None:
    assert read_settings(tiny(), "train.loss", Hinge([R1(2.0)])) == {
        "train.loss": "@losses.Hinge_object()",
        "losses.Hinge_object.penalties": "[R1]",
        "losses.Hinge_object.penalties.weight": "2",
        "losses.Hinge_object.penalties.every": "1",
    }
    assert read_settings(tiny(), "train.observers", [Kept(3)]) == {
        "train.observers": "[@observers.Kept_object()]",
        "observers.Kept_object.value": "3",
    }


def test_an_object_that_hides_an_argument_tells_all_that_is_public(tiny: Callable[..., str]) -> None:
    """A path, a function, a long list, an object that holds itself."""
    thing = Knot([Path("a"), len, list(range(1000))], hidden=7)
    listed = read_settings(tiny(), "train.observers", [thing])
    name = "observers.Knot_object"
    assert listed[f"{name}.value"].startswith("['a', len, [0, 1, 2, ") and len(listed[f"{name}.value"]) < 1100
    assert listed[f"{name}.other"] == "7" and listed[f"{name}.itself"] == "@observers.Knot_object()"
    assert not any("_state" in key for key in listed)
    other = Knot([Path("a"), len, [*range(999), 0]], hidden=7)
    again = read_settings(tiny(), "train.observers", [other])
    assert again[f"{name}.value"] != listed[f"{name}.value"], "the end of a long value counts, too"
