"""Test real processes that are killed, hung up, paused and stopped at random moments, in every way that is named here.

What they leave in the end equals, bit for bit, what a process leaves that nothing happened to. A few strikes each by
default; hundreds with `make test-soak`. The processes are forks of this one, which has imported torch already.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.ablation_plugin import SWITCH
from helpers.forks import Fork, fork_command, launch_in_forks, wait_until
from helpers.killing import assert_same_run, events, pictures, rows
from helpers.paths import ABLATION_PLUGIN, HELPERS, STUB_PLUGIN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pggan_kit.ablation import settings
from pggan_kit.cli import main
from pggan_kit.data import build_journal
from pggan_kit.system.files import is_unfinished
from pggan_kit.system.locks import is_locked

SOAK = """\
schedule.sizes = (4, 8, 16)
schedule.fade_images = {images}
schedule.stable_images = {images}
schedule.batch_size = 12
train.architecture = @architectures.PGGAN()
architectures.PGGAN.channels = 4
train.resampling = @resampling.Nearest()
train.switch = @switches.Linear()
train.dataset = @datasets.Stub()
datasets.Stub.n = 50
datasets.Stub.classes = 10
data.mirror = True
train.augmentation = @augmentations.ADA()
augmentations.ADA.interval = 32
augmentations.ADA.adjust_images = 4_000
train.latent_size = 8
train.tick = {tick}
train.device = 'cpu'
train.observers = [
    @observers.TensorBoard(), @observers.Samples(), @observers.Growth(), @observers.Progress(),
    @observers.TransitionShock()
]
observers.TensorBoard.count = 0
observers.Samples.count = 4
observers.Growth.count = 4
observers.TransitionShock.count = 4
observers.TransitionShock.steps = 3
"""

PENALISED = """\
train.loss = @losses.NonSaturating()
losses.NonSaturating.penalties = [@penalties.R1()]
penalties.R1.every = 7
"""

ALTERNATING = """\
train.update = @updates.Alternating()
updates.Alternating.n_critic = {4: 1, 8: 2}
train.generator_optimizer = @g/optimizers.Adam()
train.discriminator_optimizer = @d/optimizers.Adam()
optimizers.Adam.lr = @curves.Cosine()
curves.Cosine.begin = 1e-3
curves.Cosine.end = 1e-4
curves.Cosine.start_images = -1_000
"""

JOINT = """\
train.update = @updates.JointBatch()
updates.JointBatch.optimizer = @optimizers.SharedAdam()
train.growth = @growth.FreezeOld()
growth.FreezeOld.images = 40
growth.FreezeOld.moments = 'forget_at_stages'
"""

REWINDING = """\
train.loss = @losses.Bursts()
losses.Bursts.images = 130
train.non_finite = 'rewind'
"""

PLUGINS = [
    text
    for file in (STUB_PLUGIN, ABLATION_PLUGIN, HELPERS / "soak_plugin.py")
    for text in ("--plugin", str(file.resolve()))
]

if not hasattr(signal, "SIGHUP"):
    pytest.skip("kills, hangs up and pauses processes with signals that Windows lacks", allow_module_level=True)

STRUCK = {-signal.SIGKILL, -signal.SIGHUP, -signal.SIGTERM, 128 + signal.SIGHUP, 128 + signal.SIGTERM}
"""Exit codes of processes that a signal ended, at once or in order."""

LOST_THE_OTHERS = 1
"""Exit code of a rank whose group has lost another one."""

SECONDS_TO_END = 10.0
"""Seconds after which the other ranks of one that was struck are killed, as `torchrun` does."""

Strike = Callable[[Fork, random.Random], None]
"""Function that ends a process in some way."""


def kill(process: Fork, moments: random.Random) -> None:
    process.send_signal(signal.SIGKILL)


def hang_up(process: Fork, moments: random.Random) -> None:
    process.send_signal(signal.SIGHUP)


def stop(process: Fork, moments: random.Random) -> None:
    process.send_signal(signal.SIGTERM)


def pause(process: Fork, moments: random.Random) -> None:
    """Suspend the process for a while; then it is killed, at once or some steps later, or asked to stop."""
    process.send_signal(signal.SIGSTOP)
    time.sleep(moments.uniform(0.0, 0.1))
    if moments.random() < 0.5:
        process.send_signal(signal.SIGCONT)
        time.sleep(moments.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)


def strike_anyhow(process: Fork, moments: random.Random) -> None:
    moments.choice([kill, hang_up, stop, pause])(process, moments)


@dataclass(frozen=True)
class Scenario:
    """What is trained, and what happens to it.

    Attributes:
        strike: What ends a process.
        config: The part of the config that differs.
        ranks: Number of processes that train together.
        tick: `train.tick`.
    """

    strike: Strike
    config: str = PENALISED + ALTERNATING
    ranks: int = 1
    tick: int = 60


SCENARIOS = {
    "killed": Scenario(kill),
    "hung up": Scenario(hang_up),
    "paused": Scenario(pause),
    "stopped between ticks": Scenario(stop),
    "rewinding": Scenario(stop, REWINDING + ALTERNATING, tick=1_000),
    "two ranks": Scenario(kill, ranks=2),
    "one optimizer": Scenario(strike_anyhow, PENALISED + JOINT),
    "rewinding, anyhow": Scenario(strike_anyhow, REWINDING + ALTERNATING),
    "few ticks": Scenario(strike_anyhow, tick=1_000),
    "three ranks": Scenario(strike_anyhow, ranks=3),
    "four ranks": Scenario(strike_anyhow, ranks=4),
}

FEW = {"two ranks": (1, 48)}
"""Strikes of the default suite, and images of each phase."""

MANY = {
    **{"killed": 60, "hung up": 20, "paused": 30, "stopped between ticks": 40, "rewinding": 40, "two ranks": 30},
    **{"rewinding, anyhow": 40, "one optimizer": 40, "few ticks": 20, "three ranks": 20, "four ranks": 20},
}
"""Strikes of `make test-soak`."""

CASES = [
    *[pytest.param(name, *numbers, id=name) for name, numbers in FEW.items()],
    *[
        pytest.param(name, strikes, 1_920, id=f"{name}, often", marks=pytest.mark.slow)
        for name, strikes in MANY.items()
    ],
]

References = Callable[[Scenario, int], tuple[Path, float]]
"""Function that returns a run of a scenario to which nothing happened, and the seconds that it took."""


def write_config(scenario: Scenario, images: int) -> str:
    """Return the experiment of a scenario, whose phases have so many images."""
    return SOAK.format(images=images, tick=scenario.tick) + scenario.config


def import_what_is_slow(config: Path) -> None:
    """Import what commands need here, once, and not in every fork."""
    checked = CliRunner().invoke(main, ["config", "check", str(config), *PLUGINS])
    assert checked.exit_code == 0, checked.output


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> References:
    known: dict[tuple[str, int], tuple[Path, float]] = {}

    def find(scenario: Scenario, images: int) -> tuple[Path, float]:
        text = write_config(scenario, images)
        key = (text, scenario.ranks)
        if key not in known:
            folder = tmp_path_factory.mktemp("whole")
            config = folder / "soak.gin"
            config.write_text(text)
            import_what_is_slow(config)
            began = time.monotonic()
            group = Group(["train", config, *PLUGINS, "--run-dir", folder / "run"], scenario.ranks, folder / "said")
            assert group.wait() == {0}, (folder / "said").read_text()
            known[key] = folder / "run", time.monotonic() - began
        return known[key]

    return find


class Group:
    """The processes of one command: one, or the ranks that train together, as `torchrun` starts them."""

    def __init__(self, arguments: Sequence[object], ranks: int, log: Path) -> None:
        environments: list[dict[str, str]] = [{}]
        if ranks > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            group = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            environments = [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
        self.processes = [fork_command(*arguments, log=log, environment=environment) for environment in environments]

    def is_running(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def wait(self) -> set[int]:
        """Wait for all processes, and return their exit codes."""
        return {process.wait() for process in self.processes}

    def wait_after_strike(self) -> set[int]:
        """Wait for the process that was struck, and for the others, which `torchrun` kills when they take too long."""
        until = time.monotonic() + SECONDS_TO_END
        while any(process.poll() is None for process in self.processes) and time.monotonic() < until:
            time.sleep(0.005)
        if len(self.processes) > 1:
            for process in self.processes:
                process.send_signal(signal.SIGKILL)
        return self.wait()


def train_under_strikes(start: Sequence[object], scenario: Scenario, strikes: int, seconds: float, seed: int) -> int:
    """Train a run in processes of which the first ones are struck, each at a random moment of its training.

    Args:
        start: Arguments that begin the run in the folder `run`.
        scenario: What happens to a process.
        strikes: Number of processes to strike.
        seconds: Maximum seconds that one of them trains.
        seed: Seed of the moments.

    Returns:
        The number of processes that were struck before the run ended.
    """
    moments = random.Random(seed)
    run = Path("run")
    log = Path("said")
    for struck in range(strikes + 1):
        arguments = ["resume", run] if (run / "run.json").exists() else start
        before = find_last_write(run)
        group = Group(arguments, scenario.ranks, log)
        if struck == strikes:
            assert group.wait() == {0}, log.read_text()
            break
        # The seconds before its first write have nothing to lose.
        wait_until(lambda before=before, group=group: find_last_write(run) != before or not group.is_running())
        time.sleep(moments.uniform(0.0, seconds))
        scenario.strike(moments.choice(group.processes), moments)
        codes = group.wait_after_strike()
        if codes == {0}:
            return struck
        allowed = STRUCK if scenario.ranks == 1 else STRUCK | {LOST_THE_OTHERS}
        assert codes <= allowed, f"it failed by itself ({codes}): {log.read_text()}"
    return strikes


def find_last_write(run: Path) -> int:
    """Return when a file of the run was last written, in nanoseconds; 0 where there is none."""
    files = [run / name for name in ("run.json", "log.txt", "stats.jsonl")]
    return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)


@pytest.mark.parametrize(("name", "strikes", "images"), CASES)
def test_a_run_ends_as_if_nothing_had_happened(
    name: str, strikes: int, images: int, references: References, tiny: Callable[..., str]
) -> None:
    scenario = SCENARIOS[name]
    whole, seconds = references(scenario, images)
    start = ["train", tiny(base=write_config(scenario, images)), *PLUGINS, "--run-dir", "run"]
    longest = min(1.5, max(0.1, 2.0 * seconds / strikes))
    run = Path("run")
    while train_under_strikes(start, scenario, strikes, longest, seed=strikes) < max(1, strikes // 2):
        # The machine was busier when the reference was trained: the run was over before most strikes.
        shutil.rmtree(run)
        longest /= 2
        assert longest > 0.001, "lengthen the run"

    assert rows(run)[-1]["images"] == 5 * images
    assert_same_run(run, whole)
    assert events(run) == events(whole)
    assert list_texts_and_charts(run) == list_texts_and_charts(whole)
    assert pictures(run) == pictures(whole)
    assert_nothing_is_left(run, whole)


def assert_nothing_is_left(run: Path, whole: Path) -> None:
    """Check that a run has the files of another: of checkpoints that do not stay, as many; event files apart."""
    assert list_files(run) == list_files(whole)
    ours = read_manifest(run)
    theirs = read_manifest(whole)
    assert [row["images"] for row in ours if row["forever"]] == [row["images"] for row in theirs if row["forever"]]
    assert len(ours) == len(theirs)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"manifest.json", *(row["file"] for row in ours)}


def list_texts_and_charts(run: Path) -> list[str]:
    """Return the names of what TensorBoard shows besides numbers: charts, the config, hyperparameters."""
    return sorted(EventAccumulator(str(run)).Reload().Tags()["tensors"])


def list_files(folder: Path) -> set[str]:
    """Return the names of a folder's files, without those of checkpoints and events."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith("checkpoints/") and ".tfevents." not in name}


