"""The fades path by path and in whole runs; and `Plateau`: when it grows, and that it answers alike after a resume."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cut_runs import remove_checkpoints_after

from pggan_kit import Component, hookimpl
from pggan_kit.api.train import resume
from pggan_kit.errors import ConfigError, TrainingError
from pggan_kit.growth.fade import fade_reals
from pggan_kit.growth.networks import Discriminator
from pggan_kit.layers.resampling import Area
from pggan_kit.testing import make_stages
from pggan_plugins.architectures import PGGAN
from pggan_plugins.switches import Cosine, GeneratorFirst, Plateau, Smoothstep, Staircase

LONG = (
    "schedule.stable_images = 80",
    "train.tick = 4",
    "train.keep = 1000",
    "train.switch = @switches.Plateau()",
    "switches.Plateau.window = 8",
    "switches.Plateau.tolerance = 0.0",
    "switches.Plateau.watch = 'Progress/size'",
)
"""Of the tiny experiment: 80 images, then 8 + 80, 8 + 80, a tick each step; the image size never changes in a stage."""


class Rising:
    """Adds `Metrics/rising` to each tick's means: the clock itself."""

    @hookimpl
    def after_step(self, state: Any) -> None:
        state.means.add({"Metrics/rising": torch.tensor(float(state.images))})


SHORTER = "schedule.stable_images = 24"
"""The same with 24 images, then 8 + 24, 8 + 24."""

RISING = Component("observers", "Rising", Rising)
RISES = ("train.observers = [@observers.Rising()]", "switches.Plateau.watch = 'Metrics/rising'")


def test_curves_by_formula() -> None:
    for i in range(1001):
        t = i / 1001
        assert Cosine().fade_alpha(t) == pytest.approx(math.sin(math.pi * t / 2) ** 2, abs=1e-12)
        assert Smoothstep().fade_alpha(t) == pytest.approx(3 * t**2 - 2 * t**3, abs=1e-12)
        assert Staircase(5).fade_alpha(t) == (i * 5 // 1001) / 5


def test_one_stair_holds_the_old_path() -> None:
    assert {Staircase(1).fade_alpha(i / 10) for i in range(10)} == {0.0}


def test_reals_fade_with_the_generator() -> None:
    switch = GeneratorFirst()
    for i in range(100):
        assert switch.fade_alpha(i / 100, "reals") == switch.fade_alpha(i / 100, "generator")


def test_reals_fade_unseen_while_the_discriminator_is_old() -> None:
    """The reason why reals fade with G: D at alpha 0 gives a real the same score at any alpha of the reals."""
    base, stage = make_stages()
    net = Discriminator(PGGAN(channels=4), Area(), Area(), 0, base)
    net.grow(stage, bridged=True)
    reals = torch.randn(4, 1, 8, 8)
    zero = torch.tensor(0.0)
    scores = [
        net(fade_reals(reals, 2, torch.tensor(alpha), Area().up(1, 2), Area().down(1, 2)), None, zero).score
        for alpha in (0.0, 0.5, 1.0)
    ]
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[0], scores[2])


@pytest.mark.parametrize("steps", [0, -3])
def test_staircase_needs_a_step(steps: int) -> None:
    with pytest.raises(ValueError, match=r"^steps "):
        Staircase(steps)


