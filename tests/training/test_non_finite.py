"""Numbers that die: found before they move a weight, named, and dealt with as `train.non_finite` says."""

import json
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from helpers.killing import assert_same_run, last, rows
from helpers.paths import STUB_PLUGIN
from torch import nn

import pggan_kit
from pggan_kit import Component, Scores, hookimpl
from pggan_kit.api.train import resume
from pggan_kit.errors import TrainingError
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.testing.support import equal
from pggan_kit.training import non_finite as guards
from pggan_kit.training.non_finite import Guard, NonFiniteError
from pggan_plugins.architectures import PGGAN
from pggan_plugins.losses import Hinge

STUB = str(STUB_PLUGIN)
BAD = math.nan


class Poison:
    """What dies, and when: by the clock before the step, as data, so that a repeated step dies again.

    Args:
        where: `loss`, `gradient` or `layer`.
        at: clocks of the steps.
        streams: only for so many tries: with other latents all is well.
    """

    def __init__(self, where: str, at: tuple[int, ...], tries: int = 1000) -> None:
        self.where, self.at, self.tries = where, at, tries
        self.run: Any = None

    def due(self, where: str) -> bool:
        state = self.run.state
        return where == self.where and state.images in self.at and state.rewinds < self.tries

    @hookimpl
    def before_run(self, run: Any) -> None:
        self.run = run


class DyingLoss(Hinge):
    """Hinge, with a poisoned generator's term or gradient."""

    poison: Poison

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, torch.Tensor]:
        terms = super().generator(fake, real)
        if self.poison.due("loss"):
            terms["extra"] = fake.score.sum() * BAD
        if self.poison.due("gradient"):
            terms["extra"] = (fake.score * 0.0).abs().sqrt().sum()  # 0, with an infinite slope
        return terms


class Fuse(nn.Module):
    """A layer that hands on NaN when it is poisoned, and keeps a running mean of what it sees."""

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


class DyingArchitecture(PGGAN):
    """PGGAN, with a fuse in the discriminator's newest block."""

    poison: Poison

    def __init__(self) -> None:
        super().__init__(channels=4)

    def discriminator_block(self, stage: Any, previous: Any, resampling: Any) -> nn.Module:
        block = super().discriminator_block(stage, previous, resampling)
        return nn.Sequential(block, Fuse(self.poison)) if stage.index == 1 else block


Dying = Callable[..., Any]


@pytest.fixture
def dying(tiny: Callable[..., str]) -> Dying:
    """`dying(poison, "train.seed = 1", ..., run_dir=...)` trains a poisoned tiny experiment."""
    base = "".join(line for line in TINY.splitlines(keepends=True) if "architectures.PGGAN." not in line)

    def run(poison: Poison, *lines: str, run_dir: str = "run", plugins: tuple[Any, ...] = ()) -> Any:
        chosen = ["train.loss = @losses.Dying()", "train.architecture = @architectures.Frail()"]
        file = tiny(*chosen, *lines, base=base)
        return pggan_kit.train(file, run_dir=run_dir, plugins=[STUB, *poisoned(poison), *plugins])

    return run


def poisoned(poison: Poison) -> list[Any]:
    """The parts that it poisons, and itself."""
    loss = type("Dying", (DyingLoss,), {"poison": poison})
    architecture = type("Frail", (DyingArchitecture,), {"poison": poison})
    return [Component("losses", "Dying", loss), Component("architectures", "Frail", architecture), poison]


MODES = pytest.mark.parametrize("each_step", [True, False], ids=["as on a CPU", "as on a GPU"])


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """`mode(False)`: only a flag is set in each step, and read at ticks."""
    return lambda each_step: monkeypatch.setattr(guards, "checks_each_step", lambda device: each_step)


def all_finite(run: Path) -> bool:
    """Whether all checkpoints of a run are."""
    checkpoints = RunDirectory(run).checkpoints()
    return all(finite(checkpoints.load(entry).content()) for entry in checkpoints.entries())


