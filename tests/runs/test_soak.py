"""Test real training processes, killed by SIGKILL at random moments: the run ends as if nothing had happened.

Five kills by default; a hundred with `make test-soak`.
"""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import STUB
from helpers.killing import assert_same_run, events, pictures, rows
from helpers.patience import PATIENCE_SECONDS

COMMAND = [sys.executable, "-m", "pggan_kit"]

SOAK = """\
schedule.sizes = (4, 8, 16)
schedule.fade_images = {fade}
schedule.stable_images = {stable}
schedule.batch_size = {{4: 8, 16: 4}}
train.architecture = @architectures.PGGAN()
architectures.PGGAN.channels = 4
train.resampling = @resampling.Nearest()
train.switch = @switches.Linear()
train.dataset = @datasets.Stub()
datasets.Stub.n = 50
datasets.Stub.classes = 10
data.mirror = True
train.loss = @losses.NonSaturating()
losses.NonSaturating.penalties = [@penalties.R1()]
penalties.R1.every = 7
train.augmentation = @augmentations.ADA()
augmentations.ADA.interval = 32
augmentations.ADA.adjust_images = 4_000
train.latent_size = 8
train.tick = 60
train.device = 'cpu'
train.observers = [@observers.TensorBoard(), @observers.Samples(), @observers.Growth(), @observers.Progress()]
observers.TensorBoard.count = 0
observers.Samples.count = 4
observers.Growth.count = 4
"""

ALTERNATING = """\
train.update = @updates.Alternating()
updates.Alternating.n_critic = {4: 1, 8: 2}
train.generator_optimizer = @g/optimizers.Adam()
train.discriminator_optimizer = @d/optimizers.Adam()
optimizers.Adam.decay_images = 1_000
"""

JOINT = """\
train.update = @updates.JointBatch()
updates.JointBatch.optimizer = @optimizers.SharedAdam()
train.reset_optimizer = 'stage'
"""

FEW_TICKS = "train.tick = 1_000\n"

CHOICES = {"alternating": ALTERNATING, "one optimizer": JOINT, "few ticks": ALTERNATING + FEW_TICKS}


def train_with_kills(run: str, start: list[str], kills: int, seconds: float, seed: int) -> int:
    """Train in processes of which the first ones are killed, each at a random moment of its training.

    Args:
        run: the run's folder.
        start: the command that begins it.
        kills: number of processes to kill.
        seconds: maximum seconds that one of them trains.
        seed: the seed of the moments.

    Returns:
        The number of killed processes: the run may end sooner.
    """
    moments = random.Random(seed)
    killed = 0
    for number in range(kills + 1):
        started = (Path(run) / "run.json").exists()
        process = subprocess.Popen([*COMMAND, *(["resume", run] if started else start)], stderr=subprocess.DEVNULL)
        if number < kills:
            wait_for_training(Path(run), process)
            time.sleep(moments.uniform(0.0, seconds))
            process.kill()
        if process.wait(PATIENCE_SECONDS) == 0:
            break
        assert process.returncode == -9, "the process failed by itself"
        killed += 1
    return killed


def wait_for_training(run: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process writes its first file, after seconds of imports in which there is nothing to lose."""
    before = find_last_write(run)
    until = time.monotonic() + PATIENCE_SECONDS
    while find_last_write(run) == before and process.poll() is None:
        assert time.monotonic() < until, "nothing was written"
        time.sleep(0.01)


def find_last_write(run: Path) -> int:
    """Return when a file of the run was last written, in nanoseconds; 0 where there is none."""
    files = [run / name for name in ("run.json", "log.txt", "stats.jsonl")]
    return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)


def check_kills(tiny: Callable[..., str], choice: str, kills: int, images: int, seed: int) -> None:
    """Compare a run that is killed several times with one that never is."""
    base = SOAK.format(fade=images, stable=images) + CHOICES[choice]
    # Later bindings win; `train.tick` may be bound twice.
    start = ["train", tiny(base=base), "--plugin", str(STUB), "--run-dir"]
    began = time.monotonic()
    assert train_with_kills("whole", [*start, "whole"], 0, 0.0, seed) == 0
    seconds = max(0.2, 2.0 * (time.monotonic() - began - 2.5) / kills)
    killed = train_with_kills("run", [*start, "run"], kills, min(seconds, 1.5), seed)
    assert killed >= kills // 2, "the run was over before most kills: lengthen it"
    assert_same_run(Path("run"), Path("whole"))
    assert events(Path("run")) == events(Path("whole"))
    assert pictures(Path("run")) == pictures(Path("whole"))
    assert rows(Path("run"))[-1]["images"] == 5 * images


def test_five_kills(tiny: Callable[..., str]) -> None:
    check_kills(tiny, "alternating", kills=5, images=240, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(("choice", "kills"), [("alternating", 40), ("one optimizer", 40), ("few ticks", 20)])
def test_a_hundred_kills(choice: str, kills: int, tiny: Callable[..., str]) -> None:
    check_kills(tiny, choice, kills, images=1_920, seed=2)
