"""Test the library without the command line: a `Run`, and components as objects."""

import ast
import gc
import inspect
import json
import math
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from helpers.paths import ROOT, STUB_PLUGIN

import pggan_kit
from pggan_kit import Component, Run, Scores, Stats, hookimpl
from pggan_kit.ablation import ablate
from pggan_kit.api import prepare as api
from pggan_kit.api.generator import load_generator
from pggan_kit.benchmarking.bench import bench
from pggan_kit.benchmarking.plan import plan
from pggan_kit.config.object_components import find_component_places
from pggan_kit.errors import ConfigError, PluginError, RunError, SettingError
from pggan_kit.growth.averages import list_names
from pggan_kit.report import write_report
from pggan_kit.system.json_lines import JsonLines
from pggan_kit.system.json_text import json_text

Tiny = Callable[..., str]


class Watcher:
    """An observer that records each tick's clock."""

    def __init__(self) -> None:
        self.ticks: list[int] = []

    @hookimpl
    def after_tick(self, state: Any) -> None:
        self.ticks.append(state.images)


class Margin:
    """A hinge loss with a margin, which records the stages that begin."""

    needs_real = False
    penalties = ()

    def __init__(self, margin: float = 1.0) -> None:
        self.margin = margin
        self.stages: list[str] = []

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, torch.Tensor]:
        return {"mine": (self.margin - real.score).relu().mean() + (self.margin + fake.score).relu().mean()}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, torch.Tensor]:
        return {"mine": -fake.score.mean()}

    @hookimpl
    def before_stage(self, stage: Any) -> None:
        self.stages.append(stage.size)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, _own_cache: None, stub: str) -> Run:
    """Return a finished run, which is not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.gin").write_text(TINY)
    return pggan_kit.train(folder / "tiny.gin", run_dir=folder / "run", plugins=[stub])


def test_stats_are_a_table(finished: Run) -> None:
    stats = finished.stats
    assert isinstance(stats, Stats) and stats == finished.files.stats() and len(stats) == 5
    assert stats[0]["images"] == 8 and stats.column("images") == [8, 16, 24, 32, 40]
    assert stats.columns[:3] == ["images", "steps", "phase"]
    assert Stats([{"a": 1}, {"b": 2, "a": 3}]).column("b") == [None, 2]
    with pytest.raises(KeyError, match=r"no column 'imagse' \(did you mean images\?\)"):
        stats.column("imagse")


def test_the_generator_is_a_copy_in_inference_mode(finished: Run) -> None:
    generator = finished.generator()
    latents = torch.randn(3, 8)
    images = generator(latents)
    assert images.shape == (3, 1, 16, 16) and not generator.training and not images.requires_grad
    assert torch.equal(images, finished.generate(latents))
    with torch.no_grad():
        next(generator.parameters()).zero_()
    assert torch.equal(finished.generate(latents), images)


def test_samples_of_each_stage_are_those_of_its_end(tiny: Tiny, stub: str) -> None:
    class KeepImages:
        def __init__(self) -> None:
            self.images: dict[str, torch.Tensor] = {}

        @hookimpl
        def after_stage(self, run: Run, stage: Any) -> None:
            self.images[stage.size] = run.generate(run.fixed_latents(3))

    keeper = KeepImages()
    run = pggan_kit.train(tiny(), plugins=[stub], parts={"train.observers": [keeper]})
    assert list(keeper.images) == ["4x4", "8x8", "16x16"]
    for index, (size, images) in enumerate(keeper.images.items()):
        torch.testing.assert_close(run.samples(size, 3), images)
        assert torch.equal(run.samples(index, 3), run.samples(size, 3))
        loaded = load_generator(run.directory, stage=size, plugins=[stub], parts={"train.observers": [KeepImages()]})
        torch.testing.assert_close(loaded(run.fixed_latents(3)), images)
    assert torch.equal(run.samples(count=3), run.samples("16x16", 3))
    assert run.samples().shape == (64, 1, 16, 16)


def test_counts_and_alphas_that_are_none_are_refused(finished: Run) -> None:
    for count in (None, "3", 0, -3, 1.5, True):
        for method in (finished.draw_reals, lambda count: finished.samples(count=count)):
            with pytest.raises(SettingError, match=r"^count must be a whole number of at least 1, and is "):
                method(count)  # type: ignore[arg-type]
    for count in (None, "3", -3, 2.0, True):
        with pytest.raises(SettingError, match=r"^count must be a whole number of at least 0, and is "):
            finished.fixed_latents(count)  # type: ignore[arg-type]
    latents = finished.fixed_latents(2)
    for alpha in (2.0, -0.1, math.nan):
        with pytest.raises(SettingError, match=r"^alpha must be in \[0, 1\]"):
            finished.generate(latents, alpha=alpha)
    assert finished.generate(latents[:0]).shape == (0, *finished.generate(latents).shape[1:])


def test_a_run_draws_what_fits_it_alone(finished: Run) -> None:
    """The first average by True and by None, G itself by False; anything else is refused, and so are wrong inputs."""
    latents = finished.fixed_latents(2)
    first = finished.generate(latents)
    (name,) = list_names(finished.experiment.averages)
    assert torch.equal(finished.generate(latents, average=None), first)
    assert torch.equal(finished.generate(latents, average=name), first)
    assert not torch.equal(finished.generate(latents, average=False), first)
    for average in (0.1, 0, 1, ["half_life"]):
        with pytest.raises(SettingError, match=r"^average must be the name of an average, True, False or None, not "):
            finished.generate(latents, average=average)  # type: ignore[arg-type]
    wrong: list[Any] = [latents.double(), latents.numpy(), None, latents[0], latents[:, :3]]
    for given in wrong:
        with pytest.raises(SettingError, match=r"^latents must be "):
            finished.generate(given)
    with pytest.raises(SettingError, match=r"^labels must be left out: the generator is unconditional"):
        finished.generate(latents, torch.arange(2))


def test_a_folder_whose_name_ends_like_a_file_is_a_run(train: Callable[..., Run], stub: str) -> None:
    run = train(run_dir="mine.safetensors")
    assert pggan_kit.load_generator("mine.safetensors", plugins=[stub]).images == run.state.images


def test_samples_of_what_has_not_ended_are_refused(finished: Run) -> None:
    with pytest.raises(RunError, match=r"stage '32x32': no such stage has .* that have ended: 0 \(4x4\), 1 "):
        finished.samples("32x32")
    with pytest.raises(ValueError, match="count must be a whole number of at least 1, and is 0"):
        finished.samples(count=0)
    with pytest.raises(RunError, match="no such stage"):
        load_generator(finished.directory, stage=7)


def test_drawing_samples_in_a_hook_changes_nothing(tiny: Tiny, stub: str) -> None:
    class DrawInHook:
        @hookimpl
        def before_fade(self, run: Run) -> None:
            run.generator()
            run.samples(0, 2)

    ends = []
    for observers in ([], [DrawInHook()]):
        run = pggan_kit.train(tiny(), plugins=[stub], parts={"train.observers": observers})
        ends.append(run.samples(count=2))
    assert torch.equal(*ends)


def test_objects_take_the_places_of_a_configs_parts(tiny: Tiny, stub: str) -> None:
    loss = Margin(2.0)
    watcher = Watcher()
    parts = {"train.loss": loss, "train.observers": [watcher, Watcher()]}
    prepared = api.prepare(tiny(), plugins=[stub], parts=parts)
    assert prepared.built.experiment.loss is loss
    run = pggan_kit.train(tiny(), plugins=[stub], parts=parts)
    assert run.experiment.loss is loss
    assert loss.stages == ["4x4", "8x8", "16x16"] and watcher.ticks == [8, 16, 24, 32, 40]
    assert "Loss/generator/mine" in run.stats.columns
    about = json.loads((run.directory / "run.json").read_text())
    assert about["objects"] == {
        "train.loss": ["losses.Margin_object"],
        "train.observers": ["observers.Watcher_object", "observers.Watcher2_object"],
    }
    assert "train.loss = @losses.Margin_object()" in (run.directory / "config.gin").read_text()


def test_a_shipped_part_may_be_given_as_an_object(tiny: Tiny, stub: str) -> None:
    from pggan_plugins.losses import Hinge
    from pggan_plugins.penalties import R1

    lines = ("train.loss = @losses.WGANGP()", "penalties.GradientPenalty.weight = 3.0")  # gives way: idle, no error
    given = {"train.loss": Hinge([R1(weight=2.0)])}
    prepared = api.prepare(tiny(*lines), plugins=[stub], parts=given)
    assert prepared.built.experiment.loss is given["train.loss"]
    assert [binding.name for binding in prepared.built.idle] == ["penalties.GradientPenalty.weight"]


def test_objects_give_what_names_give(tiny: Tiny, stub: str) -> None:
    from pggan_plugins.losses import NonSaturating

    named = pggan_kit.train(tiny("train.loss = @losses.NonSaturating()"), plugins=[stub])
    given = pggan_kit.train(tiny(), plugins=[stub], parts={"train.loss": NonSaturating()})
    assert torch.equal(named.samples(count=4), given.samples(count=4))


def test_objects_begin_each_run_as_new_ones_would(tiny: Tiny, stub: str) -> None:
    """Adam's rate has fallen and ADA's p has moved at the end of the first run: the second begins with neither."""
    from pggan_plugins.augmentations import ADA
    from pggan_plugins.curves import Linear
    from pggan_plugins.losses import NonSaturating
    from pggan_plugins.observers import TransitionShock
    from pggan_plugins.optimizers import Adam
    from pggan_plugins.switches import Nudged

    def make_parts() -> dict[str, object]:
        return {
            "train.loss": NonSaturating(),
            "train.switch": Nudged(),
            "train.augmentation": ADA(p=0.2, target=-0.9, interval=4, adjust_images=20),
            "train.observers": [TransitionShock(count=4)],
            "train.generator_optimizer": Adam(lr=Linear(1e-3, 0.0)),
            "train.discriminator_optimizer": Adam(lr=Linear(1e-3, 0.0)),
        }

    # Two runs with the same objects, and one with new ones.
    config = tiny("schedule.sizes = (4, 8)")
    used = make_parts()
    first, second = (pggan_kit.train(config, plugins=[stub], parts=used) for _ in range(2))
    fresh = pggan_kit.train(config, plugins=[stub], parts=make_parts())
    tags = [tag for tag in fresh.stats.columns if tag.startswith(("Loss/", "Scores/", "Progress/"))]

    # Their numbers are equal.
    for run in (first, second):
        assert torch.equal(run.samples(count=4), fresh.samples(count=4))
        for tag in tags:
            assert run.stats.column(tag) == fresh.stats.column(tag), tag
        rows = [(each.directory / "transitions.jsonl").read_text() for each in (run, fresh)]
        assert rows[0] == rows[1]
    assert len(set(fresh.stats.column("Progress/augmentation"))) > 1, "p must have moved"


def test_a_run_with_objects_goes_on_with_such_objects_alone(tiny: Tiny, stub: str) -> None:
    def make_parts(**other: object) -> dict[str, object]:
        return {"train.loss": Margin(2.0), **other}

    class StopAtTick:
        @hookimpl
        def after_tick(self, state: Any) -> None:
            if state.images == 24:
                raise KeyboardInterrupt

    whole = pggan_kit.train(tiny(), plugins=[stub], parts=make_parts())
    with pytest.raises(KeyboardInterrupt):
        pggan_kit.train(tiny(), plugins=[stub, StopAtTick()], parts=make_parts(), run_dir="run")
    for wrong, message in (
        (None, r"parts: .* in Python: parts={'train\.loss': Margin\(\.\.\.\)}$"),
        ({"train.loss": Watcher()}, r"'train\.loss': Margin\(\.\.\.\)}$"),
        (make_parts(**{"train.observers": [Watcher()]}), r"'train\.loss': Margin\(\.\.\.\)}$"),
    ):
        with pytest.raises(RunError, match=message):
            pggan_kit.resume("run", plugins=[stub], parts=wrong)
    resumed = pggan_kit.resume("run", plugins=[stub], parts=make_parts())
    assert torch.equal(resumed.samples(count=4), whole.samples(count=4))
    with pytest.raises(RunError, match="this run was begun with objects"):
        pggan_kit.load_generator("run", plugins=[stub])
    assert pggan_kit.load_generator("run", plugins=[stub], parts=make_parts()).images == 40


def test_a_generator_needs_no_observers_and_metrics(tiny: Tiny, stub: str) -> None:
    parts = {"train.observers": [Watcher()], "train.metrics": []}
    run = pggan_kit.train(tiny(), plugins=[stub], parts=parts)
    loaded = load_generator(run.directory, plugins=[stub])
    latents = run.fixed_latents(3)
    torch.testing.assert_close(loaded(latents), run.generator()(latents))
    with pytest.raises(RunError, match=r"parts={'train\.observers': \[Watcher\(\.\.\.\)\], 'train\.metrics': \[\]}$"):
        pggan_kit.resume(run.directory, plugins=[stub])


def test_a_run_with_a_component_of_a_notebook_says_how_to_load_it(tiny: Tiny, stub: str) -> None:
    mine = Component("losses", "Mine", Margin)
    used = [stub, mine, Component("losses", "Other", Margin)]
    run = pggan_kit.train(tiny("train.loss = @losses.Mine()"), plugins=used, parts={"train.observers": [Watcher()]})
    rows = json.loads((run.directory / "run.json").read_text())["plugins"]
    assert [row["name"] for row in rows][-2:] == ["losses.Mine", "losses.Other"]
    with pytest.raises(PluginError, match=r"losses\.Mine: .* losses\.Mine, losses\.Other in Python.*--plugin FILE$"):
        load_generator(run.directory)
    assert load_generator(run.directory, plugins=[stub, mine]).images == 40


def test_a_run_without_objects_takes_none(finished: Run, stub: str) -> None:
    with pytest.raises(RunError, match="this run was begun without any: leave them out"):
        pggan_kit.resume(finished.directory, parts={"train.loss": Margin()})


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "place": (
        {"train.los": Margin()},
        ConfigError,
        r"train\.los is not the place of .* \(did you mean train\.loss\?\)",
    ),
    "setting": ({"train.seed": 3}, ConfigError, r"parts: train\.seed is not the place of a component"),
    "class": ({"train.loss": Margin}, ConfigError, r"Margin is a class; give an object, Margin\(\.\.\.\)"),
    "no list": ({"train.observers": Watcher()}, ConfigError, r"parts: train\.observers takes a list of objects"),
    "list": ({"train.loss": [Margin()]}, PluginError, r"losses\.list_object is not a valid Loss: it has no"),
    "other kind": ({"train.loss": Watcher()}, PluginError, r"losses\.Watcher_object is not a valid Loss"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_objects_are_refused(case: str, tiny: Tiny, stub: str) -> None:
    parts, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        pggan_kit.train(tiny(), plugins=[stub], parts=parts)
    assert not Path("runs").exists()


ALONE: dict[str, tuple[Callable[[str], Any], str]] = {
    "bindings": (
        lambda file: pggan_kit.train(file, "train.seed = 1"),
        r"bindings must be a list, not 'train\.seed = 1': write bindings=\['train\.seed = 1'\]$",
    ),
    "plugins": (lambda file: pggan_kit.train(file, plugins="x.py"), r"plugins must be a list, not 'x\.py': write pl"),
    "a path": (lambda file: pggan_kit.train(file, plugins=Path("x.py")), r"plugins must be a list, not "),
    "an object": (lambda file: pggan_kit.train(file, plugins=Watcher()), r"plugins must be a list, not "),
    "parts": (lambda file: pggan_kit.train(file, parts=[Watcher()]), r"parts must be a dict of objects by their pl"),
    "metrics": (lambda file: pggan_kit.evaluate("run", metrics="FrechetDistance"), r"metrics must be a list"),
    "bindings of evaluate": (lambda file: pggan_kit.evaluate("run", bindings="x = 1"), r"bindings must be a list"),
    "bindings of plan": (lambda file: plan(file, "train.seed = 1"), r"bindings must be a list"),
    "bindings of a variant": (lambda file: bench(file, others={"b": "x = 1"}), r"others\['b'\] must be a list"),
    "stages": (lambda file: bench(file, stages="4x4"), r"stages must be a list"),
    "bindings of ablate": (lambda file: ablate(file, "ablate.seeds = (1,)"), r"bindings must be a list"),
    "plugins of ablate": (lambda file: ablate(file, plugins="x.py"), r"plugins must be a list"),
    "folders": (lambda file: write_report("runs", "report.html"), r"folders must be a list"),
    "plugins of a run": (lambda file: pggan_kit.load_generator("run", plugins="x.py"), r"plugins must be a list"),
}


NO_PATHS: dict[str, Callable[[Any, str], Any]] = {
    "config": lambda value, file: pggan_kit.train(value),
    "run_dir": lambda value, file: pggan_kit.train(file, run_dir=value),
    "start_from": lambda value, file: pggan_kit.train(file, start_from=value),
    "stem": lambda value, file: pggan_kit.train(file, stem=value),
    "run of resume": lambda value, file: pggan_kit.resume(value),
    "run of load_generator": lambda value, file: pggan_kit.load_generator(value),
    "run of evaluate": lambda value, file: pggan_kit.evaluate(value),
    "run_or_folder": lambda value, file: pggan_kit.evaluate(value, "pictures"),
    "against": lambda value, file: pggan_kit.evaluate("pictures", value),
    "run of export": lambda value, file: pggan_kit.export(value),
    "target": lambda value, file: pggan_kit.export("run", target=value),
    "file": lambda value, file: pggan_kit.import_weights(value),
}
"""Calls with something in place of a path, by the argument's name."""
MAY_BE_NONE = ("run_dir", "start_from", "stem", "against", "target")


