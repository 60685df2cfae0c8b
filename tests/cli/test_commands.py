"""The command line on good input: run directories, resume, sample, plan, config check and show; and equal seeds."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from helpers.forks import fork_command
from PIL import Image
from torch import nn

import pggan_kit
from pggan_kit.api import prepare as api
from pggan_kit.benchmarking import plan as planning

Cli = Callable[..., Result]


def have_equal_weights(a: nn.Module, b: nn.Module) -> bool:
    own = a.state_dict()
    other = b.state_dict()
    return own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


def have_equal_networks(a: Any, b: Any) -> bool:
    names = ("generator", "discriminator", "ema")
    return all(have_equal_weights(getattr(a.state, name), getattr(b.state, name)) for name in names)


def test_equal_seeds_give_equal_weights_and_others_do_not(train: Callable[..., Any]) -> None:
    noise = ("schedule.sizes = (4, 8)", "train.augmentation = @augmentations.Noise()")
    first = train(*noise)
    second = train(*noise)
    other = train(*noise, "train.seed = 1")
    assert have_equal_networks(first, second)
    assert not have_equal_weights(first.state.generator, other.state.generator)


def test_observers_change_nothing(train: Callable[..., Any]) -> None:
    """Not even one that draws from torch's generator and runs the networks."""
    noise = ("schedule.sizes = (4, 8)", "train.augmentation = @augmentations.Noise()")
    watched = train(*noise, "train.observers = [@observers.Meddler(), @observers.Samples(), @observers.Growth()]")
    assert have_equal_networks(train(*noise), watched)


@pytest.mark.parametrize("sizes", ["(7, 14, 28)", "((4, 6), (8, 12))", "(5, 15, 45)", "(8,)", "((1, 3), (4, 12))"])
def test_any_base_factor_and_shape_trains_two_steps_in_each_phase(sizes: str, train: Callable[..., Any]) -> None:
    data = ["datasets.Stub.height = 48", "datasets.Stub.width = 48", "train.loss = @losses.WGANGP()"]
    run = train(f"schedule.sizes = {sizes}", *data)
    stages = run.schedule.stages
    assert run.state.steps == 2 * (2 * len(stages) - 1)
    rows = run.files.stats()
    assert [(row["Progress/size"], row["phase"]) for row in rows if row["images"] % 8 == 0] == [
        (stage.height, phase) for stage in stages for phase in (["stable"] if stage.index == 0 else ["fade", "stable"])
    ]
    images = run.generate(run.fixed_latents(2))
    assert images.shape == (2, 1, stages[-1].height, stages[-1].width) and images.isfinite().all()


@pytest.mark.parametrize("lines", [["datasets.Stub.channels = 3"], ["datasets.Stub.classes = 4"]])
def test_colour_and_labels_train(lines: list[str], train: Callable[..., Any]) -> None:
    run = train(*lines, "schedule.sizes = (4, 8)")
    assert run.generate(run.fixed_latents(2), run.fixed_labels(2)).isfinite().all()


@pytest.mark.parametrize("moments", ["keep", "forget_at_stages", "forget_at_phases"])
def test_optimizers_forget_when_the_setting_says_so(moments: str, train: Callable[..., Any]) -> None:
    from pggan_kit import hookimpl

    has_state: dict[str, bool] = {}

    class Watch:
        @hookimpl
        def before_stage(self, stage: Any, state: Any) -> None:
            has_state[f"stage {stage.index}"] = any(o.state for o in state.optimizers.values())

        @hookimpl
        def after_fade(self, stage: Any, state: Any) -> None:
            has_state[f"fade {stage.index}"] = any(o.state for o in state.optimizers.values())

    train("train.growth = @growth.Everything()", f"growth.Everything.moments = '{moments}'", plugins=(Watch(),))
    assert has_state["stage 1"] == has_state["stage 2"] == (moments == "keep")
    assert has_state["fade 1"] == has_state["fade 2"] == (moments != "forget_at_phases")


