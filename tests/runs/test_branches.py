"""Test branches: a new run from another's state, at a stage's end or its last; and what does not fit."""

import hashlib
import json
import math
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from conftest import STUB, TINY
from helpers.gin_text import bind_again
from helpers.killing import StopAt, last, rows

import pggan_kit
from pggan_kit import Component, hookimpl
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, RunError, TrainingError
from pggan_kit.runs.average import draw_calibration_labels
from pggan_kit.runs.branches import find_trunk, list_lineage
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.testing.support import are_equal

Branch = Callable[..., Any]


@pytest.fixture
def trunk(copy_finished_run: Callable[[str], Path]) -> Path:
    """Return a copy of a finished run in the working folder."""
    return copy_finished_run("trunk")


@pytest.fixture
def branch(tiny: Callable[..., str]) -> Branch:
    """Return a function: `branch("trunk@1", "train.seed = 1", ..., plugins=...)` starts `branch/` from there."""

    def run(start: str, *lines: str, run_dir: str = "branch", plugins: tuple[Any, ...] = (), base: str = TINY) -> Any:
        config = tiny(*lines, base=base)
        return pggan_kit.train(config, run_dir=run_dir, plugins=[str(STUB), *plugins], start_from=start)

    return run


@pytest.mark.parametrize("stage", ["@0", "@8x8"])
def test_a_branch_that_changes_nothing_ends_as_its_trunk(stage: str, trunk: Path, branch: Branch) -> None:
    """From a stage's end, with the same config: the same weights and optimizers bit for bit."""
    run = branch(f"trunk{stage}")
    resumed = resume("trunk", plugins=[STUB])
    assert not run.resumed and are_equal(last(run.directory), last(resumed.directory))
    begun = 8 if stage == "@0" else 24
    assert rows(Path("branch")) == [row for row in rows(trunk) if row["images"] > begun]


def test_it_is_said_where_a_branch_begins(
    trunk: Path, tiny: Callable[..., str], cli: Callable[..., Result], stub: str
) -> None:
    options = ["--plugin", stub, "--from", "trunk@0", "-b", "schedule.sizes = (4, 8)"]
    longer = ["-b", "schedule.stable_images = {4: 1008, 8: 400}", "-b", "schedule.batch_size = 500"]
    result = cli("train", tiny(), *options, "--run-dir", "longer", *longer)
    said = "from trunk@0 at images 8 of stage 4x4, which goes on until images 1,008"
    assert result.stderr.splitlines() == [said], result.output
    assert said in Path("longer/log.txt").read_text()
    result = cli("train", tiny(), *options, "--run-dir", "same")
    assert result.stderr.splitlines() == ["from trunk@0 at images 8 of stage 4x4, which is over; stage 8x8 is next"]


def test_a_branch_records_where_it_came_from_and_needs_its_trunk_no_more(trunk: Path, branch: Branch) -> None:
    with pytest.raises(Interrupted):
        branch("trunk@1", "schedule.stable_images = 24", plugins=(StopAt(28),))
    origin = json.loads(Path("branch/run.json").read_text())["from"]
    file = trunk / "checkpoints" / origin["checkpoint"]
    assert origin == {
        "run": str(trunk.resolve()),
        "checkpoint": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "images": 24,
        "size": "8x8",
        "started": json.loads((trunk / "run.json").read_text())["started"],
    }
    assert "from" not in json.loads((trunk / "run.json").read_text())
    shutil.rmtree(trunk)
    assert resume("branch", plugins=[STUB]).state.images == 88


def test_a_stage_is_lengthened(trunk: Path, branch: Branch) -> None:
    run = branch("trunk@1", "schedule.stable_images = {4: 8, 8: 24, 16: 8}")
    assert run.state.starts == [0, 8, 40] and run.state.images == 56
    whole = pggan_kit.train("tiny.gin", run_dir="whole", plugins=[str(STUB)])
    assert are_equal(run.state.generator.state_dict(), whole.state.generator.state_dict()), "the same as in one run"