def read_manifest(run: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's checkpoints."""
    rows: list[dict[str, Any]] = json.loads((run / "checkpoints/manifest.json").read_text())
    return rows


FIRE = [pytest.param(2, id="few"), pytest.param(40, id="often", marks=pytest.mark.slow)]
"""Strikes of the tests below."""


@pytest.mark.parametrize("strikes", [pytest.param(1, id="once"), FIRE[1]])
def test_an_ablation_ends_as_if_nothing_had_happened(
    strikes: int, tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process of `ablate` or of one of its trials is struck; what is left of them ends by itself."""
    monkeypatch.setattr(settings, "count_pairs_needed", lambda contrasts: 1)
    tiny()
    Path("switch.gin").write_text(SWITCH.replace("(0, 1)", "(0,)"))
    moments = random.Random(strikes)
    log = Path("said")

    def ablate(out: Path) -> Fork:
        launcher = ["--launcher", "Local", "-b", "launchers.Local.jobs = 2", "--out", out]
        return fork_command("ablate", "switch.gin", *PLUGINS, *launcher, log=log, before=launch_in_forks)

    # Without a strike, and how long that takes.
    import_what_is_slow(Path("tiny.gin"))
    began = time.monotonic()
    assert ablate(Path("whole")).wait() == 0, log.read_text()
    seconds = time.monotonic() - began

    # Strikes at random moments, and then to the end.
    out = Path("out")
    for _ in range(strikes):
        conductor = ablate(out)
        time.sleep(moments.uniform(0.0, 1.5 * seconds))
        trial = find_trial(out)
        if trial is not None and moments.random() < 0.3:
            with contextlib.suppress(ProcessLookupError):
                os.kill(trial, signal.SIGKILL)
            time.sleep(moments.uniform(0.0, 0.5 * seconds))
        strike_anyhow(conductor, moments)
        code = conductor.wait()
        assert code in {0, *STRUCK}, log.read_text()
    assert ablate(out).wait() == 0, log.read_text()

    # The same files, and nothing is left of what was struck.
    for name in ("results.csv", "analysis.json", "table.txt"):
        assert (out / name).read_text() == Path("whole", name).read_text()
    runs = [path.parent.relative_to(out) for path in out.rglob("run.json")]
    assert len(runs) == 3
    for run in runs:
        assert_same_run(out / run, Path("whole") / run)
        assert_nothing_is_left(out / run, Path("whole") / run)
    assert not any(is_locked(lock) for lock in out.rglob("*.lock"))


def find_trial(out: Path) -> int | None:
    """Return the process of a trial that is running, or None."""
    for lock in sorted(out.glob("locks/*-*.lock")):
        holder = re.match(r"process (\d+) ", lock.read_text())
        if holder is not None and is_locked(lock):
            return int(holder[1])
    return None


@pytest.mark.parametrize("strikes", FIRE)
def test_resized_images_are_whole_whatever_ended_the_processes_that_made_them(
    strikes: int, tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process goes on from the last chunk of the one before."""
    monkeypatch.setattr(build_journal, "JOURNAL_SECONDS", 0.0)

    def build(cache: str) -> Fork:
        return fork_command("data", "build", config, *PLUGINS, "-b", f"data.cache = '{cache}'", log=Path("said"))

    # Many processes go on from each other only where there is enough to do.
    config = tiny(f"datasets.Stub.n = {2_000 if strikes == 2 else 5_000}", "datasets.Stub.classes = 3")
    import_what_is_slow(Path(config))
    struck = strike_command(build, strikes, run_to_end(build))
    assert struck >= strikes // 2
    whole = read_files(Path("whole"))
    assert len([name for name in whole if name.endswith(".npy")]) == 3 * 3, "images, labels and rows of three sizes"
    assert read_cache(Path("struck")) == whole
    # Two may both be struck before there is anything to go on with.
    went_on = Path("said").read_text().count("going on with the resized copies at picture")
    assert went_on >= (1 if strikes > 2 else 0)


@pytest.mark.parametrize("strikes", FIRE)
def test_an_evaluation_leaves_a_run_as_it_was(strikes: int, references: References, tiny: Callable[..., str]) -> None:
    def evaluate(cache: str) -> Fork:
        measure = ["--metric", "SlicedWasserstein", "-b", "evaluation.count = 100"]
        said = Path("said")
        said.unlink(missing_ok=True)
        environment = {"PGGAN_KIT_CACHE": str(Path(cache).resolve())}
        return fork_command("evaluate", "run", "--json", *measure, *PLUGINS, log=said, environment=environment)

    tiny()
    scenario = SCENARIOS["killed"]
    whole, _ = references(scenario, 48)
    shutil.copytree(whole, "run")
    before = read_files(Path("run"))
    seconds = run_to_end(evaluate)
    wanted = json.loads(Path("said").read_text())
    struck = strike_command(evaluate, strikes, seconds)
    assert struck >= strikes // 2
    assert json.loads(Path("said").read_text()) == wanted
    assert read_files(Path("run")) == before
    assert read_cache(Path("struck")) == read_cache(Path("whole"))


def run_to_end(start: Callable[[str], Fork]) -> float:
    """Run a command for the folder `whole`, and return the seconds that it takes."""
    began = time.monotonic()
    assert start("whole").wait() == 0, Path("said").read_text()
    return time.monotonic() - began


def strike_command(start: Callable[[str], Fork], strikes: int, seconds: float) -> int:
    """Run a command for the folder `struck` to its end, in processes of which the first ones are struck.

    Returns:
        The number of processes that were struck before they ended.
    """
    moments = random.Random(strikes)
    struck = 0
    while struck < max(1, strikes // 2):
        # Where the machine was busier when the command was timed, it is over before most strikes: strike earlier.
        shutil.rmtree("struck", ignore_errors=True)
        struck = 0
        for _ in range(strikes):
            process = start("struck")
            time.sleep(moments.uniform(0.0, seconds))
            strike_anyhow(process, moments)
            code = process.wait()
            assert code in {0, *STRUCK}, Path("said").read_text()
            struck += code != 0
        assert start("struck").wait() == 0, Path("said").read_text()
        seconds /= 2
        assert seconds > 0.001, "lengthen the command"
    return struck


def read_cache(folder: Path) -> dict[str, bytes]:
    """Return the content of a cache's files by their names.

    A process that is killed as it writes its last file leaves that, and no later one has anything to write: what is
    unfinished is left out.
    """
    return {name: content for name, content in read_files(folder).items() if not is_unfinished(Path(name).name)}


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of a folder's files by their names; those of lock files name a process, and are left out."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): b"" if path.suffix == ".lock" else path.read_bytes() for path in files}
