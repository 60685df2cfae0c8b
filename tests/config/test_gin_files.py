"""The meaning of a gin file: scopes, macros, singletons, blocks, order; the archived and the operative text."""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import gin
import pytest
from conftest import TINY

from pggan_kit import Component
from pggan_kit.config.arguments import check_arguments, fits_annotation, read_annotations
from pggan_kit.config.builder import Built, build_from_config, list_bindings
from pggan_kit.config.gin_files import parse_text, read_config
from pggan_kit.errors import ConfigError
from pggan_kit.plugin_host.loading import Plugins, load_plugins
from pggan_kit.schedule import at_height

Build = Callable[..., Built]


class Keeper:
    """A component that keeps its arguments."""

    def __init__(self, x: Any = 0, inner: Any = ()) -> None:
        self.x = x
        self.inner = inner


@pytest.fixture(scope="module")
def plugins(stub: str) -> Plugins:
    return load_plugins([stub, Component("observers", "Keeper", Keeper), Component("observers", "Holder", Keeper)])


@pytest.fixture
def build(tiny: Callable[..., str], plugins: Plugins) -> Build:
    """Return a function that builds the tiny experiment with more lines, and overrides."""
    return lambda *lines, overrides=(): build_from_config(read_config(tiny(*lines), overrides), plugins)


def list_observers(built: Built) -> list[Any]:
    return list(built.experiment.observers)


def test_a_scoped_binding_wins_in_its_scope_and_only_there(build: Build) -> None:
    built = build("optimizers.Adam.lr = 0.5", "optimizers.Adam.beta1 = 0.25", "d/optimizers.Adam.lr = 0.75")
    generator = built.experiment.generator_optimizer
    discriminator = built.experiment.discriminator_optimizer
    assert (generator.lr, generator.beta1) == (0.5, 0.25)
    assert (discriminator.lr, discriminator.beta1) == (0.75, 0.25)


def test_an_outer_scope_applies_within_inner_ones_and_references_inherit_it(build: Build) -> None:
    built = build(
        "train.observers = [@a/b/observers.Keeper(), @c/observers.Keeper()]",
        "a/b/observers.Keeper.inner = [@observers.Holder(), @c/observers.Holder()]",
        "a/observers.Keeper.x = 1",
        "a/observers.Holder.x = 2",
        "c/observers.Holder.x = 3",
    )
    outer, other = list_observers(built)
    assert (outer.x, other.x) == (1, 0)
    assert [component.x for component in outer.inner] == [2, 3]


def test_macros_may_be_defined_after_their_use_and_inside_lists_and_dicts(build: Build) -> None:
    built = build(
        "train.observers = [@observers.Keeper()]",
        "observers.Keeper.x = {'a': [%LATER, (%LATER, 2)]}",
        "train.seed = %LATER",
        "LATER = %EVEN_LATER",
        "EVEN_LATER = 7",
    )
    assert built.experiment.seed == 7
    assert list_observers(built)[0].x == {"a": [7, (7, 2)]}


def test_the_main_file_overrides_a_macro_of_an_included_one(tiny: Callable[..., str], plugins: Plugins) -> None:
    tiny()
    Path("folder").mkdir()
    Path("folder/base.gin").write_text(TINY + "include 'seeds.gin'\ntrain.seed = %SEED\n")
    Path("folder/seeds.gin").write_text("SEED = 1\n")
    for text, overrides, seed in (
        ("include 'folder/base.gin'\n", (), 1),
        ("include 'folder/base.gin'\nSEED = 2\n", (), 2),
        ("include 'folder/base.gin'\nSEED = 2\n", ["SEED = 3"], 3),
        ("include 'folder/base.gin'\nSEED = 2\n", ["train.seed = 4", "train.seed = 5"], 5),
    ):
        Path("main.gin").write_text(text)
        built = build_from_config(read_config("main.gin", overrides), plugins)
        assert built.experiment.seed == seed