def test_a_finished_run_is_lengthened_from_its_last_checkpoint(trunk: Path, branch: Branch) -> None:
    run = branch("trunk", "schedule.total_images = 60")
    assert run.state.starts == [0, 8, 24] and run.state.images == 60


def test_a_branch_is_tuned_on_other_data_with_other_settings(trunk: Path, branch: Branch) -> None:
    rates: list[float] = []

    class Look:
        @hookimpl
        def before_stage(self, state: Any) -> None:
            group = state.optimizers["generator"].param_groups[0]
            rates.append(group["lr"])
            assert state.optimizers["generator"].state, "the optimizer's state is loaded"

    lines = ["datasets.Stub.n = 20", "optimizers.Adam.lr = 0.5e-3", "schedule.total_images = 48", "train.seed = 7"]
    run = branch("trunk", *lines, plugins=(Look(),))
    assert rates == [0.5e-3] and run.state.images == 48
    assert run.identity["dataset"]["images"] == "20"


CURVE = ["optimizers.Adam.lr = @curves.Linear()", "curves.Linear.begin = 1e-3", "curves.Linear.end = 0.0"]


class Rates:
    """Notes the generator's rate of each step, by the clock after it."""

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}

    @hookimpl
    def after_step(self, state: Any) -> None:
        self.seen[state.images] = state.optimizers["generator"].param_groups[0]["lr"]

    def check(self, first: int) -> None:
        wanted = {images: 1e-3 * (1 - (images - 4) / 24) for images in range(first, 25, 4)}
        assert self.seen == pytest.approx(wanted)


def test_a_branch_and_a_resumed_run_follow_a_new_curve_from_their_clock_on(
    trunk: Path, branch: Branch, train: Callable[..., Any]
) -> None:
    sizes = "schedule.sizes = (4, 8)"
    rates = Rates()
    branch("trunk@0", sizes, *CURVE, plugins=(rates,))
    rates.check(12)

    with pytest.raises(Interrupted):
        train(sizes, run_dir="stopped", plugins=(StopAt(16),))
    resumed = Rates()
    resume("stopped", CURVE, plugins=[str(STUB), resumed])
    resumed.check(20)

    # And back to a number, which the rate in the checkpoint does not hide.
    with pytest.raises(Interrupted):
        train(sizes, *CURVE, run_dir="moving", plugins=(StopAt(16),))
    constant = Rates()
    resume("moving", ["optimizers.Adam.lr = 5e-4"], plugins=[str(STUB), constant])
    assert set(constant.seen.values()) == {5e-4}


def test_a_branch_amid_a_fade_goes_on_with_it(branch: Branch, train: Callable[..., Any]) -> None:
    with pytest.raises(Interrupted):
        train(run_dir="trunk", plugins=(StopAt(12),))
    alphas: list[float] = []

    class Look:
        @hookimpl
        def after_step(self, run: Any) -> None:
            alphas.append(run.alpha["generator"])

    branch("trunk", "schedule.fade_images = 16", plugins=(Look(),))
    assert alphas[:4] == [0.25, 0.5, 0.75, 1.0], "the new schedule governs from there"


class Late:
    """A switch that prepares itself in `before_run`, and fades from 0 only once it has the state that it saved."""

    @hookimpl
    def before_run(self) -> None:
        self.seen = 0

    @hookimpl
    def after_step(self) -> None:
        self.seen += 1

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        return progress if self.seen else 1.0

    @hookimpl
    def save_state(self) -> dict[str, int]:
        return {"seen": self.seen}

    @hookimpl
    def load_state(self, saved: dict[str, int]) -> None:
        self.seen = saved["seen"]


class Lates:
    """A plugin whose switch is `Late`."""

    @hookimpl
    def components(self) -> list[Component]:
        return [Component("switches", "Late", Late)]


