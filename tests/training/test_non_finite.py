"""Test `train.non_finite`: NaN and infinity are found before they move a weight, named, and dealt with as it says."""

import json
import math
import re
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from helpers.killing import KillAt, StopAt, assert_same_run, in_a_child, last, rows
from helpers.paths import STUB_PLUGIN
from torch import nn

import pggan_kit
from pggan_kit import Component, Scores, hookimpl
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, TrainingError
from pggan_kit.layers.value_maps import BYTES
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.system.json_lines import JsonLines
from pggan_kit.testing.support import are_equal
from pggan_kit.training import non_finite as guards
from pggan_kit.training.measures import DIVERSITY_IMAGES, measure_diversity
from pggan_kit.training.non_finite import Guard, NonFiniteError
from pggan_plugins.architectures import PGGAN
from pggan_plugins.losses import Hinge

STUB = str(STUB_PLUGIN)
BAD = math.nan

TWO_STAGES = ["schedule.sizes = (4, 8)", "schedule.stable_images = {4: 8, 8: 16}"]
"""4x4 until images 8, a fade until 16, and 8x8 until 32."""


class Poison:
    """A hook that says which steps fail, and where: by the clock before the step, so that a repeated step fails again.

    Args:
        where: `loss`, `gradient` or `layer`.
        at: Clocks of the steps.
        tries: Number of times that a step fails; with the latents of the next try all is well.
    """

    def __init__(self, where: str, at: tuple[int, ...], tries: int = 1000) -> None:
        self.where = where
        self.at = at
        self.tries = tries
        self.run: Any = None

    def due(self, where: str) -> bool:
        state = self.run.state
        return where == self.where and state.images in self.at and state.rewinds < self.tries

    @hookimpl
    def before_run(self, run: Any) -> None:
        self.run = run


class PoisonedLoss(Hinge):
    """Hinge, whose generator's term or gradient may be poisoned."""

    poison: Poison

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, torch.Tensor]:
        terms = super().generator(fake, real)
        if self.poison.due("loss"):
            terms["extra"] = fake.score.sum() * BAD
        if self.poison.due("gradient"):
            terms["extra"] = (fake.score * 0.0).abs().sqrt().sum()  # 0, with an infinite slope
        return terms


class Fuse(nn.Module):
    """A layer that returns NaN when it is poisoned, and keeps a running mean of its inputs."""

    def __init__(self, poison: Poison) -> None:
        super().__init__()
        self.poison = poison
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.poison.due("layer"):
            x = x * BAD
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return x


class PoisonedArchitecture(PGGAN):
    """PGGAN, with a fuse in the discriminator's newest block."""

    poison: Poison

    def __init__(self) -> None:
        super().__init__(channels=4)

    def discriminator_block(self, stage: Any, previous: Any, resampling: Any) -> nn.Module:
        block = super().discriminator_block(stage, previous, resampling)
        return nn.Sequential(block, Fuse(self.poison)) if stage.index == 1 else block


TrainPoisoned = Callable[..., Any]


@pytest.fixture
def train_poisoned(tiny: Callable[..., str]) -> TrainPoisoned:
    """Return a function that trains a poisoned tiny experiment: `train_poisoned(poison, "train.seed = 1", ...)`."""
    base = "".join(line for line in TINY.splitlines(keepends=True) if "architectures.PGGAN." not in line)

    def run(poison: Poison, *lines: str, run_dir: str = "run", plugins: tuple[Any, ...] = ()) -> Any:
        chosen = ["train.loss = @losses.Poisoned()", "train.architecture = @architectures.Frail()"]
        file = tiny(*chosen, *lines, base=base)
        return pggan_kit.train(file, run_dir=run_dir, plugins=[STUB, *list_poisoned_plugins(poison), *plugins])

    return run


