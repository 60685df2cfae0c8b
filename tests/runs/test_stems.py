"""Test stems: pieces that another run has trained, under a new run or under later pieces of a third."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from conftest import STUB, TINY
from helpers.gin_text import bind_again
from helpers.killing import StopAt, assert_same_run, last, rows

import pggan_kit
from pggan_kit import hookimpl
from pggan_kit.api.generator import load_generator
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, RunError
from pggan_kit.report.run_record import read_run
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.testing.support import are_equal

Start = Callable[..., Any]

OTHERWISE = [
    "train.loss = @losses.NonSaturating()",
    "train.seed = 5",
    "train.generator_optimizer = @optimizers.SharedAdam()",
    "schedule.batch_size = 6",
    "schedule.stable_images = 30",
    "train.averages = [@averages.HalfLife()]",
    "averages.HalfLife.half_life = 40",
    "datasets.Stub.n = 20",
]
"""Settings of a run whose stem is trained with nothing of what the later stages are trained with."""


class Look:
    """A plugin that copies weights, and the clock, as the run begins."""

    @hookimpl
    def before_stage(self, state: Any) -> None:
        if not hasattr(self, "weights"):
            nets = {"generator": state.generator, "average": state.ema, "discriminator": state.discriminator}
            self.weights = {
                name: {key: value.clone() for key, value in net.state_dict().items()} for name, net in nets.items()
            }
            self.clock = (state.images, state.steps, list(state.starts))
            self.moments = {
                name: {key for key, param in state.network(name).named_parameters() if optimizer.state.get(param)}
                for name, optimizer in state.optimizers.items()
            }


def list_weights(content: dict[str, Any]) -> dict[str, Any]:
    """Return the weights in a checkpoint by the names that `Look` gives them."""
    nets = {name: content[name] for name in ("generator", "discriminator")}
    return {**nets, "average": content["averages"]["half_life"]}


@pytest.fixture
def start(tiny: Callable[..., str]) -> Start:
    """Return a function: `start("train.seed = 1", ..., stem="other@0")` trains the tiny experiment in `run/`."""

    def run(*lines: str, run_dir: str = "run", plugins: tuple[Any, ...] = (), **origins: str) -> Any:
        return pggan_kit.train(tiny(*lines), run_dir=run_dir, plugins=[str(STUB), *plugins], **origins)

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, stub: str) -> Path:
    """Return a folder with two finished runs, of which tests take copies: `stem` and `deep`."""
    folder = tmp_path_factory.mktemp("finished")
    for name, lines in {"stem": [*OTHERWISE, "schedule.sizes = (4, 8)"], "deep": []}.items():
        (folder / "tiny.gin").write_text(bind_again(TINY, lines))
        pggan_kit.train(folder / "tiny.gin", run_dir=folder / name, plugins=[stub])
    return folder


@pytest.fixture
def stem(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run of 4x4 and 8x8, trained with other settings, in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished / "stem", "stem")
    return Path("stem")


@pytest.fixture
def deep(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run of the tiny experiment in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished / "deep", "deep")
    return Path("deep")


def test_a_stem_of_the_same_settings_continues_as_the_run_that_trained_it(deep: Path, start: Start) -> None:
    run = start(stem="deep@8x8")
    ended = last(run.directory)
    wanted = last(deep)
    for name in ("images", "starts", "generator", "averages", "discriminator", "optimizers"):
        assert are_equal(ended[name], wanted[name]), name


def test_a_run_begins_on_a_stem_by_its_own_clock_and_resumes_amid_the_fade(
    stem: Path, start: Start, tiny: Callable[..., str], cli: Callable[..., Result]
) -> None:
    look = Look()
    with pytest.warns(UserWarning, match="the optimizer generator starts from scratch: SharedCounterAdam there, Adam"):
        whole = start(stem="stem@4x4", run_dir="whole", plugins=(look,))
    assert look.clock == (8, 0, [0]), "as if 4x4 had spent this config's budget"
    assert whole.state.starts == [0, 8, 24] and whole.state.images == 40
    there = next(path for path in sorted((stem / "checkpoints").glob("*.pt")) if path.name.startswith("000000000030"))
    begun = json.loads(Path("whole/run.json").read_text())["stem"]
    assert begun.pop("sha256")[:8] in there.name
    assert begun.pop("started") == json.loads((stem / "run.json").read_text())["started"]
    assert begun == {
        "run": str(stem.resolve()),
        "checkpoint": there.name,
        "images": 30,
        "size": "4x4",
        "begins": 8,
    }
    content = RunDirectory(stem).checkpoints()
    saved = next(content.load(entry) for entry in content.read_entries() if entry.file == there.name)
    for name, weights in look.weights.items():
        assert are_equal(weights, list_weights(saved.content())[name]), name
    assert look.moments["generator"] == set() and look.moments["discriminator"], "where the optimizer is the same"

    # Stopped within the fade, and without the other run.
    with pytest.warns(UserWarning, match="starts from scratch"), pytest.raises(Interrupted):
        start(stem="stem@4x4", run_dir="halted", plugins=(StopAt(12),))
    shutil.rmtree(stem)
    resume("halted", plugins=[STUB])
    assert_same_run(Path("halted"), Path("whole"))
    assert [row["images"] for row in rows(Path("whole"))] == [16, 24, 32, 40]
    assert [(each.index, each.start) for each in read_run(Path("whole")).stages] == [(1, 8), (2, 24)]


def test_stages_whose_pieces_come_from_a_stem_need_no_budget(stem: Path, start: Start) -> None:
    with pytest.warns(UserWarning, match="starts from scratch"):
        run = start("schedule.stable_images = {4: 0, 16: 8}", "schedule.fade_images = {4: 0, 16: 8}", stem="stem")
    assert run.state.starts == [0, 0, 0] and run.state.images == 16


def test_an_improved_stem_is_put_under_later_stages(stem: Path, deep: Path, start: Start) -> None:
    above = last(deep)
    before = last(stem)
    look = Look()
    run = start("schedule.total_images = 48", start_from="deep", stem="stem@8x8", plugins=(look,))
    assert look.clock == (40, 10, [0, 8, 24]) and run.state.images == 48

    for name, weights in look.weights.items():
        for key, value in weights.items():
            is_later = key.startswith(("blocks.2.", "to_image.", "from_image."))
            source = above if is_later else before
            assert are_equal(value, list_weights(source)[name][key]), f"{name} {key}"
    for name in ("generator", "discriminator"):
        pieces = {key.partition(".")[0] for key in look.moments[name] if not key.startswith("blocks.2.")}
        assert pieces <= {"to_image", "from_image"} and len(pieces) == 1, "no moments of other weights"
        assert any(key.startswith("blocks.2.") for key in look.moments[name])
    about = json.loads(Path("run/run.json").read_text())
    assert about["from"]["images"] == 40 and about["stem"]["size"] == "8x8" and about["stem"]["begins"] == 40

    # At its own stage a stem has the layers to and from the image too.
    look = Look()
    start(start_from="deep@8x8", stem="stem@8x8", plugins=(look,), run_dir="again")
    for name, weights in look.weights.items():
        assert are_equal(weights, list_weights(before)[name]), name


def test_it_is_said_where_a_stem_ends(stem: Path, tiny: Callable[..., str], cli: Callable[..., Result]) -> None:
    result = cli("train", tiny(), "--plugin", STUB, "--stem", "stem@4x4", "--run-dir", "run")
    assert result.exit_code == 0, result.output
    said = "the pieces of the stages up to 4x4 are those of stem@4x4; the clock is at 8"
    assert result.stderr.splitlines()[-1] == said
    assert said in Path("run/log.txt").read_text()


REFUSED = {
    "schedule.sizes = (4, 16)": r"--stem: the stages up to there have the sizes 4x4, 8x8 there, and 4x4, 16x16 in this",
    "schedule.sizes = (4, 8)": r"--stem: after stage 8x8 this config's schedule has nothing to train: add sizes",
    "train.latent_size = 9": r"--stem: train\.latent_size is 8 there, and 9 in this config: bind it to the value",
    "architectures.PGGAN.channels = 5": r"--stem: architectures\.PGGAN\.channels is 4 there, and 5 in this config",
    "datasets.Stub.channels = 3": r"--stem: images have 1 channels there, and 3 in this config",
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_stem_that_does_not_fit_is_refused_by_name(line: str, stem: Path, rejected: Callable[..., str]) -> None:
    rejected(REFUSED[line], line, args=["--stem", "stem", "--run-dir", "run"])
    assert not Path("run").exists()


@pytest.mark.usefixtures("deep")
def test_a_piece_that_differs_is_named(stem: Path, start: Start) -> None:
    """What no binding says, such as code that has changed, shows in the shapes."""
    checkpoints = RunDirectory(stem).checkpoints()
    saved = checkpoints.load_last()
    key = next(name for name in saved.discriminator if name.startswith("blocks.1"))
    checkpoints.save(replace(saved, discriminator={**saved.discriminator, key: saved.discriminator[key][:2]}))
    for origins in ({"stem": "stem"}, {"start_from": "deep", "stem": "stem"}):
        with pytest.raises(RunError, match=rf"discriminator is of another architecture: {key} is \(2,"):
            start("schedule.total_images = 48", **origins)


@pytest.mark.usefixtures("deep")
def test_a_stem_is_taken_and_put_between_stages(start: Start) -> None:
    with pytest.raises(Interrupted):
        start(run_dir="amid", plugins=(StopAt(12),))
    with pytest.raises(RunError, match=r"--stem .*amid: its checkpoint is within the fade of stage 8x8, and a stem is"):
        start(stem="amid")
    with pytest.raises(RunError, match=r"--from .*amid: its checkpoint is within the fade of stage 8x8, and a stem is"):
        start(start_from="amid", stem="deep@4x4")
    with pytest.raises(RunError, match=r"--stem: it has grown to 16x16, and the run that it is put under to 8x8 alone"):
        start(start_from="deep@8x8", stem="deep")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("nope", "nope holds no run"),
        ("stem@16x16", r"--stem stem@16x16: no such stage has ended there; the stages that have ended: 0 \(4x4\), 1"),
        ("stem@", r"--stem stem@: write RUN, or RUN@STAGE"),
    ],
)
def test_a_stem_that_is_not_there_is_refused(name: str, pattern: str, stem: Path, rejected: Callable[..., str]) -> None:
    rejected(pattern, args=["--stem", name])


@pytest.mark.filterwarnings("ignore:.*far from its profile")
def test_an_average_of_another_width_has_nothing_of_pieces_that_a_stem_replaced(start: Start) -> None:
    """What the run above has kept of its averages is of other weights than the stem's.

    Nothing is learned after the branch, so the pieces of the stem have one average, whatever was above them.
    """
    lines = ["train.averages = [@averages.PowerFunction()]", "averages.PowerFunction.snapshots = 10"]
    start(*lines, "train.seed = 5", run_dir="stem")
    still = [*lines, "schedule.total_images = 60", "optimizers.Adam.lr = 1e-30"]
    made = []
    for seed in ("train.seed = 1", "train.seed = 2"):
        deep = f"deep {seed}"
        start(*lines, seed, run_dir=deep)
        run = start(*still, run_dir=f"branch {seed}", start_from=deep, stem="stem@8x8")
        made.append(load_generator(run, average=0.25, plugins=[STUB]).generator.state_dict())

        # All that was kept of the later pieces is there.
        kept = list(run.files.average_snapshots().load_before(41))
        assert [each.images for each in kept] == [28, 32, 36, 40]
        assert {name[0] for each in kept for weights in each.weights.values() for name in weights} == {"2"}

    replaced = {key for key in made[0] if key.startswith(("stem.", "blocks.1."))}
    assert len(replaced) > 4
    for key in made[0]:
        assert torch.equal(made[0][key], made[1][key]) == (key in replaced), key