def test_a_switch_is_asked_when_it_has_the_state_that_it_saved(branch: Branch, train: Callable[..., Any]) -> None:
    """In a branch amid a fade, which goes on as the run would, and in a run that is resumed with another switch."""
    late = "train.switch = @switches.Late()"
    sizes = "schedule.sizes = (4, 8)"
    with pytest.raises(Interrupted):
        train(sizes, late, run_dir="trunk", plugins=(StopAt(12), Lates()))
    run = branch("trunk", sizes, late, plugins=(Lates(),))
    whole = train(sizes, late, run_dir="whole", plugins=(Lates(),))
    assert are_equal(run.state.generator.state_dict(), whole.state.generator.state_dict())
    with pytest.raises(Interrupted):
        train(sizes, run_dir="linear", plugins=(StopAt(12),))
    assert resume("linear", [late], plugins=[str(STUB), Lates()]).state.images == 24


@pytest.mark.usefixtures("few_calibrations")
def test_averages_of_a_branch_are_calibrated_with_its_own_labels(branch: Branch, train: Callable[..., Any]) -> None:
    base = TINY.replace("architectures.PGGAN.channels = 4\n", "")
    lines = ["train.architecture = @architectures.ResNet()", "architectures.ResNet.channels = 4"]
    lines += ["architectures.ResNet.conditioning = 'projection'", "train.tick = 100"]
    lines += ["schedule.sizes = (4, 8)", "datasets.Stub.classes = 3"]
    train(*lines, run_dir="trunk", base=base)
    run = branch("trunk@0", *lines, "train.seed = 7", base=base)
    labels = draw_calibration_labels(run.experiment, run.state.stage)
    assert torch.equal(last(Path("branch"))["calibration_labels"], labels)
    assert not torch.equal(last(Path("trunk"))["calibration_labels"], labels)


def test_what_parts_saved_is_taken_where_the_same_part_stands(branch: Branch, train: Callable[..., Any]) -> None:
    ada = ["train.augmentation = @augmentations.ADA()", "augmentations.ADA.p = {}"]
    train(*[line.format(0.25) for line in ada], run_dir="trunk")
    run = branch("trunk", *[line.format(0.0) for line in ada], "schedule.total_images = 48")
    assert run.experiment.augmentation.p == 0.25
    message = (
        r"state that train\.augmentation \(ADA\) saved is not loaded: this config has nothing there that loads one"
    )
    with pytest.warns(UserWarning, match=message):
        branch("trunk", "train.augmentation = @augmentations.Noise()", "schedule.total_images = 48", run_dir="other")


def test_other_optimizers_begin_anew_and_it_is_said(trunk: Path, branch: Branch) -> None:
    joint = [
        "train.update = @updates.JointBatch()",
        "updates.JointBatch.optimizer = @optimizers.SharedAdam()",
        "train.generator_optimizer = None",
        "train.discriminator_optimizer = None",
        "schedule.total_images = 48",
    ]
    with pytest.warns(UserWarning, match="the optimizer both starts from scratch: that run kept no state of it"):
        branch("trunk", *joint)
    assert "the optimizer both starts from scratch" in Path("branch/log.txt").read_text()


def test_a_size_is_added(trunk: Path, branch: Branch) -> None:
    lines = ["schedule.sizes = (4, 8, 16, 32)", "datasets.Stub.height = 32", "datasets.Stub.width = 32"]
    run = branch("trunk@16x16", *lines)
    assert run.state.starts == [0, 8, 24, 40] and run.state.images == 56
    assert run.generate(run.fixed_latents(1)).shape == (1, 1, 32, 32)


