"""Trials as jobs of Slurm: with a stand-in for its commands everywhere, and on a real cluster where there is one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import STUB
from helpers.ablation_plugin import SWITCH
from helpers.killing import assert_same_run
from helpers.paths import ABLATION_PLUGIN, ROOT
from helpers.patience import PATIENCE_SECONDS

from pggan_kit.ablation import conduct, plan_reading
from pggan_kit.ablation import plan as plans
from pggan_kit.ablation import trial as trials
from pggan_kit.api.train import train
from pggan_kit.components import Trial
from pggan_kit.errors import ConfigError
from pggan_kit.testing import LauncherSuite
from pggan_plugins.launchers import Slurm, ray_cluster, slurm_cluster

pytest.importorskip("submitit", reason="`make` installs the extra slurm")

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")


@pytest.fixture
def queue(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stand-in for Slurm, whose commands are on the PATH; the launcher looks often."""
    folder = tmp_path_factory.mktemp("slurm")
    for command in COMMANDS:
        (folder / command).symlink_to(ROOT / "tests/helpers/slurm_stand_in.sh")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_QUEUE", str(folder))
    monkeypatch.setattr(slurm_cluster, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(slurm_cluster, "QUEUE_SECONDS", 0.5)
    return folder


@pytest.mark.usefixtures("queue")
class TestSlurm(LauncherSuite):
    bad_arguments = (
        {"minutes": 4},
        {"cores": 0},
        {"memory": 0},
        {"gpus": -1},
        {"jobs": 0},
        {"retries": -1},
        {"options": {"time": 5}},
        {"options": {"cpus_per_task": 5}},
        {"options": {"signal": "B:TERM@120"}},
        {"options": {"ntasks_per_node": 2}},
        {"options": {"requeue": False}},
        {"options": {"exclusive": False}},
        {"memory": float("inf")},
    )

    def make(self) -> Slurm:
        return Slurm(jobs=2)


GOES_ON = """\
import os, pathlib, signal, sys, time
sessions = pathlib.Path('sessions')
with sessions.open('a') as file:
    file.write('x')
def save(*_):
    with open('saved', 'a') as file:
        file.write('x')
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
if len(sessions.read_text()) == 1:
    pathlib.Path('begun').write_text(str(os.getpid()))
    time.sleep({patience})
"""
"""Code of a trial that waits in its first process until it is stopped, and is done in the second."""


def make_trial(folder: Path, name: str, code: str = "") -> Trial:
    return Trial(name, [sys.executable, "-c", code], folder / f"{name}.log", folder)


@pytest.fixture
def launch_and_signal(queue: Path, tmp_path: Path) -> Callable[[int, str], tuple[list[int], str, str]]:
    """`launch_and_signal(retries, signal)` launches a trial that goes on, and signals its step once it has begun.

    Returns the exit codes, a mark for each process of the trial, and one for each time that it saved.
    """

    def send(name: str) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        begun = tmp_path / "begun"
        while not (begun.exists() and begun.read_text()) and time.monotonic() < until:
            time.sleep(0.02)
        os.killpg(int((queue / "1.step").read_text()), getattr(signal, name))

    def launch(retries: int, name: str) -> tuple[list[int], str, str]:
        sender = threading.Thread(target=send, args=(name,))
        sender.start()
        trial = make_trial(tmp_path, "goes-on", GOES_ON.format(patience=PATIENCE_SECONDS))
        codes = Slurm(retries=retries).launch([trial])
        sender.join()
        saved = tmp_path / "saved"
        return codes, (tmp_path / "sessions").read_text(), saved.read_text() if saved.exists() else ""

    return launch


def test_a_job_that_slurm_warns_saves_and_is_requeued(
    launch_and_signal: Callable[[int, str], tuple[list[int], str, str]], queue: Path
) -> None:
    """As before the time limit: the same job, and no failure."""
    assert launch_and_signal(0, "SIGUSR2") == ([0], "xx", "x")
    assert (queue / "last").read_text() == "1\n"


def test_a_job_that_slurm_preempts_saves_and_is_submitted_again(
    launch_and_signal: Callable[[int, str], tuple[list[int], str, str]], queue: Path
) -> None:
    """With SIGTERM to each process of the job, of which the trial gets one: no failure either."""
    assert launch_and_signal(0, "SIGTERM") == ([0], "xx", "x")
    assert (queue / "last").read_text() == "2\n"


@pytest.mark.parametrize(("retries", "wanted"), [(0, ([-9], "x", "")), (1, ([0], "xx", ""))])
def test_a_lost_job_is_a_failure_and_is_submitted_again(
    retries: int,
    wanted: tuple[list[int], str, str],
    launch_and_signal: Callable[[int, str], tuple[list[int], str, str]],
    tmp_path: Path,
) -> None:
    assert launch_and_signal(retries, "SIGKILL") == wanted
    kept = list(tmp_path.glob("slurm-*"))
    assert len(kept) == (1 if wanted[0] == [-9] else 0), "what a lost job printed stays, and nothing else of submitit"


def test_a_trial_that_is_stopped_by_others_counts_as_a_failure(queue: Path, tmp_path: Path) -> None:
    """A trial whose `ablate` is gone stops itself: it must not be started forever."""
    code = "open('tries', 'a').write('x'); raise SystemExit(143)"
    assert Slurm(retries=1).launch([make_trial(tmp_path, "stopped", code)]) == [143]
    assert (tmp_path / "tries").read_text() == "xx"


@pytest.mark.parametrize(("code", "wanted"), [(0, [0]), (2, [2]), (127, [127]), (143, [])])
def test_what_would_not_help_is_not_tried_again_after_a_signal(
    code: int, wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_cluster, "_has_result", lambda job: True)
    monkeypatch.setattr(slurm_cluster, "_read_outcome", lambda job: (code, True))
    queue: Any = SimpleNamespace(
        jobs={0: None}, retries={0: 0}, codes={}, waiting=[], ended=None, trials=[None], _find_lost=set
    )
    slurm_cluster._Launch.collect_results(queue)
    assert list(queue.codes.values()) == wanted and queue.waiting == ([] if wanted else [(0, 0)])


def test_jobs_are_submitted_with_what_each_trial_takes(
    queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one array, not as part of the job in which this process may run itself."""
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "16")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/of-this-site.conf")
    monkeypatch.chdir(tmp_path)

    # Three trials, two at a time.
    settings = {"partition": "low", "minutes": 90, "cores": 3, "memory": 1.5, "gpus": 1, "jobs": 2}
    launcher = Slurm(**settings, options={"account": "vision", "exclusive": True})  # type: ignore[arg-type]
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.getcwd())"
    trials = [Trial(name, [sys.executable, "-c", code], tmp_path / f"{name}.log") for name in "abc"]
    assert launcher.launch(trials) == [0, 0, 0]
    assert (tmp_path / "b.log").read_text() == f"3 {tmp_path}\n", "the working directory is the caller's"

    # What Slurm was asked for.
    script = (queue / "1.sh").read_text()
    flags = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert flags >= {
        "partition=low",
        "time=90",
        "cpus-per-task=3",
        "mem=1536MB",
        "gpus-per-node=1",
        "array=0-2%2",
        "account=vision",
        "exclusive",
        "requeue",
        "signal=USR2@120",
    }
    assert "srun --unbuffered" in script and "--cpus-per-task=3" in script

    # What a job inherits, which is not what this job has.
    environment = (queue / "environment").read_text()
    assert "SLURM_CPUS_PER_TASK" not in environment and "SLURM_CONF=/etc/slurm/of-this-site.conf" in environment
    assert os.environ["SLURM_CPUS_PER_TASK"] == "16"


@pytest.mark.parametrize(("jobs", "wanted"), [(None, 2), (3, 2), (2, 1), (1, 0)])
def test_what_runs_again_takes_no_more_than_its_share_of_the_jobs(
    jobs: int | None, wanted: int, queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The array's own limit does not count the jobs that are submitted after it."""
    trials = [make_trial(tmp_path, name) for name in "abc"]
    launch = slurm_cluster._Launch(Slurm(jobs=jobs), None, trials, None)
    launch.jobs = {0: object()}
    launch.waiting = [(1, 2), (2, 0)]
    submitted: list[tuple[int, int]] = []
    monkeypatch.setattr(launch, "submit", submitted.extend)
    launch.submit_waiting()
    assert submitted == [(1, 2), (2, 0)][:wanted]
    assert launch.waiting == [(1, 2), (2, 0)][wanted:]


def test_refused_jobs_are_an_error_that_quotes_sbatch(
    queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody could say what is in the queue: nothing is."""
    (queue / "refuse").touch()
    monkeypatch.setattr(slurm_cluster, "list_queue", lambda: pytest.fail("there is no job to wait for"))
    with pytest.raises(ConfigError, match=r"^launchers\.Slurm: the jobs cannot be submitted: .*invalid partition"):
        Slurm().launch([make_trial(tmp_path, "refused")])
    assert not list(tmp_path.glob("slurm-*"))


FAILS_ONCE = """\
import os, pathlib
if not pathlib.Path('failed').exists():
    pathlib.Path('failed').touch()
    pathlib.Path(os.environ['STAND_IN_QUEUE'], 'refuse').touch()
    raise SystemExit(1)
"""
"""Code of a trial that fails at first, and upon which sbatch then refuses all jobs."""

ENDS_REFUSAL = """\
import os, pathlib, time
queue = pathlib.Path(os.environ['STAND_IN_QUEUE'])
until = time.monotonic() + {patience}
while not (queue / 'refused').exists() and time.monotonic() < until:
    time.sleep(0.02)
(queue / 'refuse').unlink()
"""
"""Code of a trial that ends once sbatch has refused a job, and lets it accept jobs again."""


def test_a_trial_that_cannot_be_submitted_again_waits_and_stops_no_other(
    queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_cluster, "RESUBMIT_SECONDS", 0.1)
    codes = {"fails-once": FAILS_ONCE, "other": ENDS_REFUSAL.format(patience=PATIENCE_SECONDS)}
    complaint = r"fails-once cannot be submitted again, .* every 0\.1 seconds: .*invalid partition"
    with pytest.warns(UserWarning, match=complaint):
        assert Slurm(retries=1).launch([make_trial(tmp_path, name, code) for name, code in codes.items()]) == [0, 0]


def test_the_wait_for_a_submission_ends_where_no_trial_runs_any_more(
    queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What still runs would be cancelled by an error."""
    clock = [0.0]
    monkeypatch.setattr(slurm_cluster, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    slurm = Slurm()
    trials = [make_trial(tmp_path, name) for name in "abc"]
    launch = slurm_cluster._Launch(slurm, slurm._make_executor(tmp_path), trials, None)
    complaint = r"^launchers\.Slurm: b, c cannot be submitted again"
    refused = queue / "refused"

    # It is tried again, but not at once.
    (queue / "refuse").touch()
    launch.jobs = {0: object()}
    launch.waiting = [(1, 2), (2, 2)]
    with pytest.warns(UserWarning, match=complaint):
        launch.submit_waiting()
    refused.unlink()
    clock[0] += slurm_cluster.RESUBMIT_SECONDS / 2
    launch.submit_waiting()
    assert not refused.exists()
    clock[0] += slurm_cluster.RESUBMIT_SECONDS / 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        launch.submit_waiting()
    assert refused.exists()

    # As long as another trial runs.
    clock[0] += slurm_cluster.REFUSED_SECONDS
    launch.submit_waiting()
    assert launch.waiting == [(1, 2), (2, 2)]
    launch.jobs = {}
    clock[0] += slurm_cluster.RESUBMIT_SECONDS
    with pytest.raises(ConfigError, match=r"the jobs cannot be submitted: .*invalid partition"):
        launch.submit_waiting()

    # Jobs that are accepted begin a new wait.
    clock[0] += slurm_cluster.RESUBMIT_SECONDS
    with monkeypatch.context() as accepting:
        accepting.setattr(launch, "submit", lambda numbers: None)
        launch.submit_waiting()
    assert launch.waiting == []
    launch.waiting = [(1, 2), (2, 2)]
    with pytest.warns(UserWarning, match=complaint):
        launch.submit_waiting()


def test_a_queue_that_does_not_answer_loses_no_job(monkeypatch: pytest.MonkeyPatch, queue: Path) -> None:
    (queue / "7_1.queued").touch()
    assert slurm_cluster.list_queue() == {"7_1"}
    (queue / "squeue").unlink()
    (queue / "squeue").write_text("#!/bin/sh\nexit 1\n")
    (queue / "squeue").chmod(0o755)
    assert slurm_cluster.list_queue() is None


def test_a_missing_package_and_missing_commands_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"needs the command sbatch, which is not on the PATH: start the ablation on"):
        Slurm()
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"pip install 'pggan_kit\[slurm\]'"):
        Slurm()


def test_a_time_limit_is_no_failure_for_ray(tmp_path: Path) -> None:
    code = "open('x', 'a').write('x'); raise SystemExit(0 if len(open('x').read()) == 3 else 75)"
    assert ray_cluster.run_trial(make_trial(tmp_path, "limited", code), 1) == 0


def _find_missing_slurm() -> str | None:
    """Return why there is no Slurm to test with; None where its controller answers."""
    if shutil.which("sbatch") is None:
        return "sbatch is not installed"
    try:
        subprocess.run(["sinfo"], capture_output=True, check=True, timeout=PATIENCE_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return "no controller of Slurm answers: run this by `make test-slurm`"
    return None


MISSING_SLURM = _find_missing_slurm()
real_slurm = pytest.mark.skipif(MISSING_SLURM is not None, reason=str(MISSING_SLURM))


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the queue of the cluster of a test more often than is polite."""
    monkeypatch.setattr(slurm_cluster, "QUEUE_SECONDS", 1.0)


@real_slurm
@pytest.mark.slurm
@pytest.mark.usefixtures("quick_looks")
class TestRealSlurm(LauncherSuite):
    bad_arguments = TestSlurm.bad_arguments

    def make(self) -> Slurm:
        return Slurm(jobs=2)


SLOW = """\
import time
from pggan_kit import hookimpl

@hookimpl
def after_step():
    time.sleep(0.5)
"""


def call(*command: str) -> list[str]:
    """Call a command of Slurm, and return the words of its answer."""
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS)
    return answer.stdout.split()


def warn(job: str) -> None:
    """Signal a job as before its time limit."""
    call("scancel", "--signal=USR2", job)


def stop(job: str) -> None:
    """Send SIGTERM to each process of a job."""
    call("scancel", "--signal=TERM", job)


def preempt(job: str) -> None:
    """Submit a job of a higher priority that takes the whole machine."""
    call("srun", "--partition=high", "--exclusive", "true")


def kill_step(job: str) -> None:
    """Kill each process of a job's step at once."""
    call("scancel", "--signal=KILL", f"{job}.0")


def wait_for_process(run: Path, number: int, images: int) -> int:
    """Wait until process number `number` of a run, from 0, has trained past an image count; return where it is."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):
            resumed = (run / "log.txt").read_text().count("resumed at images")
            lines = (run / "stats.jsonl").read_text().splitlines()
            here = json.loads(lines[-1])["images"] if lines else 0
            if resumed == number and here > images:
                return here
        time.sleep(0.05)
    raise AssertionError(f"process {number} of the trial makes no progress")


@real_slurm
@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.usefixtures("quick_looks")
def test_a_trial_that_is_stopped_again_and_again_ends_the_same(tiny: Callable[..., str], tmp_path: Path) -> None:
    """Warned as before the time limit, stopped, preempted, and killed, of which the last alone is a failure."""
    # A plan with a trial that takes its time.
    tiny("train.tick = 4")
    Path("slow.py").write_text(SLOW)
    variants = "{'linear': [], 'wgan': ['train.loss = @losses.WGANGP()']}"
    bindings = [f"ablate.variants = {variants}", "ablate.controls = {'wgan': 1}", "ablate.seeds = (0, 1)"]
    bindings.append("ablate.contrasts = [('wgan', 'linear')]")
    Path("switch.gin").write_text(SWITCH)
    plugins = [str(STUB), str(ABLATION_PLUGIN), str(tmp_path / "slow.py")]
    plan, _ = plan_reading.read_plan("switch.gin", bindings, plugins)
    out = tmp_path / "out"
    (out / "logs").mkdir(parents=True)
    plan = plans.fix_plan(plan, out)
    run = trials.locate_trial(out, "linear", 0)

    strikes: list[str] = []

    def strike() -> None:
        images = 0
        for number, each in enumerate((warn, stop, preempt, kill_step)):
            images = wait_for_process(run, number, images)
            (job,) = call("squeue", "--noheader", "--partition=low", "--format=%i")
            each(job)
            strikes.append(each.__name__)

    # The trial is struck while it runs, and ends as if it had not been.
    striker = threading.Thread(target=strike)
    with trials.hold_trials(out):
        striker.start()
        codes = Slurm(partition="low", retries=1).launch([conduct.make_trial(plan, out, "linear", 0)])
        striker.join()
    assert (codes, strikes) == ([0], ["warn", "stop", "preempt", "kill_step"])
    assert (run / "log.txt").read_text().count("resumed at images") == 4
    train(out / "configs/linear.gin", ["train.seed = 0"], run_dir="whole", plugins=[STUB, ABLATION_PLUGIN])
    assert_same_run(run, Path("whole"))