def list_poisoned_plugins(poison: Poison) -> list[Any]:
    """Return the components that it poisons, and itself."""
    loss = type("Poisoned", (PoisonedLoss,), {"poison": poison})
    architecture = type("Frail", (PoisonedArchitecture,), {"poison": poison})
    return [Component("losses", "Poisoned", loss), Component("architectures", "Frail", architecture), poison]


MODES = pytest.mark.parametrize("each_step", [True, False], ids=["as on a CPU", "as on a GPU"])


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return a function that chooses where the flag is read: `mode(False)`, at ticks alone."""
    return lambda each_step: monkeypatch.setattr(guards, "checks_each_step", lambda device: each_step)


def all_finite(run: Path) -> bool:
    """Return whether all checkpoints of a run are finite."""
    checkpoints = RunDirectory(run).checkpoints()
    return all(is_finite(checkpoints.load(entry).content()) for entry in checkpoints.read_entries())


def is_finite(content: Any) -> bool:
    if isinstance(content, torch.Tensor):
        return bool(content.isfinite().all())
    if isinstance(content, dict):
        return all(is_finite(value) for value in content.values())
    if isinstance(content, (list, tuple)):
        return all(is_finite(value) for value in content)
    return math.isfinite(content) if isinstance(content, float) else True


CASES = {
    "loss": (
        Poison("loss", (12,)),
        r"^the generator's extra and the gradient of its \S+, \S+, \S+ and \d+ more became non-finite at images "
        r"12 \(stage 8x8, fade, alpha 0\.500\)\. The state",
    ),
    "gradient": (Poison("gradient", (20,)), r"^the gradient of the generator's \S+, .* \(stage 8x8, stable, a"),
    "layer": (
        Poison("layer", (12,)),
        r"^the discriminator's hinge and the gradient of its .* First seen in the output of "
        r"discriminator\.blocks\.1\.1 \(Fuse\)\. The state before this step is saved",
    ),
}


@MODES
@pytest.mark.parametrize("case", CASES)
def test_by_default_a_run_stops_before_the_step_and_names_the_culprit(
    case: str, each_step: bool, train_poisoned: TrainPoisoned, mode: Callable[[bool], None]
) -> None:
    poison, text = CASES[case]
    mode(each_step)
    with pytest.raises(TrainingError, match=text):
        train_poisoned(poison)
    clock = poison.at[0]
    assert last(Path("run"))["images"] == clock and all_finite(Path("run"))
    assert [row["images"] for row in rows(Path("run"))] == [at for at in (8, 16, 24, 32, 40) if at <= clock]


@MODES
def test_what_is_saved_is_the_state_before_the_step(
    each_step: bool, train_poisoned: TrainPoisoned, mode: Callable[[bool], None]
) -> None:
    """Compare with the weights of a healthy run at that clock; D had moved in the step that failed."""
    seen: dict[str, Any] = {}

    class Look:
        @hookimpl
        def after_step(self, state: Any) -> None:
            if state.images == 12:
                seen.update({name: value.clone() for name, value in state.discriminator.state_dict().items()})

    train_poisoned(Poison("loss", ()), *TWO_STAGES, run_dir="healthy", plugins=(Look(),))
    mode(each_step)
    with pytest.raises(TrainingError):
        train_poisoned(Poison("loss", (12,)), *TWO_STAGES)
    assert are_equal(dict(last(Path("run"))["discriminator"]), seen)


@MODES
def test_a_step_may_be_skipped(each_step: bool, train_poisoned: TrainPoisoned, mode: Callable[[bool], None]) -> None:
    """Check that neither weights nor running statistics change; the clock moves past the step, and it is counted."""
    mode(each_step)
    steps: list[int] = []

    class Count:
        @hookimpl
        def after_step(self, state: Any) -> None:
            steps.append(state.images)

    skip = [*TWO_STAGES, "train.non_finite = 'skip'"]
    run = train_poisoned(Poison("layer", (12, 20)), *skip, plugins=(Count(),))
    assert run.state.images == 32 and run.state.steps == 8 and run.state.dropped == 2
    if each_step:
        assert steps == [4, 8, 12, 20, 28, 32], "hooks are not called for a step that was dropped"
    assert all_finite(Path("run"))
    assert [row["Progress/dropped_steps"] for row in rows(Path("run"))] == [0, 1, 2, 2]
    log = Path("run/log.txt").read_text()
    assert re.search(r"the discriminator's hinge .* at images 12 \(.*\): step dropped \(1 of 10\)", log)
    if not each_step:
        mode(True)
        train_poisoned(Poison("layer", (12, 20)), *skip, run_dir="checked")
        assert_same_run(Path("run"), Path("checked"))


@MODES
def test_skipping_has_a_limit(each_step: bool, train_poisoned: TrainPoisoned, mode: Callable[[bool], None]) -> None:
    mode(each_step)
    with pytest.raises(TrainingError, match=r"at images 20 \(.*, after 2 dropped steps\. The state before"):
        train_poisoned(Poison("loss", (8, 12, 20)), "train.non_finite = 'skip'", "train.non_finite_limit = 2")
    assert last(Path("run"))["images"] == 20 and all_finite(Path("run"))


@MODES
def test_a_run_may_go_back_and_take_other_latents(
    each_step: bool, train_poisoned: TrainPoisoned, mode: Callable[[bool], None]
) -> None:
    mode(each_step)
    rewind = [*TWO_STAGES, "train.non_finite = 'rewind'", "train.tick = 16"]
    run = train_poisoned(Poison("loss", (12,), tries=2), *rewind)
    assert run.state.rewinds == 2 and run.state.images == 32 and all_finite(Path("run"))
    assert [row["Progress/rewinds"] for row in rows(Path("run"))] == [0, 2, 2]
    log = Path("run/log.txt").read_text()
    assert re.search(r"at images 12 \(.*\): back to images 8 with new latents \(2 of 10\)", log)
    if each_step:
        healthy = train_poisoned(Poison("loss", ()), *rewind, run_dir="healthy")
        assert not are_equal(healthy.state.generator.state_dict(), run.state.generator.state_dict())
    else:
        mode(True)
        train_poisoned(Poison("loss", (12,), tries=2), *rewind, run_dir="checked")
        assert_same_run(Path("run"), Path("checked"))


def test_what_a_growth_showed_is_written_once_where_the_run_goes_back_before_it(train_poisoned: TrainPoisoned) -> None:
    """The step after the growth at images 8 fails; what was saved is the run's own, which no branch began."""
    seen: list[bool] = []

    class Watch:
        @hookimpl
        def save_state(self) -> dict[str, Any]:
            return {}

        @hookimpl
        def load_state(self, run: Any) -> None:
            seen.append(run.is_new_branch)

    observed = ("train.observers = [@observers.Coherence()]", "observers.Coherence.count = 4")
    train_poisoned(Poison("loss", (8,), tries=1), "train.non_finite = 'rewind'", *observed, plugins=(Watch(),))
    places = [(row["at"], row["size"]) for row in JsonLines(Path("run/coherence.jsonl")).read(pytest.fail)]
    assert places[:2] == [(8, "8x8"), (16, "8x8")] and len(set(places)) == len(places)
    assert seen == [False]


