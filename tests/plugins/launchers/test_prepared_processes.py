"""Trials as forks of a server that has done their preparation: processes as any others, with one import for all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.forks import Fork, wait_until

from pggan_kit.components import Trial
from pggan_kit.testing import LauncherSuite
from pggan_plugins.launchers import Local, local, prepared_processes
from pggan_plugins.launchers.prepared_processes import PreparationServer, find_preparation
from pggan_plugins.launchers.processes import stop_processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks of a server are for Linux")

NOTHING = "state = []"


class TestForks(LauncherSuite):
    """Forks do what new processes do."""

    def make(self) -> Local:
        return Local(jobs=2)

    def trial(self, name: str, code: str, folder: str) -> Trial:
        return replace(super().trial(name, code, folder), preparation=NOTHING)


@pytest.fixture
def new_processes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the name of each trial which is started as a new process."""
    names: list[str] = []
    start = local.start_process

    def start_and_note(trial: Trial, environment: dict[str, str]) -> object:
        names.append(trial.name)
        return start(trial, environment)

    monkeypatch.setattr(local, "start_process", start_and_note)
    return names


def make_trial(folder: Path, name: str, code: str, preparation: str | None = NOTHING, *arguments: str) -> Trial:
    return Trial(name, [sys.executable, "-c", code, *arguments], folder / f"{name}.log", folder, preparation)


STATE = """\
import json, os, random, select, signal, sys
import numpy
import tuned
tuned.values.append(1)
matrix = numpy.random.Generator(numpy.random.PCG64(0)).random((300, 300))
print(json.dumps({
    "values": tuned.values,
    "main": sorted(name for name in vars(sys.modules["__main__"]) if name[0] != "_"),
    "argv": sys.argv,
    "leads": os.getsid(0) == os.getpid(),
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "handlers": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
    "open": sorted(os.listdir("/proc/self/fd"))[:-1],
    "stdin": os.readlink("/proc/self/fd/0"),
    "here": os.getcwd(),
    "cores": os.environ["OMP_NUM_THREADS"],
    "product": float((matrix @ matrix).sum()),
}, sort_keys=True))
print(random.random(), numpy.random.random())
"""
"""Code that shows the state in which it begins, and changes a module that the preparation imports."""


@pytest.mark.parametrize("cores", [1, 2])
def test_each_begins_in_the_state_of_a_new_process(cores: int, tmp_path: Path, new_processes: list[str]) -> None:
    (tmp_path / "tuned.py").write_text("values = []\nwith open('imported', 'a') as file:\n    file.write('x')\n")
    find_module = f"import os, sys; os.chdir({str(tmp_path)!r}); sys.path.insert(0, os.getcwd())\n"
    preparation = f"{find_module}print('lost')\nimport json, random, select, numpy.random, tuned"
    forks = [make_trial(tmp_path, name, STATE, preparation, "an argument") for name in ("a", "b")]
    assert Local(jobs=1, cores=cores).launch(forks) == [0, 0]
    assert not new_processes and (tmp_path / "imported").read_text() == "x", "imported once, for both"

    # What a new process begins with, after the same imports.
    new = make_trial(tmp_path, "new", f"{find_module}{STATE}", None, "an argument")
    assert Local(jobs=1, cores=cores).launch([new]) == [0]
    logs = [(tmp_path / f"{name}.log").read_text() for name in ("a", "b", "new")]
    states, numbers = zip(*[log.splitlines() for log in logs], strict=True)
    assert states == (states[-1],) * 3
    assert len(set(numbers[0].split() + numbers[1].split())) == 4, "random numbers that nobody has seeded"


THREAD = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"


@pytest.mark.parametrize("preparation", ["import no_such_module", THREAD])
def test_where_the_preparation_is_of_no_use_trials_are_new_processes(
    preparation: str, tmp_path: Path, new_processes: list[str]
) -> None:
    trials = [make_trial(tmp_path, name, "print('here')", preparation) for name in ("a", "b")]
    assert Local(jobs=2, retries=0).launch(trials) == [0, 0]
    assert sorted(new_processes) == ["a", "b"] and (tmp_path / "a.log").read_text() == "here\n"


KILLS_SERVER = """\
import os, pathlib, signal
if not pathlib.Path("tried").exists():
    pathlib.Path("tried").touch()
    os.kill(os.getppid(), signal.SIGKILL)
"""


def test_a_killed_server_is_no_failure_of_a_trial(tmp_path: Path, new_processes: list[str]) -> None:
    trials = [make_trial(tmp_path, name, code) for name, code in (("kills", KILLS_SERVER), ("next", ""))]
    assert Local(jobs=1, retries=0).launch(trials) == [0, 0]
    assert new_processes == ["kills", "next"]