@pytest.mark.parametrize("name", ["Hard", "Cosine", "GeneratorFirst"])
def test_all_spend_the_same(train: Callable[..., Any], name: str) -> None:
    """Without a fade, with one alpha for all paths, and with another alpha for D; the curves' suites train the rest."""
    run = train(f"train.switch = @switches.{name}()", "train.tick = 4")
    assert run.state.images == run.schedule.total == 40
    assert run.state.starts == run.schedule.planned_starts() == [0, 8, 24]
    alphas = {row["images"]: row["Progress/alpha"] for row in run.files.stats()}
    # The fades' steps begin at images 8 and 12, and 24 and 28: progress 0 and a half.
    half = {"Hard": 1.0, "GeneratorFirst": 1.0}.get(name, 0.5)
    start = 1.0 if name == "Hard" else 0.0
    assert [alphas[at] for at in (12, 16, 20, 28, 32, 36)] == pytest.approx([start, half, 1.0] * 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"watch": ""},
        {"window": 0},
        {"tolerance": -0.1},
        {"tolerance": float("nan")},
        {"tolerance": float("inf")},
        {"least": -1},
        {"least": {4: 0, 8: -1}},
        {"most": 0},
        {"most": {4: 100, 8: 0}},
    ],
)
def test_plateau_refuses(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"watch": "Loss/generator/hinge", "window": 100, "tolerance": 0.1}
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} "):
        Plateau(**{**right, **wrong})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "switches.Plateau.window = 7",
            "window must .* two measurements .* every 4 images at stage 4x4, .* is 7.*train.tick",
        ),
        ("switches.Plateau.most = 4", "most is 4 images at stage 8x8.*its fade .8."),
        ("switches.Plateau.least = 81", "most is 80 images at stage 4x4, less than its least .81."),
        ("switches.Plateau.watch = 'Loss/generator/hinges'", "watch: no tick has.*mean Loss/generator/hinge."),
    ],
)
def test_plateau_refuses_what_only_the_run_shows(train: Callable[..., Any], line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"switches.Plateau.{message}"):
        train(*LONG, line)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["evaluation.every = 12"],
            "Metrics/SpectralDistance, which comes every 12 images at stage 4x4.*evaluation.every",
        ),
        (["evaluation.every = 'phase'"], "comes at the ends of phases alone at stage 4x4.*smaller evaluation.every"),
        (["evaluation.every = {4: 8, 8: 12, 16: 4}"], "comes every 12 images at stage 8x8.*evaluation.every"),
        (["evaluation.every = 2"], None),
        (
            ["switches.Plateau.watch = 'Progress/diversity'", "train.diversity_every = 9"],
            "comes every 9.*diversity_every",
        ),
    ],
)
def test_the_window_spans_two_measurements(train: Callable[..., Any], lines: list[str], message: str | None) -> None:
    """A metric that comes more often than ticks is measured at each of them."""
    metric = ("train.metrics = [@metrics.RadialSpectrum()]", "evaluation.count = 4", "schedule.total_images = 4")
    watch = ("switches.Plateau.watch = 'Metrics/SpectralDistance'", "switches.Plateau.window = 16")
    if message is None:
        assert train(*LONG, *metric, *watch, *lines).state.is_over
        return
    with pytest.raises(ConfigError, match=f"switches.Plateau.window must .*{message}"):
        train(*LONG, *metric, *watch, *lines)


def test_grows_early_on_a_level_number_and_hands_the_rest_to_the_last_stage(train: Callable[..., Any]) -> None:
    """With a window of two ticks: level from the tick at 8 on, which the step to 12 is the first to see. In a later
    stage the window begins at the end of the fade."""
    run = train(*LONG, SHORTER)
    assert run.state.starts == [0, 12, 12 + 8 + 12]
    assert run.state.images == run.schedule.total == 24 + 32 + 32
    assert run.state.stage.height == 16


def test_not_before_the_least(train: Callable[..., Any]) -> None:
    until_the_last_stage = "schedule.total_images = 44"
    assert train(*LONG, until_the_last_stage, "switches.Plateau.least = 20").state.starts == [0, 20, 40]
    run = train(*LONG, until_the_last_stage, "switches.Plateau.least = {4: 0, 8: 28}", run_dir="second")
    assert run.state.starts == [0, 12, 40]


def test_at_latest_at_the_most(train: Callable[..., Any]) -> None:
    """A number that rises by 8 within each window is not level at 7.9, and is at 8.1."""
    limits = ("switches.Plateau.most = 24", "switches.Plateau.tolerance = 7.9")
    until_the_last_stage = "schedule.total_images = 52"
    run = train(*LONG, *RISES, *limits, until_the_last_stage, plugins=(RISING,))
    assert run.state.starts == [0, 24, 48]
    assert run.state.images == run.schedule.total
    looser = "switches.Plateau.tolerance = 8.1"
    run = train(*LONG, *RISES, looser, until_the_last_stage, plugins=(RISING,), run_dir="second")
    assert run.state.starts == [0, 12, 32]


def test_the_schedules_budget_is_the_most_where_none_is_given(train: Callable[..., Any]) -> None:
    run = train(*LONG, *RISES, SHORTER, plugins=(RISING,))
    assert run.state.starts == run.schedule.planned_starts()


@pytest.mark.slow
def test_the_most_may_overdraw_the_budget(train: Callable[..., Any]) -> None:
    run = train(*LONG, *RISES, "switches.Plateau.most = 100", plugins=(RISING,))
    assert run.state.starts == [0, 100, 200]
    assert run.state.images == run.schedule.total == 256