@MODES
@pytest.mark.parametrize("keep", [1, 2])
def test_a_run_that_was_stopped_goes_back_to_where_another_goes_back_to(
    keep: int, each_step: bool, train_poisoned: TrainPoisoned, mode: Callable[[bool], None]
) -> None:
    """To the last tick, at 16, and not to the checkpoint of the stop at 20."""
    mode(each_step)
    poison = Poison("loss", (20,), tries=1)
    lines = [*TWO_STAGES, "train.non_finite = 'rewind'", "train.tick = 16", f"train.keep = {keep}"]
    train_poisoned(poison, *lines, run_dir="whole")
    with pytest.raises(Interrupted):
        train_poisoned(poison, *lines, plugins=(StopAt(20),))
    assert last(Path("run"))["images"] == 20
    resume("run", plugins=[STUB, *list_poisoned_plugins(poison)])
    assert "back to images 16 with new latents (1 of 10)" in Path("run/log.txt").read_text()
    assert_same_run(Path("run"), Path("whole"))


@MODES
def test_a_run_goes_back_to_its_last_tick_whether_that_was_written_or_not(
    each_step: bool, train_poisoned: TrainPoisoned, mode: Callable[[bool], None]
) -> None:
    """To 32, of which there is no checkpoint: that before it, which a killed process begins from, is at 16."""
    mode(each_step)
    poison = Poison("loss", (36,), tries=1)
    lines = [
        "train.non_finite = 'rewind'",
        "train.checkpoint_every = 'phase'",
        "schedule.sizes = (4, 8)",
        "schedule.stable_images = {4: 8, 8: 24}",
    ]
    whole = train_poisoned(poison, *lines, run_dir="whole")
    assert whole.state.rewinds == 1

    # Stopped where it would fail, and resumed.
    with pytest.raises(Interrupted):
        train_poisoned(poison, *lines, run_dir="stopped", plugins=(StopAt(36),))
    assert last(Path("stopped"))["images"] == 36
    resume("stopped", plugins=[STUB, *list_poisoned_plugins(poison)])

    # Killed there.
    def train_until_killed() -> None:
        train_poisoned(poison, *lines, run_dir="killed", plugins=(KillAt(36),))

    assert in_a_child(train_until_killed) == -signal.SIGKILL
    assert last(Path("killed"))["images"] == 16
    resume("killed", plugins=[STUB, *list_poisoned_plugins(poison)])

    # Both go back to the same place.
    for folder in ("stopped", "killed"):
        assert "back to images 32 with new latents (1 of 10)" in Path(folder, "log.txt").read_text()
        assert_same_run(Path(folder), Path("whole"))