def test_what_is_no_path_is_refused(tiny: Tiny, finished: Run, stub: str) -> None:
    file = tiny()
    shutil.copytree(finished.directory, "run")
    for case, call in NO_PATHS.items():
        for value in (None, 3, b"run"):
            if value is not None or case not in MAY_BE_NONE:
                with pytest.raises(ConfigError, match=rf"^{case.split()[0]} must be a path, not {value!r}"):
                    call(value, file)


def test_lists_and_names_that_are_none_are_refused(tiny: Tiny, finished: Run) -> None:
    bindings: Any = None
    with pytest.raises(ConfigError, match=r"^bindings must be a list, not None"):
        pggan_kit.train(tiny(), bindings)
    with pytest.raises(ConfigError, match=r"^bindings must be a list, not None"):
        pggan_kit.resume(finished.directory, bindings)
    metrics: Any = [None]
    with pytest.raises(ConfigError, match=r"^metrics must be names of metrics, not None"):
        pggan_kit.evaluate(finished, metrics=metrics)
    licence: Any = 3
    with pytest.raises(SettingError, match=r"^licence must be a text or None, not 3"):
        pggan_kit.export(finished, licence=licence)


def test_a_choice_that_there_is_not_is_an_error_of_the_user(finished: Run, stub: str) -> None:
    with pytest.raises(RunError, match=r"^checkpoint must be .* not 'Last' \(did you mean 'last'\?\)"):
        pggan_kit.load_generator(finished, checkpoint="Last", plugins=[stub])
    with pytest.raises(RunError, match=r"^--average best: .*evaluate. alone chooses the best width"):
        pggan_kit.load_generator(finished, average="best", plugins=[stub])