def test_bindings_that_an_override_displaces_are_idle_and_not_archived(
    tiny: Callable[..., str], plugins: Plugins
) -> None:
    file = tiny("losses.Hinge.penalties = [@penalties.R1()]", "penalties.R1.weight = 2.0")
    built = build_from_config(read_config(file, ["train.loss = @losses.NonSaturating()"]), plugins)
    assert [binding.name for binding in built.idle] == ["losses.Hinge.penalties", "penalties.R1.weight"]
    Path("archived.gin").write_text(built.config.text())
    again = build_from_config(read_config("archived.gin"), plugins)
    assert again.operative == built.operative and not again.idle
    with pytest.raises(ConfigError, match=r"^-b 'penalties.R1.weight = 3.0': nothing"):
        build_from_config(
            read_config(file, ["train.loss = @losses.NonSaturating()", "penalties.R1.weight = 3.0"]), plugins
        )


TAKEN_BACK = (
    "main.gin:1: train.seed = 2 has no effect, because main.gin:2 includes base.gin:17, which binds it again; move the "
    "include above it"
)


def test_a_binding_that_a_later_include_takes_back_is_idle_with_a_warning(
    tiny: Callable[..., str], cli: Callable[..., Any], plugins: Plugins, stub: str
) -> None:
    tiny()
    Path("base.gin").write_text(TINY + "train.seed = 1\n")
    Path("main.gin").write_text("train.seed = 2\ninclude 'base.gin'\n")
    config = read_config("main.gin")
    built = build_from_config(config, plugins)
    assert built.experiment.seed == 1
    assert [(binding.text(), str(binding.place)) for binding in built.idle] == [("train.seed = 2", "main.gin:1")]
    assert config.warnings == (TAKEN_BACK,)

    checked = cli("config", "check", "main.gin", "--plugin", stub)
    assert "idle: train.seed = 2  (main.gin:1)" in checked.stdout and TAKEN_BACK in checked.stderr
    trained = cli("train", "main.gin", "--plugin", stub, "--run-dir", "run", "-b", "schedule.sizes = (4,)")
    assert trained.exit_code == 0 and TAKEN_BACK in trained.stderr and TAKEN_BACK in Path("run/log.txt").read_text()


def test_an_included_file_that_a_later_one_takes_back_is_idle_without_a_warning(
    tiny: Callable[..., str], plugins: Plugins
) -> None:
    """Files are layered on purpose, and two of them may include a third."""
    tiny()
    Path("base.gin").write_text(TINY)
    Path("seed.gin").write_text("include 'base.gin'\ntrain.seed = 1\ntrain.latent_size = 4\n")
    Path("small.gin").write_text("include 'base.gin'\ntrain.seed = 2\n")
    Path("main.gin").write_text("include 'seed.gin'\ninclude 'small.gin'\n")
    config = read_config("main.gin")
    built = build_from_config(config, plugins)
    assert (built.experiment.seed, built.experiment.latent_size) == (2, 8)
    assert [binding.text() for binding in built.idle] == ["train.latent_size = 4", "train.seed = 1"]
    assert config.warnings == ()


def test_the_last_override_wins_and_keeps_its_place_for_errors(tiny: Callable[..., str]) -> None:
    config = read_config(tiny("train.seed = 1"), ["train.seed = 2", "train.seed = 3"])
    lines = [line for line in list_bindings(config) if line.startswith("train.seed")]
    assert lines == ["train.seed = 3    # -b 'train.seed = 3'"]
    with pytest.raises(ConfigError, match=r"': train\.seed is bound twice; remove one of the two bindings$"):
        read_config("tiny.gin", ["train.seed = 2\ntrain.seed = 3"])


PER_STAGE = ("BATCH = {4: 4, 16: 2, 32: 1}", "schedule.batch_size = %BATCH", "train.micro_batch = {4: 4, 16: 2}")


def test_keys_for_other_sizes_than_those_of_an_override_are_idle_and_not_archived(
    tiny: Callable[..., str], plugins: Plugins
) -> None:
    file = tiny(*PER_STAGE)
    built = build_from_config(read_config(file, ["schedule.sizes = (4, 8)"]), plugins)
    idle = [f"{binding.text()} ({binding.place})" for binding in built.idle]
    assert idle == ["schedule.batch_size = {16: 2, 32: 1} (tiny.gin:17)", "train.micro_batch = {16: 2} (tiny.gin:19)"]
    assert built.experiment.schedule.batch_size == {4: 4}
    again = build_from_config(parse_text(built.config.text(), "config.gin"), plugins)
    assert again.operative == built.operative and not again.idle