def finite(content: Any) -> bool:
    if isinstance(content, torch.Tensor):
        return bool(content.isfinite().all())
    if isinstance(content, dict):
        return all(finite(value) for value in content.values())
    if isinstance(content, (list, tuple)):
        return all(finite(value) for value in content)
    return not isinstance(content, float) or math.isfinite(content)


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
def test_by_default_a_run_stops_before_the_step_and_names_what_died(
    case: str, each_step: bool, dying: Dying, mode: Callable[[bool], None]
) -> None:
    poison, text = CASES[case]
    mode(each_step)
    with pytest.raises(TrainingError, match=text):
        dying(poison)
    clock = poison.at[0]
    assert last(Path("run"))["images"] == clock and all_finite(Path("run"))
    assert [row["images"] for row in rows(Path("run"))] == [at for at in (8, 16, 24, 32, 40) if at <= clock]


@MODES
def test_what_is_saved_is_the_state_before_the_step(
    each_step: bool, dying: Dying, mode: Callable[[bool], None]
) -> None:
    """The same weights as those of a healthy run that is stopped there; D had moved in the step that died."""
    seen: dict[str, Any] = {}

    class Look:
        @hookimpl
        def after_step(self, state: Any) -> None:
            if state.images == 12:
                seen.update({name: value.clone() for name, value in state.discriminator.state_dict().items()})

    dying(Poison("loss", ()), run_dir="healthy", plugins=(Look(),))
    mode(each_step)
    with pytest.raises(TrainingError):
        dying(Poison("loss", (12,)))
    assert equal(dict(last(Path("run"))["discriminator"]), seen)


@MODES
def test_a_step_may_be_skipped(each_step: bool, dying: Dying, mode: Callable[[bool], None]) -> None:
    """Neither weights nor running statistics see it; the clock moves past it, and it is counted."""
    mode(each_step)
    steps: list[int] = []

    class Count:
        @hookimpl
        def after_step(self, state: Any) -> None:
            steps.append(state.images)

    run = dying(Poison("layer", (12, 20)), "train.non_finite = 'skip'", plugins=(Count(),))
    assert run.state.images == 40 and run.state.steps == 10 and run.state.dropped == 2
    if each_step:
        assert steps == [4, 8, 12, 20, 28, 32, 36, 40], "hooks do not hear of a step that was left out"
    assert all_finite(Path("run"))
    assert [row["Progress/dropped_steps"] for row in rows(Path("run"))] == [0, 1, 2, 2, 2]
    log = Path("run/log.txt").read_text()
    assert re.search(r"the discriminator's hinge .* at images 12 \(.*\): step dropped \(1 of 10\)", log)
    mode(True)
    dying(Poison("layer", (12, 20)), "train.non_finite = 'skip'", run_dir="checked")
    assert_same_run(Path("run"), Path("checked"))


@MODES
def test_skipping_has_a_limit(each_step: bool, dying: Dying, mode: Callable[[bool], None]) -> None:
    mode(each_step)
    with pytest.raises(TrainingError, match=r"at images 20 \(.*, after 2 dropped steps\. The state before"):
        dying(Poison("loss", (8, 12, 20)), "train.non_finite = 'skip'", "train.non_finite_limit = 2")
    assert last(Path("run"))["images"] == 20 and all_finite(Path("run"))


@MODES
def test_a_run_may_go_back_and_take_other_latents(each_step: bool, dying: Dying, mode: Callable[[bool], None]) -> None:
    mode(each_step)
    rewind = ["train.non_finite = 'rewind'", "train.tick = 16"]
    run = dying(Poison("loss", (12,), tries=2), *rewind)
    assert run.state.rewinds == 2 and run.state.images == 40 and all_finite(Path("run"))
    assert [row["Progress/rewinds"] for row in rows(Path("run"))] == [0, 2, 2, 2, 2]
    log = Path("run/log.txt").read_text()
    assert re.search(r"at images 12 \(.*\): back to images 8 with new latents \(2 of 10\)", log)
    healthy = dying(Poison("loss", ()), *rewind, run_dir="healthy")
    assert not equal(healthy.state.generator.state_dict(), run.state.generator.state_dict())
    mode(True)
    dying(Poison("loss", (12,), tries=2), *rewind, run_dir="checked")
    assert_same_run(Path("run"), Path("checked"))