def test_a_run_begins_from_another_that_is_at_hand(tiny: Tiny, finished: Run, stub: str) -> None:
    longer = tiny("schedule.total_images = 44")
    assert pggan_kit.train(longer, plugins=[stub], start_from=finished, run_dir="branch").state.images == 44
    grown = pggan_kit.train(tiny("schedule.sizes = (4,)"), plugins=[stub], run_dir="small")
    assert pggan_kit.train(tiny(), plugins=[stub], stem=grown, run_dir="grown").state.images == 40


def test_one_thing_in_place_of_a_list_is_refused(tiny: Tiny, finished: Run) -> None:
    file = tiny("train.dataset = @datasets.MNIST()", "schedule.sizes = (7, 14)")
    shutil.copytree(finished.directory, "run")
    for call, message in ALONE.values():
        with pytest.raises(ConfigError, match=message):
            call(file)


def test_places_are_the_parts_of_an_experiment() -> None:
    places = find_component_places()
    assert places["train.loss"] == ("losses", False)
    assert places["train.switch"] == ("switches", False)
    assert places["train.observers"] == ("observers", True)
    assert places["train.metrics"] == ("metrics", True)
    assert places["train.discriminator_optimizer"] == ("optimizers", False)
    assert "train.seed" not in places


UNDOCUMENTED = {
    "ENCODER",
    "EncoderCall",
    "EncoderTerms",
    "FADE",
    "Interval",
    "LARGEST_WIDTH",
    "MOMENTS",
    "NETS",
    "STABLE",
    "__version__",
    "Critic",
    "GeneratorCall",
    "PerStage",
    "TensorBatch",
    "Varying",
    "hookimpl",
}
"""Public names that can have no docstring of their own: constants, type aliases, and pluggy's marker."""