def test_keys_for_other_sizes_than_those_of_another_file_are_idle(tiny: Callable[..., str], plugins: Plugins) -> None:
    tiny(*PER_STAGE, name="base.gin")
    Path("small.gin").write_text("include 'base.gin'\nschedule.sizes = (4, 8)\n")
    Path("batch.gin").write_text("include 'base.gin'\nschedule.batch_size = {4: 4, 32: 1}\n")
    built = build_from_config(read_config("small.gin"), plugins)
    assert [binding.name for binding in built.idle] == ["schedule.batch_size", "train.micro_batch"]
    built = build_from_config(read_config("batch.gin"), plugins)
    assert [f"{binding.text()} ({binding.place})" for binding in built.idle] == [
        "BATCH = {4: 4, 16: 2, 32: 1} (base.gin:17)",
        "schedule.batch_size = {32: 1} (batch.gin:2)",
    ]


@pytest.mark.parametrize(
    ("lines", "override"),
    [
        (["A = %A", "train.seed = %A"], "A = 1"),
        (["train.loss = @losses.Hing()"], "train.loss = @losses.Hinge()"),
    ],
)
def test_a_fault_that_an_override_mends_hides_no_other_one(lines: list[str], override: str, build: Build) -> None:
    """Whether the files alone use a binding cannot be said where they are wrong."""
    with pytest.raises(ConfigError, match=r"nothing in this experiment uses penalties\.R1\.weight"):
        build(*lines, "penalties.R1.weight = 3.0", overrides=[override])


def test_a_singleton_is_one_instance_and_one_component(build: Build) -> None:
    shared = "@one/gin.singleton()"
    built = build(
        f"train.observers = [{shared}, {shared}, @observers.Keeper(), @observers.Keeper()]",
        "one/gin.singleton.constructor = @observers.Keeper",
    )
    first, again, other, another = list_observers(built)
    assert first is again
    assert len({id(first), id(other), id(another)}) == 3
    assert [path for path in built.components if path.startswith("train.observers")] == [
        "train.observers.0",
        "train.observers.2",
        "train.observers.3",
    ]


def test_a_macro_of_a_component_makes_an_instance_at_each_use_in_a_scope_of_its_name(build: Build) -> None:
    built = build(
        "KEEPER = @observers.Keeper()", "train.observers = [%KEEPER, %KEEPER]", "KEEPER/observers.Keeper.x = 5"
    )
    first, second = list_observers(built)
    assert first is not second
    assert (first.x, second.x) == (5, 5)


def test_a_block_binds_each_of_its_lines(build: Build) -> None:
    built = build("d/optimizers.Adam:", "    lr = 0.5  # half", "", "    beta1 = 0.25", "train.seed = 4")
    assert built.experiment.discriminator_optimizer.lr == 0.5
    assert built.experiment.discriminator_optimizer.beta1 == 0.25
    assert built.experiment.seed == 4


def test_per_stage_dicts_keep_their_keys(build: Build) -> None:
    built = build("train.micro_batch = {4: 2, 16: 4}")
    assert [at_height(built.experiment.micro_batch, height) for height in (4, 8, 16)] == [2, 2, 4]


def test_nested_components_are_named_by_their_path_in_config_order(build: Build) -> None:
    built = build(
        "train.observers = [@observers.Keeper(), @a/observers.Keeper()]",
        "a/observers.Keeper.inner = {'p': [@b/observers.Keeper()], 'q': @c/observers.Keeper()}",
        "losses.Hinge.penalties = [@penalties.R1(), @penalties.Drift()]",
    )
    assert list(built.components) == [
        "train.architecture",
        "train.resampling",
        "train.loss",
        "train.loss.penalties.0",
        "train.loss.penalties.1",
        "train.update",
        "train.switch",
        "train.dataset",
        "train.generator_optimizer",
        "train.discriminator_optimizer",
        "train.observers.0",
        "train.observers.1",
        "train.observers.1.inner.p.0",
        "train.observers.1.inner.q",
    ]
    assert built.components["train.observers.1.inner.q"][1] is list_observers(built)[1].inner["q"]


