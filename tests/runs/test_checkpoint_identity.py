"""Test what is compared wherever weights are loaded, and what is recorded where a resumed run has other settings."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from conftest import STUB, TINY
from helpers.killing import StopAt
from torch import Tensor

import pggan_kit
from pggan_kit import Component, Quantity, hookimpl
from pggan_kit.api import train as training
from pggan_kit.api.sample import draw
from pggan_kit.errors import Interrupted, RunError, TrainingError
from pggan_kit.report import write_report
from pggan_kit.report.run_pictures import draw_run
from pggan_kit.report.run_record import read_run
from pggan_kit.runs.checkpoint_identity import require_same
from pggan_kit.testing.support import are_equal
from pggan_plugins.architectures import PGGAN
from pggan_plugins.losses import Hinge
from pggan_plugins.penalties import R1
from pggan_plugins.resampling import Learned

LINES = """\
schedule.sizes = (4, 8)
train.loss = @losses.Hinge()
losses.Hinge.penalties = [@penalties.R1()]
penalties.R1.weight = 10
train.architecture = @architectures.Holder()
architectures.Holder.channels = 4
architectures.Holder.inner = @inner/resampling.Learned()
inner/resampling.Learned.equalized = True
train.resampling = @resampling.Learned()
train.metrics = [@metrics.Zero()]
evaluation.count = 4
"""
"""Lines after the tiny experiment's: nested components in the loss and in the architecture."""

OTHER_LOSS = "train.loss = @losses.WGANGP()"

STOP = 12
"""The clock at which the run was stopped, amid the fade to 8x8."""


class Holder(PGGAN):
    """An architecture that holds a component, whose resampling it uses instead of that of the experiment."""

    def __init__(
        self, channels: Any, inner: Any, generator_activation: str = "leaky_relu", equalized_lr: bool = True
    ) -> None:
        super().__init__(channels, generator_activation=generator_activation, equalized_lr=equalized_lr)
        self.inner = inner

    def generator_block(self, previous: Any, stage: Any, resampling: Any) -> Any:
        return super().generator_block(previous, stage, self.inner)


