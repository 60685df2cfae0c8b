"""Loading plugins: order, origin, blocking; what satisfies a Protocol; how hooks are called."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pggan_kit import Component, Position, Quantity, hookimpl
from pggan_kit.api.prepare import prepare
from pggan_kit.components import KINDS, VARIANTS
from pggan_kit.errors import ConfigError, PluginError
from pggan_kit.plugin_host import loading
from pggan_kit.plugin_host.contracts import require_protocol
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.plugin_host.loading import Plugin, Plugins, load_plugins
from pggan_kit.schedule import at_height


def test_shipped_components_come_through_entry_points_named_like_their_folders() -> None:
    plugins = load_plugins()
    for selector, row in plugins.rows.items():
        assert row.plugin.name == row.component.kind, selector
        # The average of every experiment that binds nothing stands in the core.
        if selector != "averages.HalfLife":
            assert row.component.factory.__module__.startswith(f"pggan_plugins.{row.component.kind}")
        assert getattr(__import__(f"pggan_plugins.{row.plugin.name}", fromlist=["x"]), row.component.name)
    assert all(plugin.origin.startswith("pggan_kit 0.") for plugin in plugins.loaded)


def test_all_shipped_kinds_are_known_and_documented() -> None:
    for row in load_plugins().rows.values():
        assert row.component.kind in KINDS
        assert row.component.factory.__doc__, row.selector


def test_a_file_is_recorded_with_its_absolute_path_and_sha256(stub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(stub).parent)
    plugin = load_plugins(["stub_plugin.py"]).loaded[-1]
    assert plugin.name == "stub_plugin.py"
    assert plugin.origin == str(Path(stub).resolve())
    assert plugin.sha256 == hashlib.sha256(Path(stub).read_bytes()).hexdigest()


def test_a_file_has_its_own_future_features_and_not_those_of_the_core(tmp_path: Path) -> None:
    path = tmp_path / "plain.py"
    path.write_text("from pggan_kit import hookimpl\ndef f(x: int): ...\n@hookimpl\ndef components(): return []\n")
    (plugin,) = [plugin for plugin in load_plugins([str(path)]).loaded if plugin.origin == str(path)]
    assert plugin.object.f.__annotations__ == {"x": int}


def test_blocked_plugins_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGGAN_KIT_NO_PLUGINS", "losses")
    plugins = load_plugins(blocked=["switches"])
    assert sorted(plugin.key for plugin in plugins.blocked) == ["pggan_kit:losses", "pggan_kit:switches"]
    assert not any(selector.startswith(("losses.", "switches.")) for selector in plugins.rows)


def make_loss(**members: Any) -> Any:
    """Return an object that satisfies the contract of a loss, except for the members that are replaced."""
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
def test_any_callable_that_takes_the_arguments_satisfies_a_protocol(member: Any) -> None:
    require_protocol(make_loss(discriminator=member), "losses", "losses.Mine")


def test_a_method_set_on_the_instance_satisfies_a_protocol() -> None:
    loss = make_loss()
    loss.discriminator = lambda real, fake: {}
    require_protocol(loss, "losses", "losses.Mine")
    loss.discriminator = lambda real: {}
    with pytest.raises(PluginError, match="must take real, fake"):
        require_protocol(loss, "losses", "losses.Mine")


def make_penalty(**members: Any) -> Any:
    """Return an object that satisfies the contracts of both kinds of penalty, except for what is replaced."""
    good = {"weight": 1.0, "every": 1, "needs_noise": False, "__call__": lambda self, *given: None}
    return type("Mine", (), {**good, **members})()


def make_with_all_methods(kind: str, **members: Any) -> Any:
    """Return an object with all methods that a kind, or the first of its variants, demands, and with these members."""
    protocol = KINDS[kind]
    demanding = [protocol, *VARIANTS.get(protocol, ())[:1]]
    methods = {name: lambda *given: None for each in demanding for name in vars(each) if callable(vars(each)[name])}
    methods = {name: method for name, method in methods.items() if not name.startswith("_") or name == "__len__"}
    return type("Mine", (), {**methods, **members})()


class Rises:
    """A curve."""

    def at(self, position: Position) -> float:
        return position.progress


WRONG_VALUES: list[tuple[str, str, Any, str]] = [
    *(("penalties", "every", value, "a whole number of at least 1") for value in (0, -1, 1.5, True, "a", None)),
    *(("penalties", "weight", value, "a number, a curve, or a dict") for value in (None, "x", {4: "x"}, True)),
    *(("losses", "penalties", value, "a list or tuple of penalties") for value in (None, iter(()), make_penalty())),
    *(("averages", "names", value, "a list or tuple of texts") for value in ("abc", None, [1], iter("a"))),
    *(("metrics", "quantities", value, "a dict of Quantity objects") for value in (None, ["d"], {"d": "lower"})),
    *(("metrics", "quantities", value, "a dict of Quantity objects") for value in ({1: Quantity("lower")},)),
    *(("datasets", "classes", value, "a whole number") for value in (None, 2.0, "10")),
]


@pytest.mark.parametrize(("kind", "name", "value", "wanted"), WRONG_VALUES)
def test_a_value_that_the_protocol_excludes_is_refused_by_name(kind: str, name: str, value: Any, wanted: str) -> None:
    """Some were silent: a generator of penalties is empty after its first reader, and 1.5 divides only 3, 6, ..."""
    makers = {"losses": make_loss, "penalties": make_penalty}
    make = makers.get(kind, partial(make_with_all_methods, kind))
    says = rf"^{kind}\.Mine is not a valid {KINDS[kind].__name__}: {name} must be {wanted}.*, not "
    with pytest.raises(PluginError, match=says):
        require_protocol(make(**{name: value}), kind, f"{kind}.Mine")


@pytest.mark.parametrize("kind", ["penalties", "generator_penalties"])
def test_penalties_may_have_whatever_their_settings_may_be(kind: str) -> None:
    for weight in (2, 0.5, np.float32(0.5), Rises(), {4: 1.0, 8: Rises()}):
        for every in (1, np.int64(16)):
            require_protocol(make_penalty(weight=weight, every=every), kind, f"{kind}.Mine")


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (make_loss(), r"penalties\[1\] \(Mine\) is not a valid Penalty: it has no __call__\(\)"),
        (make_penalty(every=0), r"penalties\[1\] \(Mine\) is not a valid Penalty: every must be a whole number"),
        (type(make_penalty()), r"penalties\[1\] is the class Mine: make an object of it, Mine\(\)"),
    ],
)
def test_each_penalty_of_a_loss_keeps_its_own_protocol(penalty: Any, message: str) -> None:
    loss = make_loss(penalties=[make_penalty(), penalty])
    with pytest.raises(PluginError, match=rf"^losses\.Mine\.{message}"):
        require_protocol(loss, "losses", "losses.Mine")


def test_a_config_whose_penalty_is_never_due_is_refused(tiny: Callable[..., str], stub: str) -> None:
    """The check is that of each component, made by gin or given as an object."""
    with pytest.raises(PluginError, match=r"^penalties\.Mine is not a valid Penalty: every must be a whole number"):
        prepare(
            tiny("losses.Hinge.penalties = [@penalties.Mine()]"),
            plugins=[stub, Component("penalties", "Mine", lambda: make_penalty(every=1.5))],
        )
    with pytest.raises(PluginError, match=r"^losses\.Mine_object is not a valid Loss: penalties must be a list"):
        prepare(tiny(), plugins=[stub], parts={"train.loss": make_loss(penalties=iter(()))})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_refuses_what_has_none_of_its_methods(kind: str) -> None:
    if kind == "observers":  # hooks only
        require_protocol(object(), kind, f"{kind}.Mine")
        return
    with pytest.raises(PluginError, match=rf"^{kind}\.Mine is not a valid {KINDS[kind].__name__}: it has no "):
        require_protocol(object(), kind, f"{kind}.Mine")


@pytest.mark.parametrize("selector", sorted(load_plugins().rows))
def test_every_shipped_class_satisfies_its_protocol(selector: str) -> None:
    component = load_plugins().rows[selector].component
    if isinstance(component.factory, type):
        require_protocol(component.factory, component.kind, selector)


def test_a_class_is_checked_again_until_it_is_valid_and_for_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def check(thing: Any, kind: str, selector: str) -> None:
        checked.append(selector)
        require_protocol(thing, kind, selector)

    monkeypatch.setattr(loading, "require_protocol", check)
    mine = type(make_loss(discriminator=None))
    rows = [Component("losses", "Mine", mine)]
    for _ in range(2):
        with pytest.raises(PluginError, match=r"losses\.Mine is not a valid Loss: it has no discriminator"):
            load_plugins(rows)
    mine.discriminator = lambda self, real, fake: {}  # type: ignore[attr-defined]
    for _ in range(2):
        load_plugins(rows)
    assert checked.count("losses.Mine") == 3
    with pytest.raises(PluginError, match=r"switches\.Mine is not a valid Switch"):
        load_plugins([Component("switches", "Mine", mine)])


class Caller:
    """A plugin or component that writes its name down when it is called."""

    def __init__(self, name: str, called: list[str]) -> None:
        self.name = name
        self.called = called

    @hookimpl
    def before_run(self) -> None:
        self.called.append(self.name)


def make_hooks(things: dict[str, Any], components: dict[str, Any] | None = None) -> Hooks:
    """Return the hooks of plugins, by name, and of components, by path."""
    plugins = Plugins()
    for name, thing in things.items():
        plugins.add(Plugin(name, "test", thing))
    row = load_plugins().rows["switches.Hard"]
    return Hooks(plugins, {path: (row, component) for path, component in (components or {}).items()})


def test_plugins_are_called_in_load_order_and_then_components_in_config_order() -> None:
    called: list[str] = []
    plugins = {name: Caller(name, called) for name in ("z", "a", "m")}
    components = {path: Caller(path, called) for path in ("train.switch", "train.loss", "train.loss.penalties.0")}
    make_hooks(plugins, components).call("before_run", run=None)
    assert called == ["z", "a", "m", "train.switch", "train.loss", "train.loss.penalties.0"]


def test_two_equal_components_are_both_called() -> None:
    called: list[int] = []

    @dataclass
    class Equal:
        x: int = 0

        @hookimpl
        def before_run(self) -> None:
            called.append(id(self))

    first, second = Equal(), Equal()
    make_hooks({}, {"train.observers.0": first, "train.observers.1": second}).call("before_run", run=None)
    assert called == [id(first), id(second)]


def test_a_hook_gets_the_arguments_that_it_names_whatever_their_order_or_defaults() -> None:
    got: list[Any] = []

    class Picky:
        @hookimpl
        def after_step(self, losses: Any, images: int = 7, stage: Any = None) -> None:
            got.append((losses, images, stage))

        @hookimpl(specname="after_fade")
        def when_it_has_faded(self, state: Any) -> None:
            got.append(state)

    hooks = make_hooks({"picky": Picky()})
    hooks.call("after_step", run=1, stage=2, state=3, losses=4)
    hooks.call("after_fade", run=1, stage=2, state=3)
    assert got == [(4, 7, 2), 3]


def test_properties_of_a_plugin_are_not_run_when_it_is_registered() -> None:
    class Touchy(Caller):
        @property
        def device(self) -> str:
            raise RuntimeError("touched")

    called: list[str] = []
    make_hooks({"touchy": Touchy("touchy", called)}).call("before_run", run=None)
    assert called == ["touchy"]


def test_a_setting_that_does_not_fit_the_run_is_no_failure_of_a_hook() -> None:
    """Such as one without a value for a stage, in a component that was made in Python."""

    class Plateau:
        @hookimpl
        def before_run(self) -> None:
            at_height({8: 4}, 4, "least")

    with pytest.raises(ConfigError, match=r"^train\.switch: least has no value for height 4"):
        make_hooks({}, {"train.switch": Plateau()}).call("before_run", run=None)


def test_components_of_silent_kinds_are_not_called() -> None:
    called: list[str] = []
    row = load_plugins().rows["switches.Hard"]
    Hooks(Plugins(), {"train.switch": (row, Caller("switch", called))}, silent=["switches"]).call(
        "before_run", run=None
    )
    assert called == []


def test_a_shared_component_is_called_once(
    tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    lines = [
        "train.observers = [@one/gin.singleton(), @one/gin.singleton()]",
        "one/gin.singleton.constructor = @observers.Caller",
    ]
    row = Component("observers", "Caller", lambda: Caller("one", called))
    prepare(tiny(*lines), plugins=[stub, row]).hooks().call("before_run", run=None)
    assert called == ["one"]


class Leaves:
    @hookimpl
    def importers(self) -> list[Any]:
        raise SystemExit(0)


def test_importers_that_exit_are_reported() -> None:
    with pytest.raises(PluginError, match=r"importers\(\) raised SystemExit\(0\)"):
        load_plugins([Leaves()]).list_importers()