def test_a_run_whose_rate_changed_between_ticks_goes_back_to_the_change(
    train_poisoned: TrainPoisoned, mode: Callable[[bool], None]
) -> None:
    """To 26, also where it was stopped at 28: the tick at 24 holds the old rate, which would hold without a word."""
    mode(True)
    poison = Poison("loss", (28,), tries=1)
    plugins = [STUB, *list_poisoned_plugins(poison)]
    lines = [*TWO_STAGES, "train.non_finite = 'rewind'", "schedule.batch_size = 2"]
    with pytest.raises(Interrupted):
        train_poisoned(poison, *lines, plugins=(StopAt(26),))
    shutil.copytree("run", "whole")
    rate = "g/optimizers.Adam.lr = 0.25"
    run = resume("whole", [rate], plugins=plugins)
    with pytest.raises(Interrupted):
        resume("run", [rate], plugins=[*plugins, StopAt(28)])
    # The checkpoint of a stop has what it goes back to.
    (change,) = Path("run/checkpoints").glob("*26-*.pt")
    change.write_bytes(b"")
    resume("run", plugins=plugins)

    assert run.state.optimizers["generator"].param_groups[0]["lr"] == 0.25
    for folder in map(Path, ("whole", "run")):
        assert "back to images 26 with new latents (1 of 10)" in (folder / "log.txt").read_text()
        assert [entry["images"] for entry in RunDirectory(folder).about()["changes"]] == [26]
    assert_same_run(Path("run"), Path("whole"))


@MODES
def test_rewinding_has_a_limit(each_step: bool, train_poisoned: TrainPoisoned, mode: Callable[[bool], None]) -> None:
    mode(each_step)
    with pytest.raises(TrainingError, match=r"at images 12 \(.*, after 3 rewinds\. The state before"):
        train_poisoned(Poison("loss", (12,)), "train.non_finite = 'rewind'", "train.non_finite_limit = 3")
    assert last(Path("run"))["images"] == 12 and last(Path("run"))["rewinds"] == 3