class Zero:
    """A metric that is always 0."""

    quantities = MappingProxyType({"Zero": Quantity("lower")})

    def describe(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def fingerprint(self) -> str:
        return "zero"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        return {"Zero": 0.0}


PLUGINS = [str(STUB), Component("architectures", "Holder", Holder), Component("metrics", "Zero", Zero)]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Path:
    """Train a run that was stopped amid a fade; it is not to be changed."""
    folder = tmp_path_factory.mktemp("stopped")
    text = TINY.replace("architectures.PGGAN.channels = 4\n", "")
    for line in LINES.splitlines():
        text = bind(text, line)
    (folder / "tiny.gin").write_text(text)
    with pytest.raises(Interrupted):
        pggan_kit.train(folder / "tiny.gin", run_dir=folder / "run", plugins=[*PLUGINS, StopAt(STOP)])
    return folder / "run"


@pytest.fixture
def run(stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy that run into the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(stopped, "run")
    return Path("run")


def bind(text: str, line: str) -> str:
    """Return a config with this binding instead of the one that it has, if any."""
    name = line.partition(" = ")[0]
    return re.sub(rf"(?m)^{re.escape(name)} = .*\n", "", text) + f"{line}\n"


def edit(run: Path, line: str) -> None:
    """Bind a parameter in a run's config.gin."""
    config = run / "config.gin"
    text = bind(config.read_text(), line)
    if line == OTHER_LOSS:
        text = re.sub(r"(?m)^(losses\.Hinge|penalties\.R1)\..*\n", "", text)
    config.write_text(text)


def sample(run: Path) -> Any:
    return draw(pggan_kit.load_generator(run, plugins=PLUGINS), 3, 0)


@pytest.fixture(scope="module")
def drawn(stopped: Path) -> Any:
    """Draw images from the stopped run."""
    return sample(stopped)


OF_NETWORKS = {
    "train.latent_size = 9": r"another architecture \(train\.latent_size: 8 there, 9 here\)",
    "architectures.Holder.generator_activation = 'relu'": (
        r"another architecture \(architectures\.Holder\.generator_activation: 'leaky_relu' there, 'relu' here\)"
    ),
    "architectures.Holder.equalized_lr = False": (
        r"another architecture \(architectures\.Holder\.equalized_lr: True there, False here\)"
    ),
    "inner/resampling.Learned.equalized = False": (
        r"another architecture \(inner/resampling\.Learned\.equalized: True there, False here\)"
    ),
    "resampling.Learned.equalized = False": r"of another resampling \(resampling\.Learned\.equalized: True there",
    "train.image_resampling = @resampling.Bilinear()": (
        r"another resampling of images \(train\.image_resampling: Area there, @resampling\.Bilinear\(\) here\)"
    ),
    "schedule.fade_images = 16": r"another schedule \(total_images: 24 there, 32 here; fade_images at 8x8: 8 there",
    "datasets.Stub.channels = 3": r"another kind of data \(channels: 1 there, 3 here\)",
}
"""Edits of what decides the function that the weights are, and what is said of each."""

LIKE_THE_FIRST = {line for line in OF_NETWORKS if line.startswith("architectures.")}
"""Edits that are refused as the first one is: what else is compared there says each of the others."""


@pytest.mark.parametrize("line", OF_NETWORKS)
def test_weights_are_loaded_under_their_own_config_alone(line: str, run: Path) -> None:
    """By `load_generator` (and so `sample`), `evaluate`, the pictures of a report, and `resume`."""
    edit(run, line)
    wanted = OF_NETWORKS[line]
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    said: list[str] = []
    if "datasets" in line:
        # Sampling needs no data: what the run recorded of them stands.
        assert sample(run).shape == (3, 8, 8, 1)
    else:
        with pytest.raises(RunError, match=wanted):
            sample(run)
    if "datasets" not in line and line not in LIKE_THE_FIRST:
        draw_run(read_run(run), said.append, plugins=PLUGINS)
        assert len(said) == 1 and re.search(wanted, said[0])
        with pytest.raises(RunError, match=wanted):
            pggan_kit.evaluate(run, plugins=PLUGINS)
    with pytest.raises(RunError, match=wanted + r".*config\.gin back.*train CONFIG --from RUN"):
        pggan_kit.resume(run, plugins=PLUGINS)
    # That a process began and failed is recorded.
    kept = [path for path in before if path.name not in ("log.txt", "run.json", ".lock")]
    assert all(path.read_bytes() == before[path] for path in kept), "nothing was changed"


@pytest.mark.parametrize("line", ["schedule.fade_images = 16", "train.latent_size = 9"])
def test_an_override_that_a_resumed_run_cannot_take_is_named_as_such(line: str, run: Path) -> None:
    with pytest.raises(RunError, match=r"Leave out the overrides \(-b\) that change this; or.*--from RUN$") as caught:
        pggan_kit.resume(run, [line], plugins=PLUGINS)
    assert "config.gin" not in str(caught.value), "the file is as it was"


MAY_CHANGE = {
    OTHER_LOSS: "train.loss: @losses.Hinge() -> @losses.WGANGP(); ",
    "penalties.R1.weight = 5": "penalties.R1.weight: 10 -> 5",
    "optimizers.Adam.lr = 0.25": "d/optimizers.Adam.lr: 0.001 -> 0.25",
    "train.seed = 3": "train.seed: 0 -> 3",
    "train.switch = @switches.Hard()": "train.switch: @switches.Linear() -> @switches.Hard()",
    "train.averages = [@averages.Copy()]": "train.averages: [HalfLife] -> [@averages.Copy()]; ",
    "data.mirror = True": "data.mirror: False -> True",
    "evaluation.count = 6": "evaluation.count: 4 -> 6",
}
"""Edits of what may change as a run is resumed, and how each is recorded."""


@pytest.mark.parametrize("line", MAY_CHANGE)
def test_what_changes_as_a_run_is_resumed_is_recorded_with_its_clock(line: str, run: Path, drawn: Any) -> None:
    edit(run, line)
    generator = pggan_kit.load_generator(run, plugins=PLUGINS)
    assert generator.alpha is not None and float(generator.alpha) == 0.0, "the fade has had its first step"
    assert (draw(generator, 3, 0) == drawn).all(), "the checkpoint's weights, and its alpha, are what they were"
    operative = (run / "operative.gin").read_text()

    said: list[str] = []
    with pytest.raises(Interrupted):
        pggan_kit.resume(run, plugins=[*PLUGINS, StopAt(16)], say=said.append)
    (told,) = said
    assert told.startswith(f"changed at images {STOP}: ") and MAY_CHANGE[line] in told
    assert (run / "log.txt").read_text().count(told) == 1

    # The record names each binding with both values, and the files are true of what is trained.
    (entry,) = json.loads((run / "run.json").read_text())["changes"]
    assert entry["images"] == STOP
    assert told.partition(": ")[2].split("; ") == [
        f"{name}: {'nothing' if before is None else before} -> {'nothing' if now is None else now}"
        for name, (before, now) in entry["bindings"].items()
    ]
    assert line in (run / "config.gin").read_text()
    name, _, value = line.partition(" = ")
    assert f"{name.removeprefix('optimizers.')} = {value}" in (run / "operative.gin").read_text()
    assert (run / "operative.gin").read_text() != operative


def test_the_record_of_a_change_stays(run: Path) -> None:
    """In the run's checkpoints, where nothing changes from there on, and in reports."""
    edit(run, OTHER_LOSS)
    assert pggan_kit.evaluate(run, plugins=PLUGINS)[0]["images"] == STOP
    said: list[str] = []
    with pytest.raises(Interrupted):
        pggan_kit.resume(run, plugins=[*PLUGINS, StopAt(16)], say=said.append)
    (entry,) = json.loads((run / "run.json").read_text())["changes"]
    finished = pggan_kit.resume(run, plugins=PLUGINS, say=said.append)
    assert len(said) == 1
    assert json.loads((run / "run.json").read_text())["changes"] == [entry] == finished.changes
    assert finished.checkpoints.load_last().changes == [entry]
    write_report([run], "report.html", plugins=PLUGINS, say=pytest.fail)
    assert "train.loss" in Path("report.html").read_text()


def test_a_new_rate_holds_from_the_next_step_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the checkpoint holds the old one, to which a run goes back where a loss is not finite."""
    seen: list[Any] = []

    def note(run: Any, data: Any, saved: Any) -> None:
        seen.append(saved.optimizers["generator"]["param_groups"][0]["lr"])
        seen.append(run.state.optimizers["generator"].param_groups[0]["lr"])
        seen.append(bool(run.state.optimizers["generator"].state))

    monkeypatch.setattr(training.training, "train", note)
    pggan_kit.resume(run, plugins=PLUGINS)
    assert seen == [0.001, 0.001, True]
    pggan_kit.resume(run, ["g/optimizers.Adam.lr = 0.25"], plugins=PLUGINS)
    assert seen[3:] == [0.25, 0.25, True]


def test_overrides_become_the_runs_own(run: Path) -> None:
    """A relative path is one of the working folder, and stays where it was."""
    said: list[str] = []
    with pytest.raises(Interrupted):
        pggan_kit.resume(
            run, ["train.seed = 3", "data.cache = 'here'"], plugins=[*PLUGINS, StopAt(16)], say=said.append
        )
    cache = Path("here").absolute()
    assert f"data.cache: None -> '{cache}'" in said[0] and "train.seed: 0 -> 3" in said[0]
    config = (run / "config.gin").read_text()
    assert "train.seed = 3" in config and f"data.cache = '{cache}'" in config
    assert pggan_kit.resume(run, plugins=PLUGINS, say=pytest.fail).experiment.seed == 3


def test_a_change_that_was_taken_back_is_no_change(run: Path) -> None:
    """Killed before the first step under the new settings, and again after it."""

    class Fail:
        @hookimpl
        def before_run(self) -> None:
            raise RuntimeError("killed")

    changes = []
    for seed in (3, 0, 4):
        edit(run, f"train.seed = {seed}")
        with pytest.raises(TrainingError):
            pggan_kit.resume(run, plugins=[*PLUGINS, Fail()])
        changes.append([entry["bindings"] for entry in json.loads((run / "run.json").read_text()).get("changes", [])])
    assert changes == [[{"train.seed": ["0", "3"]}], [], [{"train.seed": ["0", "4"]}]]

    with pytest.raises(Interrupted):
        pggan_kit.resume(run, plugins=[*PLUGINS, StopAt(16)])
    edit(run, "train.seed = 5")
    pggan_kit.resume(run, plugins=PLUGINS)
    about = json.loads((run / "run.json").read_text())
    assert [(entry["images"], entry["bindings"]["train.seed"]) for entry in about["changes"]] == [
        (12, ["0", "4"]),
        (16, ["4", "5"]),
    ]


def test_a_finished_run_records_nothing(run: Path) -> None:
    pggan_kit.resume(run, plugins=PLUGINS)
    operative = (run / "operative.gin").read_text()
    edit(run, "train.seed = 3")
    said: list[str] = []
    pggan_kit.resume(run, plugins=PLUGINS, say=said.append)
    assert said == ["run was complete already, at images 24"]
    assert (run / "operative.gin").read_text() == operative
    assert "changes" not in json.loads((run / "run.json").read_text())


def test_the_directions_of_metrics_are_recorded(run: Path) -> None:
    """As a run begins, and as it goes on with another metric: a report of it has the values of both."""

    class High(Zero):
        quantities = MappingProxyType({"High": Quantity("higher")})

        def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
            return {"High": 1.0}

    path = run / "run.json"
    assert json.loads(path.read_text())["directions"] == {"Zero": "lower"}
    metric = Component("metrics", "High", High)
    with pytest.raises(Interrupted):
        pggan_kit.resume(run, ["train.metrics = [@metrics.High()]"], plugins=[*PLUGINS, metric, StopAt(16)])
    assert json.loads(path.read_text())["directions"] == {"Zero": "lower", "High": "higher"}


def test_a_damaged_record_is_reported(run: Path) -> None:
    path = run / "run.json"
    about = json.loads(path.read_text())
    for directions in (3, ["FID"], {"FID": "down"}, {"FID": None}):
        path.write_text(json.dumps({**about, "directions": directions}, allow_nan=False))
        with pytest.raises(RunError, match=r"run\.json is damaged: its directions of metrics are not all 'lower' or"):
            pggan_kit.resume(run, plugins=PLUGINS)
    for changes in (3, [3], [{"images": 3, "bindings": {"train.seed": "1"}}]):
        path.write_text(json.dumps({**about, "changes": changes}, allow_nan=False))
        with pytest.raises(RunError, match=r"run\.json is damaged: its changes are no list"):
            pggan_kit.resume(run, plugins=PLUGINS)
    for data in (3, {}, {"images": "8", "channels": 1, "classes": 0}):
        path.write_text(json.dumps({**about, "data": data}, allow_nan=False))
        with pytest.raises(RunError, match=r"run\.json is damaged: "):
            pggan_kit.load_generator(run, plugins=PLUGINS)


def test_another_switch_cannot_fade_from_a_path_that_is_not_there(tiny: Callable[..., str]) -> None:
    config = tiny("schedule.sizes = (4, 8)", "train.switch = @switches.Hard()")
    with pytest.raises(Interrupted):
        pggan_kit.train(config, run_dir="run", plugins=[str(STUB), StopAt(STOP)])
    with pytest.raises(RunError, match=r"^stage 8x8 began with a hard switch there, and this config's train\.switch"):
        pggan_kit.resume("run", ["train.switch = @switches.Linear()"], plugins=[str(STUB)])
    assert "Linear" not in Path("run/config.gin").read_text()


def test_saved_states_go_to_components_of_their_class(tiny: Callable[..., str]) -> None:
    lines = ["schedule.sizes = (4, 8)", "train.augmentation = @augmentations.ADA()", "augmentations.ADA.p = 0.25"]
    with pytest.raises(Interrupted):
        pggan_kit.train(tiny(*lines), run_dir="run", plugins=[str(STUB), StopAt(STOP)])
    edit(Path("run"), "train.augmentation = @augmentations.Noise()")
    config = Path("run/config.gin")
    config.write_text(config.read_text().replace("augmentations.ADA.p = 0.25\n", ""))
    with pytest.warns(UserWarning, match=r"state that train\.augmentation \(ADA\) saved is not loaded"):
        pggan_kit.resume("run", plugins=[str(STUB)])


def test_objects_are_compared_by_what_they_were_made_with(tiny: Callable[..., str]) -> None:
    """A config does not know the settings of objects: they tell them, as far as they keep them."""

    def make_parts(weight: float = 1.0, equalized: bool = True, activation: str = "relu") -> dict[str, Any]:
        return {
            "train.architecture": PGGAN(4, generator_activation=activation),
            "train.resampling": Learned(equalized),
            "train.loss": Hinge([R1(weight)]),
        }

    base = TINY.replace("architectures.PGGAN.channels = 4\n", "")
    config = tiny("schedule.sizes = (4, 8)", base=base)
    with pytest.raises(Interrupted):
        pggan_kit.train(config, run_dir="run", plugins=[str(STUB), StopAt(STOP)], parts=make_parts())
    for wrong, wanted in (
        ({"equalized": False}, r"another resampling \(resampling\.Learned_object\.equalized: True there, False here\)"),
        ({"activation": "leaky_relu"}, r"another architecture \(architectures\.PGGAN_object\.generator_layers\.kind: "),
    ):
        with pytest.raises(RunError, match=wanted):
            pggan_kit.load_generator("run", plugins=[str(STUB)], parts=make_parts(**wrong))
    said: list[str] = []
    pggan_kit.resume("run", plugins=[str(STUB)], parts=make_parts(weight=2.0), say=said.append)
    assert said == ["changed at images 12: losses.Hinge_object.penalties.weight: 1 -> 2"]


FROM = {
    "architectures.Holder.generator_activation = 'relu'": r"generator_activation is 'leaky_relu' there, and 'relu' in",
    "inner/resampling.Learned.equalized = False": r"inner/resampling\.Learned\.equalized is True there, and False in",
    "resampling.Learned.equalized = False": r"--from: resampling\.Learned\.equalized is True there, and False in",
    "train.image_resampling = @resampling.Bilinear()": r"train\.image_resampling is Area there, and @resampling",
}


@pytest.mark.parametrize("line", FROM)
def test_a_branch_has_the_networks_of_its_trunk(line: str, run: Path, stopped: Path) -> None:
    text = bind((stopped.parent / "tiny.gin").read_text(), line)
    Path("branch.gin").write_text(text)
    with pytest.raises(RunError, match=FROM[line]):
        pggan_kit.train("branch.gin", run_dir="branch", plugins=PLUGINS, start_from="run")
    assert not Path("branch").exists()


def test_a_branch_may_differ_in_what_begins_later(run: Path, stopped: Path) -> None:
    """From the end of 4x4: resampling, and settings per stage from 8x8 on; its first checkpoint is its own."""
    text = (stopped.parent / "tiny.gin").read_text()
    lines = ["resampling.Learned.equalized = False", "architectures.Holder.channels = {4: 4, 8: 2}"]
    lines += ["schedule.stable_images = 4", "train.image_resampling = @resampling.Bilinear()"]
    for line in lines:
        text = bind(text, line)
    Path("branch.gin").write_text(text)
    branch = pggan_kit.train("branch.gin", run_dir="branch", plugins=PLUGINS, start_from="run@4x4")
    assert branch.state.generator.blocks["1"] is not None and branch.samples("8x8", 1).shape == (1, 1, 8, 8)
    write_report(["branch"], "report.html", plugins=PLUGINS, say=pytest.fail)


@pytest.mark.usefixtures("few_calibrations")
def test_a_generator_needs_no_data_and_draws_what_the_run_drew(
    tiny: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With labels, batch normalisation and a fade, after the data are gone, from any folder."""
    from PIL import Image

    rng = torch.Generator().manual_seed(0)
    for number in range(12):
        pixels = torch.randint(0, 256, (16, 16), dtype=torch.uint8, generator=rng)
        path = Path(f"data/{'ab'[number % 4 == 0]}/{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(path)
    lines = [
        "FOLDER = 'data'",
        "train.dataset = @datasets.ImageFolder()",
        "datasets.ImageFolder.folder = %FOLDER",
        "datasets.ImageFolder.channels = 1",
        "datasets.ImageFolder.labels = True",
        "architectures.PGGAN.generator_norm = 'batch'",
        "architectures.PGGAN.conditioning = 'projection'",
        "schedule.sizes = (4, 8)",
        "schedule.stable_images = '1 epochs'",
    ]
    base = TINY.replace("train.dataset = @datasets.Stub()\n", "")
    for name in ("schedule.sizes", "schedule.stable_images"):
        base = re.sub(rf"(?m)^{re.escape(name)} = .*\n", "", base)
    grown: dict[str, Any] = {}

    class Look:
        @hookimpl
        def before_stage(self, run: Any, stage: Any) -> None:
            grown[stage.size] = run.generator()

    run = pggan_kit.train(tiny(*lines, base=base), run_dir="run", plugins=[Look()])
    assert run.directory == tmp_path / "run"
    folder = Path("data").absolute()
    assert f"FOLDER = '{folder}'" in Path("run/config.gin").read_text()
    pictures = draw(pggan_kit.load_generator("run"), 4, 0)
    write_report(["run"], "with.html")

    Path("data").rename("moved")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert (draw(pggan_kit.load_generator(run), 4, 0) == pictures).all()
    assert run.stats.column("images")[-1] == 32 and run.samples("4x4", 2).shape == (2, 1, 4, 4)
    write_report(["../run"], "without.html", say=pytest.fail)
    drawn = [
        re.findall(r'src="data:image/png[^"]*"', Path(name).read_text()) for name in ("../with.html", "without.html")
    ]
    assert drawn[0] and drawn[0] == drawn[1]
    latents = torch.randn(3, 8, generator=rng)
    labels = torch.tensor([0, 1, 1])
    from pggan_kit.api.prepare import prepare_run
    from pggan_kit.runs.generators import load_stage_end, restore_generator

    prepared, files = prepare_run("../run", [], needs_data=False)
    schedule = prepared.resolve_schedule()
    _, saved = load_stage_end(files.checkpoints(), "4x4")
    own = prepared.identify_networks(schedule)
    restored = restore_generator(prepared.built.experiment, schedule, prepared.hooks(), saved, own, grown=True)
    assert torch.equal(restored(latents, labels), grown["8x8"](latents, labels))
    assert are_equal(restored.state_dict(), grown["8x8"].state_dict())

    # What needs data says so, and takes their new place.
    with pytest.raises(pggan_kit.DataError, match=str(folder)):
        pggan_kit.resume("../run")
    moved = ["FOLDER = '../moved'"]
    assert pggan_kit.resume("../run", moved).state.images == 32
    metrics = ["train.metrics = [@metrics.Zero()]", "evaluation.count = 4"]
    plugin = Component("metrics", "Zero", Zero)
    with pytest.raises(pggan_kit.DataError, match=str(folder)):
        pggan_kit.evaluate("../run", bindings=metrics, plugins=[plugin])
    (row,) = pggan_kit.evaluate("../run", bindings=[*metrics, *moved], plugins=[plugin])
    assert row["value"] == 0


def test_pictures_that_changed_are_not_mended_in_the_config() -> None:
    noted = {"dataset": {"images": "12", "content": "a"}, "settings": {"train.seed": "0"}}
    sections = {"dataset": "data set"}
    with pytest.raises(RunError, match=r"content: a there, b here\)\. Put its files back as they were, or change"):
        require_same(noted, {**noted, "dataset": {"images": "12", "content": "b"}}, sections)
    with pytest.raises(RunError, match=r"here\)\. Change the run's config\.gin back; or"):
        require_same(noted, {**noted, "dataset": {"images": "12", "content": "a", "values": "uint8"}}, sections)