class Named:
    """Noise in named classes, of numbers from 0 to `high`."""

    def __init__(self, names: tuple[str, ...], high: int = 255, scale: float = 1.0) -> None:
        self.class_names = list(names)
        self.classes = len(names)
        self.images = np.random.default_rng(1).integers(0, high, (12, 16, 16, 1), endpoint=True)
        self.images = (self.images * scale).astype(np.float32) if scale != 1.0 else self.images.astype(np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def image(self, i: int) -> np.ndarray:
        return self.images[i]

    def label(self, i: int) -> int:
        return i % max(1, self.classes)

    def fingerprint(self) -> str:
        return f"{self.class_names} {self.images.sum()}"


CONDITIONAL = [
    "train.architecture = @architectures.ResNet()",
    "architectures.ResNet.channels = 4",
    "architectures.ResNet.conditioning = 'projection'",
]


def train_on(tiny: Callable[..., str], dataset: Named, run_dir: str, *lines: str, **origins: str) -> Any:
    """Train at 4x4 and 8x8, or other sizes, on a data set that is given as an object."""
    base = bind_again(TINY.replace("train.dataset = @datasets.Stub()\n", ""), ["schedule.sizes = (4, 8)"])
    if any("ResNet" in line for line in lines):
        base = base.replace("architectures.PGGAN.channels = 4\n", "")
    config = tiny(*lines, base=base)
    return pggan_kit.train(config, run_dir=run_dir, parts={"train.dataset": dataset}, **origins)


@pytest.mark.usefixtures("few_calibrations")
@pytest.mark.parametrize("option", ["start_from", "stem"])
def test_classes_keep_their_numbers(option: str, tiny: Callable[..., str]) -> None:
    train_on(tiny, Named(("cat", "dog", "fish")), "trunk", *CONDITIONAL)
    with pytest.raises(RunError, match="class 1 is 'dog' there, and 'eel' in this config's data set"):
        train_on(tiny, Named(("cat", "eel", "fish")), "branch", *CONDITIONAL, **{option: "trunk@0"})
    assert not Path("branch").exists()
    assert train_on(tiny, Named(("cat", "dog", "fish")), "same", *CONDITIONAL, **{option: "trunk@0"}).state.is_over

    # Networks that look at no labels may have any classes.
    train_on(tiny, Named(("cat", "dog")), "unconditional")
    assert train_on(tiny, Named(("dog", "cat")), "other", **{option: "unconditional@0"}).state.is_over


@pytest.mark.parametrize("option", ["start_from", "stem"])
def test_a_measured_range_is_that_of_the_other_run(option: str, tiny: Callable[..., str]) -> None:
    sizes = "schedule.sizes = (4, 16)"  # the range is that of images at the last size, which is the data set's own
    measured = "data.value_range = 'min_max'"
    train_on(tiny, Named((), 200), "trunk", sizes, measured)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".* stands for")
        run = train_on(tiny, Named((), 100), "branch", sizes, measured, **{option: "trunk@0"})
    assert run.values.ranges == ((0.0, 200.0),)
    parts = {"train.dataset": Named((), 100)}
    assert resume("branch", parts=parts).values.ranges == ((0.0, 200.0),)

    # Where it is bound, the difference is said; so it is where numbers have another type.
    said = r"stands for uint8 \(0, 200\) there, and for uint8 \(0, 100\) in this config"
    with pytest.warns(UserWarning, match=said):
        train_on(tiny, Named((), 100), "bound", sizes, "data.value_range = (0, 100)", **{option: "trunk@0"})
    with pytest.warns(UserWarning, match=r"\(0, 200\) there, and for float32 \(0, 50\)"):
        train_on(tiny, Named((), 100, 0.5), "floats", sizes, measured, **{option: "trunk@0"})