def test_every_public_name_is_typed_and_documented() -> None:
    assert (Path(pggan_kit.__file__).parent / "py.typed").exists()
    assert set(pggan_kit.__all__) >= UNDOCUMENTED
    for name in set(pggan_kit.__all__) - UNDOCUMENTED:
        thing = getattr(pggan_kit, name)
        assert inspect.getdoc(thing), name

        # A function itself, or the public methods of a class.
        functions = {name: thing} if inspect.isfunction(thing) else vars(thing)
        for member, function in functions.items():
            is_ours = inspect.isfunction(function) and function.__module__ != "typing"  # as the __init__ of a Protocol
            if is_ours and (not member.startswith("_") or member == "__init__"):
                wanted = {p for p in inspect.signature(function).parameters if p not in ("self", "cls")} | {"return"}
                assert wanted <= set(function.__annotations__), f"{name}.{member}"
                assert member == "__init__" or inspect.getdoc(function), f"{name}.{member}"


def test_json_has_no_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    """NaN and infinite numbers become null, at any depth; a file of rows reads them as None."""
    value = {"a": [1.5, math.nan], "b": {"c": -math.inf}, "d": (math.inf, 2, "NaN", None, True)}
    wanted = {"a": [1.5, None], "b": {"c": None}, "d": [None, 2, "NaN", None, True]}

    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is no JSON")

    assert json.loads(json_text(value), parse_constant=refuse) == wanted
    rows = JsonLines(tmp_path / "rows.jsonl")
    rows.append({"images": 3, "Loss/D": math.nan})
    assert json.loads(rows.path.read_text(), parse_constant=refuse)["Loss/D"] is None
    assert rows.read() == [{"images": 3, "Loss/D": None}]