def test_the_first_tick_is_guarded_too(train_poisoned: TrainPoisoned, mode: Callable[[bool], None]) -> None:
    mode(False)
    with pytest.raises(TrainingError, match=r"at images 4 \(stage 4x4"):
        train_poisoned(Poison("loss", (4,)), "train.tick = 1000")
    assert last(Path("run"))["images"] == 4


def test_a_run_that_diverged_can_be_resumed_under_another_policy(train_poisoned: TrainPoisoned) -> None:
    """Check that the checkpoint is complete: only the config kept the run from going on."""
    with pytest.raises(TrainingError):
        train_poisoned(Poison("loss", (12,)))
    config = Path("run/config.gin")
    config.write_text(config.read_text() + "train.non_finite = 'skip'\n")
    assert resume("run", plugins=[STUB, *list_poisoned_plugins(Poison("loss", (12,)))]).state.dropped == 1


def test_the_guard_sees_every_kind_of_bad_number_and_changes_none() -> None:
    guard = Guard(torch.device("cpu"))
    net = nn.Linear(3, 2)
    for bad in (math.nan, math.inf, -math.inf):
        for name in ("weight", "bias"):
            for param in net.parameters():
                param.grad = torch.full_like(param, 3e38)
            good = torch.tensor(1.0)
            guard.check("generator", {"a": good}, good, net)
            assert all(bool((param.grad == 3e38).all()) for param in net.parameters() if param.grad is not None)
            grad = getattr(net, name).grad
            grad.view(-1)[-1] = bad
            with pytest.raises(NonFiniteError, match=f"^the gradient of the generator's {name}$"):
                guard.check("generator", {"a": good}, good, net)
        wrong = torch.tensor(bad)
        net.zero_grad()
        with pytest.raises(NonFiniteError, match=r"^the discriminator's b$"):
            guard.check("discriminator", {"a": good, "b": wrong}, wrong, net)
    guard.check("generator", {"a": good}, good, net)


def test_a_collapse_is_warned_of_once_a_stage(train: Callable[..., Any]) -> None:
    """Let all latents give one image: the statistic is near 0."""

    class Flatten:
        @hookimpl
        def before_stage(self, state: Any) -> None:
            for net in (state.generator, state.ema):
                for param in net.to_image.parameters():
                    param.data.zero_()

    lines = ["train.collapse_below = 0.05", "optimizers.Adam.lr = 1e-9"]
    with pytest.warns(UserWarning, match=r"images vary 0\.0\d\d times as much as the data, less than") as caught:
        train(*lines, plugins=(Flatten(),), run_dir="run")
    assert len([w for w in caught if "collapsed" in str(w.message)]) == 3
    values = [row["Progress/diversity"] for row in rows(Path("run"))]
    assert len(values) == 5
    assert all(0 <= value < 0.05 for value in values)
    assert Path("run/log.txt").read_text().count("has it collapsed?") == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train("train.collapse_below = 0.0", "optimizers.Adam.lr = 1e-9", plugins=(Flatten(),), run_dir="quiet")
    assert "Progress/diversity" not in json.loads(Path("quiet/stats.jsonl").read_text().splitlines()[0])


def test_diversity_of_known_images(train: Callable[..., Any]) -> None:
    """Check that the data's own images have diversity 1, and those of half their contrast 0.5."""
    run = train("datasets.Stub.n = 64")

    class Sampler:
        values = BYTES

        def batch(self, position: int, count: int) -> tuple[torch.Tensor, None]:
            shape = (count, 1, 4, 4)
            return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(position)), None

    def images(contrast: float) -> Callable[..., torch.Tensor]:
        reals, _ = Sampler().batch(run.state.images, DIVERSITY_IMAGES)
        return lambda latents, labels: contrast * (reals / 127.5 - 1.0)

    for contrast in (1.0, 0.5, 0.0):
        run.generate = images(contrast)
        assert measure_diversity(run, Sampler()) == pytest.approx(contrast)