REFUSED = {
    "schedule.sizes = (8, 16)": r"sizes 4x4, 8x8, 16x16 there, and 8x8, 16x16 in this config",
    "schedule.sizes = (4, 16)": r"sizes 4x4, 8x8, 16x16 there, and 4x4, 16x16 in this config",
    "train.latent_size = 9": r"train\.latent_size is 8 there, and 9 in this config",
    "architectures.PGGAN.channels = 5": r"architectures\.PGGAN\.channels is 4 there, and 5 in this config",
    "train.architecture = @architectures.ResNet()": r"is @architectures\.PGGAN\(\) there, and @architectures\.ResNet",
    "datasets.Stub.channels = 3": r"images have 1 channels there, and 3 in this config",
    "schedule.total_images = 40": r"begins at images 40, where this config's schedule \(total 40\) has ended",
    "schedule.fade_images = 20": r"fade of stage 16x16 is over there after 16 images of the stage, and takes 20 in",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_does_not_fit_is_refused_by_name(
    line: str, trunk: Path, tiny: Callable[..., str], cli: Callable[..., Result], refused: Callable[..., str]
) -> None:
    base = TINY.replace("architectures.PGGAN.channels = 4\n", "") if "ResNet" in line else TINY
    more = [] if "total" in line or "fade" in line else ["schedule.total_images = 48"]
    args = ["train", tiny(line, *more, base=base), "--plugin", STUB, "--from", "trunk"]
    refused(cli(*args, "--run-dir", "branch"), REFUSED[line])
    assert not Path("branch").exists()


NO_SUCH = {
    "nope": "nope holds no run",
    "trunk@7": r"trunk@7: no such stage has ended there; the stages that have ended: 0 \(4x4\), 1 \(8x8\), 2 \(16x16\)",
    "trunk@28x28": "no such stage has ended there",
    "trunk@": r"--from trunk@: write RUN, or RUN@STAGE",
    "@1": r"--from @1: write RUN, or RUN@STAGE",
}


@pytest.mark.parametrize("start", NO_SUCH)
def test_what_is_not_there_is_refused(
    start: str, trunk: Path, tiny: Callable[..., str], cli: Callable[..., Result], refused: Callable[..., str]
) -> None:
    refused(cli("train", tiny(), "--plugin", STUB, "--from", start), NO_SUCH[start])


def test_a_stage_that_has_not_ended_is_no_place_to_branch_from(branch: Branch, train: Callable[..., Any]) -> None:
    """Its fade's end is kept forever too, and is no stage's end."""
    with pytest.raises(Interrupted):
        train(run_dir="trunk", plugins=(StopAt(20),))
    with pytest.raises(RunError, match=r"the stages that have ended: 0 \(4x4\)$"):
        branch("trunk@1")


def test_a_damaged_place_is_refused_and_the_last_whole_one_is_used(trunk: Path, branch: Branch) -> None:
    entries = RunDirectory(trunk).checkpoints().read_entries()
    for images in (24, 40):
        (trunk / "checkpoints" / next(entry.file for entry in entries if entry.images == images)).write_bytes(
            b"damaged"
        )
    with pytest.raises(RunError, match="damaged"):
        branch("trunk@1")
    with pytest.warns(UserWarning, match="Using the one before: images 32"):
        run = branch("trunk")
    origin = json.loads((run.directory / "run.json").read_text())["from"]
    assert origin["images"] == 32 and origin["checkpoint"].startswith("000000000032")


def test_a_soft_switch_cannot_go_on_amid_a_hard_one(branch: Branch, train: Callable[..., Any]) -> None:
    with pytest.raises(Interrupted):
        train("train.switch = @switches.Hard()", run_dir="trunk", plugins=(StopAt(12),))
    with pytest.raises(RunError, match=r"stage 8x8 began with a hard switch there, and this config's train\.switch is"):
        branch("trunk")
    assert not Path("branch").exists()
    assert branch("trunk", "train.switch = @switches.Hard()").state.images == 40


def test_a_part_that_does_not_fit_leaves_no_branch_behind(trunk: Path, branch: Branch) -> None:
    class Unhappy:
        @hookimpl
        def before_run(self) -> None:
            raise RunError("not with me")

    with pytest.raises(RunError, match="not with me"):
        branch("trunk@1", plugins=(Unhappy(),))
    assert not Path("branch").exists()


def test_the_trunk_is_left_as_it_was(trunk: Path, branch: Branch) -> None:
    before = {path: path.read_bytes() for path in trunk.rglob("*") if path.is_file()}
    content = last(trunk)
    branch("trunk@1", "schedule.stable_images = 16")
    assert {path: path.read_bytes() for path in trunk.rglob("*") if path.is_file()} == before
    assert are_equal(last(trunk), content)


def test_variants_leave_from_one_trunk(trunk: Path, branch: Branch) -> None:
    """Hard and soft, from one 4x4: the new pieces begin with the same weights."""
    starts = []
    for name, switch in (("soft", "Linear"), ("hard", "Hard")):
        seen: dict[str, torch.Tensor] = {}

        class Look:
            @hookimpl
            def before_stage(self, state: Any, seen: dict[str, torch.Tensor] = seen) -> None:
                if state.images == 8 and state.stage.index == 1:
                    seen.update({k: v.clone() for k, v in state.generator.blocks.state_dict().items()})

        branch("trunk@0", f"train.switch = @switches.{switch}()", run_dir=name, plugins=(Look(),))
        starts.append(seen)
    assert starts[0] and are_equal(*starts)


def test_a_branch_that_fails_can_be_resumed(trunk: Path, branch: Branch) -> None:
    class Fail:
        @hookimpl
        def after_step(self) -> None:
            raise RuntimeError("broken")

    with pytest.raises(TrainingError):
        branch("trunk@1", "schedule.stable_images = 16", plugins=(Fail(),))
    assert resume("branch", plugins=[STUB]).state.images == 64


def test_a_branch_whose_averages_cannot_be_copied_leaves_nothing(
    trunk: Path, branch: Branch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a first checkpoint, no command could go on with it."""

    def fail(*arguments: Any) -> None:
        raise RunError("cannot copy")

    monkeypatch.setattr("pggan_kit.api.train.copy_average_snapshots", fail)
    with pytest.raises(RunError, match="cannot copy"):
        branch("trunk@1")
    assert not Path("branch").exists()


def test_a_branch_that_was_killed_before_its_first_checkpoint_says_how_to_begin_it_again(
    trunk: Path, branch: Branch
) -> None:
    branch("trunk@1")
    shutil.rmtree("branch/checkpoints")
    Path("branch/stats.jsonl").unlink()
    command = json.loads(Path("branch/run.json").read_text())["command"]
    said = rf"branch was stopped before its first checkpoint, .*: remove the folder, .*: {re.escape(command)}$"
    with pytest.raises(RunError, match=said):
        resume("branch", plugins=[STUB])


def test_another_run_at_the_path_of_the_trunk_is_not_taken_for_it(trunk: Path, branch: Branch) -> None:
    """A run that was begun again there has other weights; a copy of the trunk is as good as the trunk."""
    branch("trunk@1")
    files = RunDirectory(Path("branch"))
    trunk.rename("moved")
    shutil.copytree("moved", trunk)
    found = find_trunk(files)
    assert found is not None and (found[0].path, found[1]) == (trunk.resolve(), 24)

    about = json.loads((trunk / "run.json").read_text())
    about["started"] = "2001-01-01T00:00:00+0000"
    (trunk / "run.json").write_text(json.dumps(about))
    assert find_trunk(files) is None
    notes: list[str] = []
    assert list_lineage(files, notes.append) == [(files, math.inf)]
    assert len(notes) == 1 and "(or another one is in its place)" in notes[0]


def write_about(folder: Path, **about: Any) -> Path:
    """Write what is read of a run to find the one that it began from."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"plugins": [], **about}))
    return folder


def test_a_trunk_that_was_moved_with_its_branch_is_found(tmp_path: Path) -> None:
    for seed in (0, 1):
        trunk = write_about(tmp_path / f"out/trunks/{seed}", started=f"trunk {seed}")
        origin = {"run": str(trunk), "images": 8, "started": f"trunk {seed}"}
        write_about(tmp_path / f"out/runs/hard/{seed}", started="branch", **{"from": origin})
    (tmp_path / "out").rename(tmp_path / "moved")
    for seed in (0, 1):
        found = find_trunk(RunDirectory(tmp_path / f"moved/runs/hard/{seed}"))
        assert found is not None and found[0].path == tmp_path / f"moved/trunks/{seed}" and found[1] == 8

    # Another run may lie there by now, and one that lies at the old place is the first to be asked.
    (tmp_path / "moved/trunks/0/run.json").write_text(json.dumps({"plugins": [], "started": "later"}))
    assert find_trunk(RunDirectory(tmp_path / "moved/runs/hard/0")) is None
    write_about(tmp_path / "out/trunks/1", started="trunk 1")
    found = find_trunk(RunDirectory(tmp_path / "moved/runs/hard/1"))
    assert found is not None and found[0].path == tmp_path / "out/trunks/1"