def test_a_number_that_is_not_measured_at_each_tick_may_be_watched(train: Callable[..., Any]) -> None:
    watch = ("switches.Plateau.watch = 'Progress/diversity'", "train.diversity_every = 16")
    run = train(*LONG, *watch, "switches.Plateau.tolerance = 1e-9", "switches.Plateau.window = 32",
                "schedule.total_images = 48")  # fmt: skip
    assert run.state.is_over and None in run.stats.column("Progress/diversity")


def test_a_missing_metric_is_an_error_at_the_most(train: Callable[..., Any]) -> None:
    with pytest.raises(TrainingError, match="watches Metrics/none, which no tick of stage 4x4 had"):
        train(*LONG, SHORTER, "switches.Plateau.watch = 'Metrics/none'")


def test_a_metric_may_miss_ticks(train: Callable[..., Any]) -> None:
    """It comes at 16, 32, ...: two of those lie in a window of 32."""

    class Seldom:
        @hookimpl
        def after_step(self, state: Any) -> None:
            if state.images % 16 == 0:
                state.means.add({"Metrics/rising": torch.tensor(1.0)})

    seldom = Component("observers", "Rising", Seldom)
    short = "schedule.total_images = 44"
    run = train(*LONG, *RISES, short, "switches.Plateau.window = 32", plugins=(seldom,))
    assert run.state.starts[1] == 36


@pytest.mark.parametrize("sign", [1, -1])
def test_the_line_is_the_least_squares_fit_over_the_window(sign: int) -> None:
    """Against numpy's fit; older points, other stages' and this clock's own do not count."""
    rng = torch.Generator().manual_seed(0)
    values = (sign * torch.rand(20, generator=rng)).tolist()
    points = [(100 + 10 * i, value) for i, value in enumerate(values)]
    images, recent = np.array([p for p in points[:-1] if p[0] > points[-2][0] - 70]).T
    rise = abs(np.polyfit(images, recent, 1)[0]) * 70
    assert len(images) == 7
    stage: Any = SimpleNamespace(fade_images=20, budget=10_000, height=8, size="8x8")
    state: Any = SimpleNamespace(images=points[-1][0], starts=[0, 95])
    for tolerance, wanted in ((rise * 1.001, True), (rise * 0.999, False)):
        switch = Plateau("x", window=70, tolerance=tolerance)
        switch.load_state({"points": [(5, 1e9), *points]})
        assert switch.should_advance(stage, state) is wanted


def test_no_growth_during_the_fade_or_before_a_window_after_it() -> None:
    stage: Any = SimpleNamespace(fade_images=50, budget=10_000, height=8, size="8x8")
    switch = Plateau("x", window=40, tolerance=1.0)
    switch.load_state({"points": [(at, 0.0) for at in range(60, 200, 10)]})
    answers = {
        at: switch.should_advance(stage, SimpleNamespace(images=at, starts=[0]))  # type: ignore[arg-type]
        for at in range(10, 200, 10)
    }
    assert next(at for at, answer in answers.items() if answer) == 100  # the tick at 90, and what is before it


def test_ticks_of_the_fade_do_not_count() -> None:
    """The last of them may lie past the fade's images, where those are no multiple of the batch."""
    switch = Plateau("x", window=40, tolerance=1.0)
    for at, phase in ((20, "fade"), (52, "fade"), (60, "stable")):
        state: Any = SimpleNamespace(images=at, starts=[0], phase=phase)
        switch.after_tick(state, {"x": 1.0})
    assert switch.save_state() == {"points": [(60, 1.0)]}


def test_resumed_at_any_tick_it_grows_at_the_same_clock(train: Callable[..., Any], stub: str) -> None:
    """The answer at a tick must not see that tick: the question was asked before it, and is asked again after."""
    run = train(*LONG, "schedule.total_images = 36", run_dir="whole")
    assert run.state.starts == [0, 12, 32]

    # In the first window, as it fills, as the run grows, in a fade, and the same in the stage after it.
    for images in (4, 8, 12, 16, 24, 28, 32):
        cut = Path(f"cut{images}")
        shutil.copytree("whole", cut)
        remove_checkpoints_after(cut, images)
        again = resume(cut, plugins=[stub])
        assert again.state.starts == run.state.starts, f"resumed at images {images}"
        for name, value in run.state.generator.state_dict().items():
            assert torch.equal(value, again.state.generator.state_dict()[name])