def test_the_defaults_of_a_component_can_be_reached_and_overridden(build: Build) -> None:
    built = build("train.loss = @losses.WGANGP()", "penalties.GradientPenalty.weight = 3.0")
    assert [type(p).__name__ for p in built.experiment.loss.penalties] == ["GradientPenalty", "Drift"]
    assert built.experiment.loss.penalties[0].weight == 3.0
    built = build("train.loss = @losses.WGANGP()", "losses.WGANGP.penalties = [@penalties.R1()]")
    assert [type(p).__name__ for p in built.experiment.loss.penalties] == ["R1"]


def test_two_builds_in_one_process_share_nothing(build: Build) -> None:
    first = build(
        "train.observers = [@observers.Keeper()]", "observers.Keeper.x = [1]", "SEED = 5", "train.seed = %SEED"
    )
    second = build("train.observers = [@observers.Keeper()]")
    assert list_observers(first)[0].x == [1] and first.experiment.seed == 5
    assert list_observers(second)[0].x == 0 and second.experiment.seed == 0
    list_observers(first)[0].x.append(2)
    third = build("train.observers = [@observers.Keeper()]", "observers.Keeper.x = [1]")
    assert list_observers(third)[0].x == [1]


def test_a_failed_build_leaves_nothing_for_the_next(build: Build) -> None:
    with pytest.raises(ConfigError):
        build("optimizers.Adam.lr = -1", "train.seed = 5")
    assert build().experiment.seed == 0


def list_settings(built: Built) -> dict[str, Any]:
    """Return the settings of an experiment, and the selectors of its components."""
    experiment = built.experiment
    plain = {name: value for name, value in vars(experiment).items() if isinstance(value, (int, float, str, dict))}
    selectors = {path: row.selector for path, (row, _) in built.components.items()}
    return {**plain, "schedule": experiment.schedule, "data": experiment.data, "components": selectors}


SHOWY = [
    "SIZES = ((4, 6), (8, 12))",
    "schedule.sizes = %SIZES",
    "schedule.fade_images = '2 steps'",
    "train.loss = @losses.WGANGP()",
    "penalties.Drift.weight = 1e-7",
    "train.averages = [@averages.PerUpdate()]",
    "averages.PerUpdate.decay = {4: 0.5, 8: 0.75}",
    "d/optimizers.Adam.lr = {4: 1e-3}",
    "train.observers = [@observers.Keeper(), @one/gin.singleton()]",
    "one/gin.singleton.constructor = @two/observers.Keeper",
    "two/observers.Keeper.x = ['it\\'s', \"a \\\"text\\\"\", 'two\\nlines', True, None, -0.5, 10_000, {1: (2,)}]",
    "data.filter = 'nearest'",
]


def test_a_class_that_gin_knows_besides_is_a_component_like_others(tiny: Callable[..., str], stub: str) -> None:
    @gin.configurable
    class KnownToGin:
        def __init__(self, x: int = 1) -> None:
            self.x = x

    config = tiny("train.observers = [@observers.Known()]", "observers.Known.x = 3")
    plugins = load_plugins([stub, Component("observers", "Known", KnownToGin)])
    built = build_from_config(read_config(config), plugins)
    assert list_observers(built)[0].x == 3
    assert "observers.Known.x = 3" in built.operative and "KnownToGin" not in built.operative


def test_the_archived_text_gives_the_same_experiment(build: Build, plugins: Plugins) -> None:
    built = build(*SHOWY)
    text = built.config.text()
    again = build_from_config(parse_text(text, "config.gin"), plugins)
    assert list_settings(again) == list_settings(built)
    assert again.operative == built.operative
    assert list_observers(again)[1].x == list_observers(built)[1].x
    assert parse_text(text, "config.gin").text() == text