FORKS_ONCE = """\
import os
fork = os.fork
forks = []
def refuse_second():
    # The first is the server's own, which looks for threads.
    forks.append(1)
    if len(forks) == 3:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
os.fork = refuse_second
"""


def test_a_fork_that_fails_is_no_loss_of_those_that_run(tmp_path: Path, new_processes: list[str]) -> None:
    waits = (
        "import pathlib, time\nopen('runs', 'a').write('x')\nwhile not pathlib.Path('done').exists(): time.sleep(0.02)"
    )
    codes = {"waits": waits, "done": "import pathlib; pathlib.Path('done').touch()"}
    trials = [make_trial(tmp_path, name, code, FORKS_ONCE) for name, code in codes.items()]
    assert Local(jobs=2, retries=1).launch(trials) == [0, 0]
    assert not new_processes and (tmp_path / "runs").read_text() == "x"


def test_a_server_ends_with_its_launcher(tmp_path: Path) -> None:
    code = "import os, pathlib, time; pathlib.Path('server').write_text(str(os.getppid())); time.sleep(1)"
    launcher = Fork(lambda: Local(jobs=1).launch([make_trial(tmp_path, "a", code)]))
    server = tmp_path / "server"
    wait_until(lambda: server.exists() and server.read_text() != "", launcher)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    wait_until(lambda: not is_running(int(server.read_text())))


def test_a_code_that_an_interrupt_has_lost_is_sent_again(tmp_path: Path) -> None:
    server = PreparationServer(NOTHING, dict(os.environ))
    try:
        process = server.start(make_trial(tmp_path, "a", "raise SystemExit(3)"), os.environ)
        assert process is not None and process.wait() == 3
        server._codes.clear()
        assert process.poll() is None
        stop_processes([process])
        assert process.poll() == 3
    finally:
        server.close()


def test_the_list_of_processes_shows_no_code(tmp_path: Path) -> None:
    code = "import pathlib; print(pathlib.Path('/proc/self/cmdline').read_text())"
    Local(jobs=1).launch([make_trial(tmp_path, "a", code)])
    command = (tmp_path / "a.log").read_text().strip().strip("\0").split("\0")
    assert command[0] == sys.executable and Path(command[1]).name == "preparation_server.py" and command[2].isdigit()
    assert len(command) == 3


def test_a_server_ends_with_the_trials(tmp_path: Path) -> None:
    Local(jobs=1).launch([make_trial(tmp_path, "a", "import os; print(os.getppid())")])
    assert not is_running(int((tmp_path / "a.log").read_text()))


def is_running(process: int) -> bool:
    try:
        # A process whose parent is gone is a zombie until somebody else asks for its exit code.
        return " Z " not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1][:3]
    except FileNotFoundError:
        return False


def test_a_log_that_cannot_be_written_is_a_failed_trial(tmp_path: Path, new_processes: list[str]) -> None:
    trials = [make_trial(tmp_path, name, "") for name in ("bad", "good")]
    trials[0] = replace(trials[0], log=tmp_path / "no-such-folder" / "log")
    assert Local(jobs=1, retries=0).launch(trials) == [127, 0]
    trials[0] = replace(trials[1], folder=tmp_path / "no-such-folder")
    assert Local(jobs=1, retries=0).launch(trials) == [127, 0]
    assert "No such file or directory" in (tmp_path / "good.log").read_text()
    assert not new_processes


def test_forks_need_python_code_and_one_preparation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = make_trial(tmp_path, "a", "")
    assert find_preparation([trial, trial]) == NOTHING
    for other in (
        replace(trial, preparation=None),
        replace(trial, preparation="import json"),
        replace(trial, command=["sh", "-c", "true"]),
    ):
        assert find_preparation([trial, other]) is None
    assert find_preparation([]) is None
    monkeypatch.setattr("pggan_plugins.launchers.prepared_processes.sys.platform", "darwin")
    assert find_preparation([trial, trial]) is None


def test_where_the_server_cannot_be_started_trials_are_new_processes(
    tmp_path: Path, new_processes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where processes are too many for a moment, which ends no launch."""

    class FullSystem:
        DEVNULL = subprocess.DEVNULL

        @staticmethod
        def Popen(*arguments: object, **settings: object) -> None:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(prepared_processes, "subprocess", FullSystem)
    before = len(os.listdir("/proc/self/fd"))
    assert local.Local(jobs=1).launch([make_trial(tmp_path, "a", "")]) == [0]
    assert new_processes == ["a"] and len(os.listdir("/proc/self/fd")) == before