@pytest.mark.parametrize("lines", [[], ["switches.Hard.fade_reals = True"]], ids=["hard", "reals alone"])
def test_without_a_fade_optimizers_forget_at_growth_only(lines: list[str], train: Callable[..., Any]) -> None:
    """A hard switch has no old path that ends, though the schedule has images for a fade."""
    from pggan_kit import hookimpl

    updates: dict[str, int] = {}

    class Watch:
        @hookimpl
        def after_stage(self, stage: Any, state: Any) -> None:
            (adam,) = [o for name, o in state.optimizers.items() if name == "generator"]
            updates[stage.size] = max(int(own["step"]) for own in adam.state.values())

    forgetting = ["train.growth = @growth.Everything()", "growth.Everything.moments = 'forget_at_phases'"]
    run = train(*forgetting, "train.switch = @switches.Hard()", *lines, plugins=(Watch(),))
    assert all(stage.fade_images > 0 for stage in run.schedule.stages[1:])
    wanted = {stage.size: stage.budget // stage.batch_size for stage in run.schedule.stages}
    assert updates == wanted


def test_runs_are_numbered_and_named_by_their_config(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    args = ["--plugin", stub, "-b", "schedule.sizes = (4,)"]
    for _ in range(2):
        assert cli("train", tiny(), *args).exit_code == 0
    assert cli("train", tiny(name="other.name.gin"), *args).exit_code == 0
    Path("runs/00007-by-hand").mkdir()
    Path("runs/notes.txt").touch()
    assert cli("train", tiny(), *args).exit_code == 0
    assert sorted(path.name for path in Path("runs").iterdir() if path.is_dir()) == [
        "00000-tiny",
        "00001-tiny",
        "00002-other.name",
        "00007-by-hand",
        "00008-tiny",
    ]


def test_a_run_directory_records_what_the_run_consists_of(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    Path("base.gin").write_text("penalties.R1.weight = 3.0  # idle\nSEED = 1\ntrain.seed = %SEED\n")
    result = cli("train", tiny("include 'base.gin'"), "--plugin", stub, "--run-dir", "mine/run", "-b", "SEED = 5")
    assert result.exit_code == 0, result.output
    run = Path("mine/run")
    about = json.loads((run / "run.json").read_text())
    assert {"name": "stub_plugin.py", "origin": stub}.items() <= about["plugins"][-1].items()
    assert len(about["plugins"][-1]["sha256"]) == 64
    assert about["environment"]["torch"] == torch.__version__
    assert "SEED = 5" in (run / "config.gin").read_text() and "include" not in (run / "config.gin").read_text()
    assert "train.compile = 'never'" in (run / "operative.gin").read_text()
    rows = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [8, 16, 24, 32, 40]
    # Both files are configs of their own.
    assert cli("config", "check", run / "config.gin", "--plugin", stub).exit_code == 0
    assert cli("config", "check", run / "operative.gin", "--plugin", stub).exit_code == 0


def test_a_run_is_resumed_from_anywhere_even_with_idle_bindings(
    tiny: Callable[..., str], cli: Cli, stub: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path("base.gin").write_text("penalties.R1.weight = 3.0\n")
    Path("mine.py").write_text(Path(stub).read_text())
    assert cli("train", tiny("include 'base.gin'"), "--plugin", "mine.py", "--run-dir", "run").exit_code == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    result = cli("resume", tmp_path / "run")
    assert result.exit_code == 0, result.output
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "resumed at images 40" in log and "was complete already, at images 40" in log
    assert result.stderr == f"{tmp_path / 'run'} was complete already, at images 40\n"


def test_overrides_hold_from_where_a_run_is_resumed(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    lines = ["schedule.sizes = (4, 8)", "train.time_limit = 1e-9"]
    assert cli("train", tiny(*lines), "--plugin", stub, "--run-dir", "run").exit_code == 75
    result = cli("resume", "run", "--plugin", stub, "-b", "train.seed = 3", "-b", "train.time_limit = None")
    assert result.exit_code == 0, result.output
    said = re.search(r"changed at images \d+: train\.time_limit: 1e-09 -> None; train\.seed: 0 -> 3\n", result.stderr)
    assert said and said[0] in Path("run/log.txt").read_text()
    wrong = cli("resume", "run", "--plugin", stub, "-b", "train.sede = 3")
    assert wrong.exit_code == 2 and "did you mean seed" in wrong.stderr
    other = cli("resume", "run", "--plugin", stub, "-b", "architectures.PGGAN.generator_activation = 'relu'")
    assert other.exit_code == 2 and "generator_activation: 'leaky_relu' there, 'relu' here" in other.stderr


def test_a_run_directory_that_is_taken_is_refused(
    tiny: Callable[..., str], cli: Cli, stub: str, refused: Callable[..., str]
) -> None:
    args = ["train", tiny("schedule.sizes = (4,)"), "--plugin", stub, "--run-dir"]
    assert cli(*args, "run").exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    refused(cli(*args, "run"), r"--run-dir run already holds a run; name another, or `pggan-kit resume run`")
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before
    Path("full").mkdir()
    Path("full/file").touch()
    refused(cli(*args, "full"), r"--run-dir full is not empty")
    refused(cli(*args, "full/file"), r"--run-dir full/file is no folder")
    refused(cli(*args, "full/file/below"), r"cannot make a run directory at full/file/below")
    Path("empty").mkdir()
    assert cli(*args, "empty").exit_code == 0


@pytest.mark.parametrize("command", [["resume"], ["sample", "--out", "x.npz"]])
def test_a_folder_without_a_run_is_refused(
    command: list[str], cli: Cli, refused: Callable[..., str], tmp_path: Path
) -> None:
    refused(cli(*command, "nope"), r"nope holds no run")
    (tmp_path / "empty").mkdir()
    refused(cli(*command, "empty"), r"empty holds no run \(it has no run\.json\)")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/run.json").write_text("{")
    refused(cli(*command, "broken"), r"run\.json is damaged")


def test_a_missing_plugin_file_is_named_and_can_be_given_again(
    tiny: Callable[..., str], cli: Cli, stub: str, refused: Callable[..., str]
) -> None:
    Path("mine.py").write_text(Path(stub).read_text())
    file = tiny("schedule.sizes = (4,)")
    assert cli("train", file, "--plugin", "mine.py", "--run-dir", "run").exit_code == 0
    Path("mine.py").rename("moved.py")
    missing = r"run\.json names the plugin file .*mine\.py, which is \w+; .*--plugin"
    refused(cli("resume", "run"), missing)
    assert cli("resume", "run", "--plugin", "moved.py").exit_code == 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, stub: str) -> Path:
    """Return a short run in colour that ended within a fade."""
    from conftest import TINY

    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.gin").write_text(TINY + "datasets.Stub.channels = 3\nschedule.total_images = 12\n")
    pggan_kit.train(folder / "tiny.gin", run_dir=folder / "run", plugins=[stub])
    return folder / "run"


def test_sample_writes_an_array_a_grid_or_a_folder(finished: Path, cli: Cli) -> None:
    for target in ("a/x.npz", "again.npz", "grid.png", "folder"):
        result = cli("sample", finished, "--count", 5, "--seed", 3, "--out", target)
        assert result.exit_code == 0, result.output
    with np.load("a/x.npz") as file:
        assert file.files == ["images"]
        images = file["images"]
    assert (images.shape, images.dtype) == ((5, 8, 8, 3), np.uint8)
    with np.load("again.npz") as file:
        np.testing.assert_array_equal(file["images"], images)
    assert len(np.unique(images.reshape(5, -1), axis=0)) == 5
    files = sorted(Path("folder").iterdir())
    assert [path.name for path in files] == [f"{i:06d}.png" for i in range(5)]
    np.testing.assert_array_equal(np.stack([np.asarray(Image.open(path)) for path in files]), images)
    assert Image.open("grid.png").size[0] >= 3 * 8


def test_samples_depend_on_the_seed(finished: Path, cli: Cli) -> None:
    for seed in (0, 1):
        assert cli("sample", finished, "--count", 3, "--seed", seed, "--out", f"{seed}.npz").exit_code == 0
    assert not np.array_equal(np.load("0.npz")["images"], np.load("1.npz")["images"])


def test_sample_draws_from_the_end_of_a_stage(finished: Path, cli: Cli, refused: Callable[..., str]) -> None:
    for stage in ("0", "4x4"):
        assert cli("sample", finished, "--stage", stage, "--count", 3, "--out", "x.npz").exit_code == 0
        assert np.load("x.npz")["images"].shape == (3, 4, 4, 3)
    refused(cli("sample", finished, "--stage", "16x16", "--out", "x.npz"), r"no such stage has ended there")


def test_sample_refuses_a_target_that_it_cannot_write(finished: Path, cli: Cli, refused: Callable[..., str]) -> None:
    Path("file").touch()
    wanted = r"--out x\.jpg: name an \.npz, \.npy, \.tar or \.png file, or a folder"
    refused(cli("sample", finished, "--out", "x.jpg"), wanted)
    refused(cli("sample", finished, "--out", "file"), r"--out file: cannot be written")
    refused(cli("sample", finished, "--out", "file/x.npz"), r"--out file/x\.npz: cannot be written")


@pytest.mark.parametrize(
    "option", ["--count 0", "--count many", "--seed -1", "--seed 9223372036854775808", "--seed x", "--stage -1"]
)
def test_sample_refuses_numbers_out_of_range(option: str, finished: Path, cli: Cli) -> None:
    result = cli("sample", finished, "--out", "x.npz", *option.split())
    assert result.exit_code == 2 and option.split()[0].strip("-") in result.stderr
    assert not Path("x.npz").exists()


def test_plan_shows_each_stage_and_which_fits_and_trains_nothing(
    tiny: Callable[..., str], cli: Cli, stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = "schedule.sizes = (4, 8)"
    result = cli("plan", tiny(two), "--plugin", stub, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["size"], row["fade_images"], row["stable_images"], row["steps"]) for row in rows] == [
        ("4x4", 0, 8, 2),
        ("8x8", 8, 8, 4),
    ]
    final = api.prepare(tiny("schedule.sizes = (4,)"), plugins=[stub])
    net = final.state(final.schedule()).generator
    assert rows[0]["generator_parameters"] == sum(p.numel() for p in net.parameters())
    assert rows[1]["generator_parameters"] > rows[0]["generator_parameters"]
    assert [row["fits"] for row in rows] == [True] * 2

    # With less memory, the first stage fits and the last does not.
    needs = [row["weights_mib"] + row["activations_mib"] for row in rows]
    monkeypatch.setattr(planning, "read_memory_mib", lambda device: (needs[0] + needs[1]) / 2)
    monkeypatch.setattr(planning, "count_activations_mib", lambda rig: rows[rig.stage.index]["activations_mib"])
    table = cli("plan", tiny(two), "--plugin", stub)
    assert table.exit_code == 0 and "8x8" in table.stdout
    text = " ".join(table.stdout.split())
    # What follows from the rows stands in lines of its own, which no table breaks.
    assert any(re.match(r"24 images, about .* on this machine$", line) for line in table.stdout.splitlines())
    assert any(line.startswith("share of G's average half_life, at the") for line in table.stdout.splitlines())
    assert "memory ends at 8x8 " in text and "memory ends at 4x4 " not in text, needs
    assert not (tmp_path / "runs").exists()


def test_plan_refuses_wrong_input(tiny: Callable[..., str], cli: Cli, stub: str, refused: Callable[..., str]) -> None:
    refused(cli("plan", tiny("train.tick = 0"), "--plugin", stub), r"tiny\.gin:17: train\.tick must be at least 1")


def test_config_check_describes_a_good_config(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    result = cli("config", "check", tiny(), "--plugin", stub)
    assert (result.exit_code, result.stdout) == (0, "tiny.gin: good; 4x4 -> 8x8 -> 16x16, 40 images, 8 components\n")


def test_config_check_names_the_stages_that_are_trained(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    result = cli("config", "check", tiny("schedule.total_images = 24"), "--plugin", stub)
    assert "good; 4x4 -> 8x8, 24 images" in result.stdout
    assert "warning: the run ends at 24 images" in result.stderr and "16x16 (at 24)" in result.stderr


@pytest.mark.parametrize("batch", [5, 7, 11, 13])
def test_config_check_warns_of_batches_without_groups(
    batch: int, tiny: Callable[..., str], cli: Cli, stub: str
) -> None:
    result = cli("config", "check", tiny(f"schedule.batch_size = {batch}"), "--plugin", stub)
    assert result.exit_code == 0
    assert "warning: at 4x4, 8x8, 16x16 the discriminator's minibatch stddev is a constant" in result.stderr


def test_config_show_names_the_place_of_each_binding(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    Path("base.gin").write_text("\ntrain.seed = 1\n")
    lines = cli(
        "config", "show", tiny("include 'base.gin'"), "--plugin", stub, "-b", "train.keep = 3"
    ).stdout.splitlines()
    assert "train.seed = 1    # base.gin:2" in lines
    assert "schedule.sizes = (4, 8, 16)    # tiny.gin:1" in lines
    assert "train.keep = 3    # -b 'train.keep = 3'" in lines
    operative = cli("config", "show", tiny(), "--plugin", stub, "--operative").stdout
    assert "train.compile = 'never'" in operative


def test_debug_shows_the_traceback(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    result = cli("--debug", "train", tiny("train.tick = 0"), "--plugin", stub)
    assert result.exit_code == 1 and "train.tick must be at least 1" in str(result.exception)


def test_a_run_that_fails_ends_with_1_and_one_line(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    Path("bad.py").write_text("from pggan_kit import hookimpl\n@hookimpl\ndef after_step(): 1 / 0\n")
    result = cli("train", tiny(), "--plugin", stub, "--plugin", "bad.py")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: bad.py failed in its hook after_step (stage 4x4, images 4): ZeroDivision")
    assert result.stderr.count("\n") == 1


def test_a_signal_ends_a_process_with_its_number_and_a_resumable_run(
    tiny: Callable[..., str], cli: Cli, stub: str
) -> None:
    Path("stop.py").write_text(
        "import os, signal\nfrom pggan_kit import hookimpl\n"
        "@hookimpl\ndef after_step(state):\n    if state.images == 12: os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    stopped = fork_command("train", tiny(), "--plugin", stub, "--plugin", "stop.py", "--run-dir", "run")
    assert stopped.wait() == 143
    said = "error: stopped at images 12 and saved; go on with: pggan-kit resume run"
    assert stopped.read_errors().strip() == said
    result = cli("resume", "run")
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_signal_before_a_run_has_started_ends_with_130(
    tiny: Callable[..., str], cli: Cli, stub: str, tmp_path: Path
) -> None:
    Path("stop.py").write_text("raise KeyboardInterrupt\n")
    result = cli("train", tiny(), "--plugin", stub, "--plugin", "stop.py")
    assert (result.exit_code, result.output) == (130, "")
    assert not (tmp_path / "runs").exists()


def test_help_needs_no_plugin_and_names_all_commands(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    text = cli("--help").stdout
    for command in ("train", "resume", "sample", "plan", "config", "plugins"):
        assert command in text
    assert cli("train", "--help").exit_code == 0
    assert cli("nonsense").exit_code == 2


@pytest.mark.parametrize(("group", "other"), [("ablate", "analyse"), ("bench", "compare")])
def test_help_names_no_command_that_is_left_out(group: str, other: str, cli: Cli) -> None:
    """`ablate CONFIG` is the whole command: neither help, nor usage, nor completion speaks of `ablate run`."""
    commands = cli(group, "--help").stdout.split("Commands:")[1]
    assert other in commands and "run" not in [line.split()[0] for line in commands.splitlines() if line]
    wrong = cli(group, "x.gin", "--nonsense")
    assert f" {group} [OPTIONS] CONFIG" in wrong.stderr and f"{group} run" not in wrong.stderr


def test_data_build_makes_the_copies_that_training_uses(
    cli: Cli, tiny: Callable[..., str], stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGGAN_KIT_CACHE", str(tmp_path / "cache"))
    result = cli("data", "build", tiny(), "--plugin", stub)
    assert result.exit_code == 0, result.stderr
    assert re.search(r"^\d+ images; at 4x4, 8x8, 16x16 in ", result.stdout)
    assert re.search(
        r"^size in the files, height x width: 16x16\nkept as: uint8, 1 channel\n", result.stdout, re.MULTILINE
    )
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.npy")}
    assert len(made) >= 3
    assert cli("train", "tiny.gin", "--plugin", stub).exit_code == 0
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.npy")} == made