@MODES
def test_rewinding_has_a_limit(each_step: bool, dying: Dying, mode: Callable[[bool], None]) -> None:
    mode(each_step)
    with pytest.raises(TrainingError, match=r"at images 12 \(.*, after 3 rewinds\. The state before"):
        dying(Poison("loss", (12,)), "train.non_finite = 'rewind'", "train.non_finite_limit = 3")
    assert last(Path("run"))["images"] == 12 and last(Path("run"))["rewinds"] == 3


def test_the_first_tick_is_guarded_too(dying: Dying, mode: Callable[[bool], None]) -> None:
    mode(False)
    with pytest.raises(TrainingError, match=r"at images 4 \(stage 4x4"):
        dying(Poison("loss", (4,)), "train.tick = 1000")
    assert last(Path("run"))["images"] == 4


def test_a_run_that_stopped_dying_can_be_resumed_under_another_policy(dying: Dying) -> None:
    """What is saved is whole: only the config forbids to go on."""
    with pytest.raises(TrainingError):
        dying(Poison("loss", (12,)))
    config = Path("run/config.gin")
    config.write_text(config.read_text() + "train.non_finite = 'skip'\n")
    assert resume("run", plugins=[STUB, *poisoned(Poison("loss", (12,)))]).state.dropped == 1


def test_the_guard_sees_every_kind_of_bad_number_and_changes_none() -> None:
    guard, net = Guard(torch.device("cpu")), nn.Linear(3, 2)
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


def test_a_collapse_is_told_once_a_stage(train: Callable[..., Any]) -> None:
    """All latents give one image: the statistic is near 0."""

    class Flatten:
        @hookimpl
        def before_stage(self, state: Any) -> None:
            for net in (state.generator, state.ema):
                for param in net.to_image.parameters():
                    param.data.zero_()

    told = ["train.collapse_below = 0.05", "optimizers.Adam.lr = 1e-9"]
    with pytest.warns(UserWarning, match=r"images vary 0\.0\d\d times as much as the data, less than") as caught:
        train(*told, plugins=(Flatten(),), run_dir="run")
    assert len([w for w in caught if "collapsed" in str(w.message)]) == 3
    found = [row["Progress/diversity"] for row in rows(Path("run"))]
    assert len(found) == 5 and all(0 <= value < 0.05 for value in found)
    assert Path("run/log.txt").read_text().count("has it collapsed?") == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train("train.collapse_below = 0.0", "optimizers.Adam.lr = 1e-9", plugins=(Flatten(),), run_dir="quiet")
    assert "Progress/diversity" not in json.loads(Path("quiet/stats.jsonl").read_text().splitlines()[0])


def test_diversity_of_known_images(train: Callable[..., Any]) -> None:
    """A generator whose images are the data's has diversity 1; half of their contrast, 0.5."""
    from pggan_kit.training.measures import DIVERSITY_IMAGES, diversity

    run = train("datasets.Stub.n = 64")

    class Sampler:
        def batch(self, position: int, count: int) -> tuple[torch.Tensor, None]:
            shape = (count, 1, 4, 4)
            return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(position)), None

    def images(contrast: float) -> Callable[..., torch.Tensor]:
        found, _ = Sampler().batch(run.state.images, DIVERSITY_IMAGES)
        return lambda latents, labels: contrast * (found / 127.5 - 1.0)

    for contrast in (1.0, 0.5, 0.0):
        run.generate = images(contrast)
        assert diversity(run, Sampler()) == pytest.approx(contrast)
