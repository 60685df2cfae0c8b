"""Loading plugins: order, origin, blocking; what counts as keeping a Protocol; how hooks are called."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pggan_kit import Component, hookimpl
from pggan_kit.components import KINDS
from pggan_kit.errors import PluginError
from pggan_kit.plugin_host.contracts import require_protocol
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.plugin_host.loading import Plugins, load


def test_the_projects_own_parts_come_in_through_entry_points_under_the_name_of_their_folder() -> None:
    plugins = load()
    for selector, row in plugins.rows.items():
        assert row.plugin.name == row.component.kind, selector
        assert row.component.factory.__module__.startswith(f"pggan_plugins.{row.component.kind}")
        assert getattr(__import__(f"pggan_plugins.{row.plugin.name}", fromlist=["x"]), row.component.name)
    assert all(plugin.origin.startswith("pggan_kit 0.") for plugin in plugins.loaded)


def test_all_shipped_kinds_are_known_and_documented() -> None:
    for row in load().rows.values():
        assert row.component.kind in KINDS
        assert row.component.factory.__doc__, row.selector


def test_a_file_is_recorded_with_its_absolute_path_and_sha256(stub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    monkeypatch.chdir(Path(stub).parent)
    plugin = load(["stub_plugin.py"]).loaded[-1]
    assert plugin.name == "stub_plugin.py"
    assert plugin.origin == str(Path(stub).resolve())
    assert plugin.sha256 == hashlib.sha256(Path(stub).read_bytes()).hexdigest()


def test_blocked_plugins_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGGAN_KIT_NO_PLUGINS", "losses")
    plugins = load(blocked=["switches"])
    assert sorted(plugin.key for plugin in plugins.blocked) == ["pggan_kit:losses", "pggan_kit:switches"]
    assert not any(selector.startswith(("losses.", "switches.")) for selector in plugins.rows)


def loss(**members: Any) -> Any:
    """An object that keeps the contract of a loss, but for what is replaced."""
    good = {
        "needs_real": False,
        "penalties": (),
        "discriminator": lambda self, real, fake: {},
        "generator": lambda self, fake, real: {},
    }
    return type("Mine", (), {**good, **members})()


@pytest.mark.parametrize(
    "member",
    [
        lambda self, real, fake: {},
        lambda self, *scores: {},
        lambda self, real, fake, more=1: {},
        staticmethod(lambda real, fake: {}),
        classmethod(lambda cls, real, fake: {}),
        torch.nn.Identity(),
        partial(lambda self, real, fake: {}, None),
    ],
)
def test_any_callable_that_takes_the_arguments_keeps_a_protocol(member: Any) -> None:
    require_protocol(loss(discriminator=member), "losses", "losses.Mine")


def test_a_method_set_on_the_instance_keeps_a_protocol() -> None:
    part = loss()
    part.discriminator = lambda real, fake: {}
    require_protocol(part, "losses", "losses.Mine")
    part.discriminator = lambda real: {}
    with pytest.raises(PluginError, match="must take real, fake"):
        require_protocol(part, "losses", "losses.Mine")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_refuses_what_has_none_of_its_methods(kind: str) -> None:
    if kind == "observers":  # hooks only
        return require_protocol(object(), kind, f"{kind}.Mine")
    with pytest.raises(PluginError, match=rf"^{kind}\.Mine is no {KINDS[kind].__name__}: it has no "):
        require_protocol(object(), kind, f"{kind}.Mine")


@pytest.mark.parametrize("selector", sorted(load().rows))
def test_every_shipped_class_keeps_its_protocol(selector: str) -> None:
    component = load().rows[selector].component
    if isinstance(component.factory, type):
        require_protocol(component.factory, component.kind, selector)


class Noting:
    """Notes what it hears."""

    def __init__(self, name: str, heard: list[str]) -> None:
        self.name, self.heard = name, heard

    @hookimpl
    def before_run(self) -> None:
        self.heard.append(self.name)


def hooks(things: dict[str, Any], parts: dict[str, Any] | None = None) -> Hooks:
    plugins = Plugins()
    for name, thing in things.items():
        plugins.add(type(load().loaded[0])(name, "test", thing))
    row = load().rows["switches.Hard"]
    return Hooks(plugins, {path: (row, part) for path, part in (parts or {}).items()})


def test_plugins_hear_in_load_order_and_then_parts_in_config_order() -> None:
    heard: list[str] = []
    plugins = {name: Noting(name, heard) for name in ("z", "a", "m")}
    parts = {path: Noting(path, heard) for path in ("train.switch", "train.loss", "train.loss.penalties.0")}
    hooks(plugins, parts).call("before_run", run=None)
    assert heard == ["z", "a", "m", "train.switch", "train.loss", "train.loss.penalties.0"]


def test_two_parts_that_are_equal_both_hear() -> None:
    heard: list[int] = []

    @dataclass
    class Equal:
        x: int = 0

        @hookimpl
        def before_run(self) -> None:
            heard.append(id(self))

    first, second = Equal(), Equal()
    hooks({}, {"train.observers.0": first, "train.observers.1": second}).call("before_run", run=None)
    assert heard == [id(first), id(second)]


def test_a_hook_gets_the_arguments_that_it_names_whatever_their_order_or_defaults() -> None:
    got: list[Any] = []

    class Picky:
        @hookimpl
        def after_step(self, losses: Any, images: int = 7, stage: Any = None) -> None:
            got.append((losses, images, stage))

        @hookimpl(specname="after_fade")
        def when_it_has_faded(self, state: Any) -> None:
            got.append(state)

    called = hooks({"picky": Picky()})
    called.call("after_step", run=1, stage=2, state=3, losses=4)
    called.call("after_fade", run=1, stage=2, state=3)
    assert got == [(4, 7, 2), 3]


def test_properties_of_a_plugin_are_not_run_when_it_is_registered() -> None:
    class Touchy(Noting):
        @property
        def device(self) -> str:
            raise RuntimeError("touched")

    heard: list[str] = []
    hooks({"touchy": Touchy("touchy", heard)}).call("before_run", run=None)
    assert heard == ["touchy"]


def test_parts_of_silent_kinds_hear_nothing() -> None:
    heard: list[str] = []
    row = load().rows["switches.Hard"]
    Hooks(Plugins(), {"train.switch": (row, Noting("switch", heard))}, silent=["switches"]).call("before_run", run=None)
    assert heard == []


def test_a_singleton_part_hears_once(tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pggan_kit.api import prepare as api

    heard: list[str] = []
    lines = [
        "train.observers = [@one/gin.singleton(), @one/gin.singleton()]",
        "one/gin.singleton.constructor = @observers.Noting",
    ]
    row = Component("observers", "Noting", lambda: Noting("one", heard))
    api.prepare(tiny(*lines), plugins=[stub, row]).hooks().call("before_run", run=None)
    assert heard == ["one"]