FOLDERS = ("pggan_kit", "plugins", "scripts", "benchmarks")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def test_all_json_is_valid_json() -> None:
    """JSON is written by `json_text`, or by json with `allow_nan=False`."""
    calls = 0
    wrong = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if "json.dump" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump"):
                calls += 1
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if options.get("allow_nan") != "False":
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert calls
    assert wrong == [], "write JSON with pggan_kit.json_text"


def test_nothing_of_a_config_or_a_run_stays_alive(train: Callable[..., Any], tiny: Callable[..., str]) -> None:
    """A notebook builds hundreds of configs, each with a data set that may be held in memory."""
    observers = "train.observers = [@observers.TensorBoard(), @observers.Samples(), @observers.Growth()]"
    run = train(observers, run_dir="run")
    prepared = api.prepare(tiny(), plugins=[str(STUB_PLUGIN)])
    generator = load_generator("run", plugins=[str(STUB_PLUGIN)])
    held = {
        "run": run,
        "state": run.state,
        "generator": run.state.generator,
        "optimizer": next(iter(run.state.optimizers.values())),
        "observer": run.experiment.observers[0],
        "data": run.data,
        "data set of the run": run.experiment.dataset,
        "prepared": prepared,
        "data set of the config": prepared.built.experiment.dataset,
        "loaded generator": generator.generator,
    }
    references = {name: weakref.ref(thing) for name, thing in held.items()}
    del run, prepared, generator, held
    gc.collect()
    assert [name for name, reference in references.items() if reference() is not None] == []