def test_the_operative_text_holds_defaults_and_is_a_config_itself(build: Build, plugins: Plugins) -> None:
    built = build(*SHOWY)
    assert "train.tick = 8" in built.operative  # bound
    assert "train.latent_size = 8" in built.operative
    assert "train.compile = 'never'" in built.operative  # a default
    assert "g/optimizers.Adam.beta2 = 0.99" in built.operative  # a component's default
    again = build_from_config(parse_text(built.operative, "operative.gin"), plugins)
    assert again.operative == built.operative
    assert list_settings(again)["schedule"] == list_settings(built)["schedule"]


def test_a_users_own_gin_is_set_aside_and_put_back(build: Build) -> None:
    """A notebook may use gin for itself, even with names that this project has too."""

    @gin.configurable("train", module="notebook")
    def own_train(lr: float = 0.0) -> float:
        return lr

    @gin.configurable("Adam", module="optimizers")
    class OwnAdam:
        def __init__(self, lr: float = 0.0) -> None:
            self.lr = lr

    gin.parse_config("train.lr = 0.25\noptimizers.Adam.lr = 0.5")
    before = gin.config_str()
    try:
        observers = "train.observers = [@observers.Keeper(), @d/observers.Keeper()]"
        with gin.config_scope("d"):
            built = build("train.seed = 3", "optimizers.Adam.lr = 2.0", observers, "d/observers.Keeper.x = 4")
            assert gin.current_scope_str() == "d"
        assert [observer.x for observer in list_observers(built)] == [0, 4]
        assert built.experiment.seed == 3
        assert built.experiment.generator_optimizer.lr == 2.0
        assert type(built.experiment.generator_optimizer).__module__.startswith("pggan_plugins.")
        assert gin.config_str() == before
        assert (own_train(), OwnAdam().lr) == (0.25, 0.5)
        gin.parse_config("train.lr = 0.75")  # not locked, not ambiguous
        assert own_train() == 0.75
    finally:
        gin.clear_config()


def test_gin_of_a_user_survives_a_failed_build(build: Build) -> None:
    gin.clear_config()
    with pytest.raises(ConfigError):
        build("optimizers.Adam.lr = -1")
    assert not gin.config_is_locked()
    assert gin.config_str() == ""


@dataclass
class Settings:
    """A dataclass with a marker among its annotations, which Python 3.10 does not take for a type."""

    first: int
    _: KW_ONLY
    second: "list[int] | None" = None


def test_annotations_are_those_of_parameters() -> None:
    assert read_annotations(Settings) == {"first": int, "second": list[int] | None, "return": type(None)}


@pytest.mark.parametrize("hint", [int, "int", int | None])
def test_a_default_of_none_admits_none_on_every_python(hint: Any) -> None:
    def factory(x=None, y=1): ...

    factory.__annotations__ = {"x": hint, "y": hint}
    assert read_annotations(factory)["x"] == int | None
    check_arguments(factory, {"x": None, "y": 2})
    with pytest.raises(ValueError, match=r"^x must be a whole number or None, not 'a'$"):
        check_arguments(factory, {"x": "a"})


class OldAlias(types.GenericAlias):
    """The type of `list[int]` on Python 3.10, where it passes for a class."""

    __class__ = property(lambda self: type)  # type: ignore[assignment]


@pytest.mark.parametrize("alias", [types.GenericAlias, OldAlias])
def test_containers_are_not_classes_on_any_python(alias: Any) -> None:
    cases = [
        (alias(list, (int,)), [1, 2], [1, "a"]),
        (alias(tuple, (int, str)), (1, "a"), ("a", 1)),
        (alias(dict, (str, int)), {"a": 1}, {"a": "b"}),
        (Sequence[alias(tuple, (int, int))], [(1, 2)], [(1, 2, 3)]),
        (Mapping[int, alias(list, (int,))] | None, {4: [1]}, {4: [1.5]}),
    ]
    for hint, good, bad in cases:
        assert fits_annotation(good, hint), hint
        assert not fits_annotation(bad, hint), hint
        assert not fits_annotation(1, hint), hint
