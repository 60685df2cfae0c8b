"""Components that are defined, and defined again, in one Python process, as in a notebook."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import pggan_kit
from pggan_kit import Component, Scores, hookimpl
from pggan_kit.api.generator import load_generator
from pggan_kit.api.prepare import prepare
from pggan_kit.api.train import resume
from pggan_kit.errors import ConfigError, PluginError

LINES = ["train.loss = @losses.Mine()", "train.switch = @switches.Mine()", "schedule.sizes = (4, 8)"]


def define_first_loss(trace: list[str]) -> type:
    class Mine:
        needs_real = False
        penalties = ()

        def __init__(self, old_parameter: float = 1.0) -> None:
            trace.append(f"first {old_parameter}")

        def discriminator(self, real: Scores, fake: Scores) -> dict[str, torch.Tensor]:
            return {"first": fake.score.mean() - real.score.mean()}

        def generator(self, fake: Scores, real: Scores | None) -> dict[str, torch.Tensor]:
            return {"first": -fake.score.mean()}

    return Mine


def define_second_loss(trace: list[str]) -> type:
    class Mine:
        needs_real = True
        penalties = ()

        def __init__(self, new_parameter: int = 2) -> None:
            trace.append(f"second {new_parameter}")

        def discriminator(self, real: Scores, fake: Scores) -> dict[str, torch.Tensor]:
            return {"second": (fake.score - real.score).square().mean()}

        def generator(self, fake: Scores, real: Scores | None) -> dict[str, torch.Tensor]:
            assert real is not None
            return {"second": (fake.score - real.score).square().mean()}

    return Mine


class Switch:
    """A fade in two steps."""

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        return 0.0 if progress < 0.5 else 0.75


class Watcher:
    """An object with hooks, given beside the components."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.tags: set[str] = set()
        self.alphas: list[float] = []

    @hookimpl
    def before_stage(self, stage: Any) -> None:
        self.stages.append(stage.size)

    @hookimpl
    def after_step(self, run: Any, losses: Any) -> None:
        self.tags |= {tag for tag in losses if tag.startswith("Loss/")}
        self.alphas.append(run.alpha["generator"])


def test_a_component_that_is_defined_again_replaces_the_first_one(tiny: Callable[..., str], stub: str) -> None:
    trace: list[str] = []
    switch = Component("switches", "Mine", Switch)

    watcher = Watcher()
    rows = [stub, Component("losses", "Mine", define_first_loss(trace)), switch, watcher]
    pggan_kit.train(tiny(*LINES, "losses.Mine.old_parameter = 3.5"), plugins=rows)
    assert trace == ["first 3.5"]
    assert watcher.stages == ["4x4", "8x8"]
    assert watcher.tags == {"Loss/generator/first", "Loss/discriminator/first"}
    assert watcher.alphas == [1.0, 1.0, 0.0, 0.75, 1.0, 1.0]

    watcher = Watcher()
    rows = [stub, Component("losses", "Mine", define_second_loss(trace)), switch, watcher]
    run = pggan_kit.train(tiny(*LINES, "losses.Mine.new_parameter = 7"), plugins=rows)
    assert trace == ["first 3.5", "second 7"]
    assert watcher.tags == {"Loss/generator/second", "Loss/discriminator/second"}
    assert "losses.Mine.new_parameter = 7" in (run.directory / "operative.gin").read_text()

    with pytest.raises(ConfigError, match=r"has no parameter old_parameter .*it has new_parameter"):
        prepare(tiny(*LINES, "losses.Mine.old_parameter = 3.5"), plugins=rows)
    assert trace == ["first 3.5", "second 7"]


def test_a_component_of_one_call_is_unknown_to_the_next(tiny: Callable[..., str], stub: str) -> None:
    rows = [Component("losses", "Mine", define_first_loss([])), Component("switches", "Mine", Switch)]
    prepare(tiny(*LINES), plugins=[stub, *rows])
    with pytest.raises(ConfigError, match=r"unknown component losses\.Mine"):
        prepare(tiny(*LINES), plugins=[stub])


def test_two_runs_in_one_process_number_their_directories_and_load(tiny: Callable[..., str], stub: str) -> None:
    runs = [pggan_kit.train(tiny("schedule.sizes = (4, 8)"), ["train.seed = 1"], plugins=[stub]) for _ in range(2)]
    assert [run.name for run in runs] == ["00000-tiny", "00001-tiny"]
    generators = [load_generator(run.directory) for run in runs]
    latents = torch.randn(3, generators[0].latent_size)
    images = [generator(latents) for generator in generators]
    assert images[0].shape == (3, 1, 8, 8) and not images[0].requires_grad
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], runs[0].generate(latents))


def test_a_generator_loaded_within_a_fade_has_its_alpha(tiny: Callable[..., str], stub: str) -> None:
    switch = Component("switches", "Mine", Switch)
    lines = ["train.switch = @switches.Mine()", "schedule.total_images = 12"]

    class Stop:
        @hookimpl
        def after_tick(self, run: Any, state: Any) -> None:
            if state.images == 12:
                self.images = run.generate(run.fixed_latents(2))

    stop = Stop()
    run = pggan_kit.train(tiny(*lines, "train.tick = 4"), plugins=[stub, switch, stop])
    generator = load_generator(run.directory, plugins=[stub, switch])
    assert generator(run.fixed_latents(2)).shape == (2, 1, 8, 8)
    assert torch.isfinite(stop.images).all()


def test_a_run_with_components_of_a_notebook_is_resumed_with_them(tiny: Callable[..., str], stub: str) -> None:
    rows = [stub, Component("losses", "Mine", define_first_loss([])), Component("switches", "Mine", Switch)]
    run = pggan_kit.train(tiny(*LINES), plugins=rows)
    again = resume(run.directory, plugins=rows)
    assert again.state.images == run.state.images
    given = (
        r"config\.gin:\d+: unknown component losses\.Mine: this run was given losses\.Mine, switches\.Mine in Python"
    )
    with pytest.raises(PluginError, match=given):
        resume(run.directory)


def test_a_generator_is_loaded_from_a_run_or_its_directory(train: Callable[..., Any], stub: str) -> None:
    run = train()
    latents = torch.randn(3, 8)
    images = [load_generator(given, plugins=[stub])(latents) for given in (run, run.directory)]
    assert images[0].shape == (3, 1, 16, 16)
    assert torch.equal(*images)
    assert torch.equal(images[0], run.generate(latents))
