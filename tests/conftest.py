"""What tests share: one thread, a cache of their own, and a tiny experiment with a stub data set.

`tiny` writes the experiment's gin file, `train` trains it in this process, `cli` calls the command line in this
process. All three work in `tmp_path`, where `runs/` then lies.
"""

import functools
import gc
import importlib.metadata
import logging
import os
import re
import signal
import sys

from helpers.gin_text import bind_again
from helpers.paths import STUB_PLUGIN
from helpers.platforms import find_posix_need

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

torch.set_num_threads(1)
logging.getLogger("torch.__trace").propagate = False  # a line for each tensor of a recorded step

STUB = STUB_PLUGIN

TINY = """\
schedule.sizes = (4, 8, 16)
schedule.fade_images = 8
schedule.stable_images = 8
schedule.batch_size = 4
train.architecture = @architectures.PGGAN()
architectures.PGGAN.channels = 4
train.resampling = @resampling.Nearest()
train.loss = @losses.Hinge()
train.update = @updates.Alternating()
train.switch = @switches.Linear()
train.dataset = @datasets.Stub()
train.generator_optimizer = @g/optimizers.Adam()
train.discriminator_optimizer = @d/optimizers.Adam()
train.latent_size = 8
train.tick = 8
train.device = 'cpu'
"""
"""Three stages of (fade and) stable phases of two steps each: 40 images, 10 steps."""


gc.disable()  # until all tests are collected, since nothing of them is garbage


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what was imported and collected, through which it would look time and again.

    That takes a tenth of a run's time. What tests make is collected as ever; what is garbage already stays, since to
    look for it takes a second.
    """
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip on Windows what needs a POSIX system, with the reason; docs/platforms.md says what users lose there."""
    if sys.platform == "win32":
        for item in items:
            need = find_posix_need_of_item(item)
            if need is not None:
                item.add_marker(pytest.mark.skip(reason=f"needs {need}, which Windows lacks"))


def find_posix_need_of_item(item: pytest.Item) -> str | None:
    """Return what a test or one of its fixtures needs that Windows lacks."""
    if not isinstance(item, pytest.Function):
        return None
    functions = [item.function]
    for definitions in item._fixtureinfo.name2fixturedefs.values():
        functions += [definition.func for definition in definitions]
    return next((need for need in map(find_posix_need, functions) if need is not None), None)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Resized images of tests lie in a folder of this session; no plugin is blocked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGGAN_KIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("PGGAN_KIT_NO_PLUGINS", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """Tests send SIGINT, which a shell's script lets a command that it starts in the background ignore."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_syncs() -> Iterator[None]:
    """Files are not forced to the disk, a fifth of a tiny run: tests kill processes, and never cut the power.

    Tests of what is forced, and when, replace `os.fsync` themselves.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _entry_points_are_read_once() -> Iterator[None]:
    """The metadata of all installed packages are read once: half of the time that loading plugins takes.

    A test that installs a package puts its folder on the path, with which they are read as ever.
    """
    read = importlib.metadata.entry_points
    path = list(sys.path)
    installed = read()

    def find(**selection: str) -> importlib.metadata.EntryPoints:
        return installed.select(**selection) if sys.path == path else read(**selection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "entry_points", find)
        yield


@pytest.fixture(scope="session")
def stub() -> str:
    """The path of the stub plugin, for `--plugin` and `plugins=[...]`."""
    return str(STUB)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`tiny("train.seed = 1", ...)` writes `tiny.gin` with these lines after the tiny experiment's 16; its name.

    Lines before that bind the same are left empty, as a file may bind nothing twice.
    """
    monkeypatch.chdir(tmp_path)

    def write(*lines: str, name: str = "tiny.gin", base: str = TINY) -> str:
        Path(name).write_text(bind_again(base, lines))
        return name

    return write


@pytest.fixture
def no_compiler_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs compile without a compiler: recordings are run as they are, in seconds less."""
    from pggan_kit.training import loop
    from pggan_kit.training.compiler import Compiler, keep_recording

    monkeypatch.setattr(loop, "Compiler", functools.partial(Compiler, translate=keep_recording))


@pytest.fixture
def train(tiny: Callable[..., str]) -> Callable[..., object]:
    """`train("train.seed = 1", ..., plugins=[...], run_dir=...)` trains the tiny experiment and returns its run."""
    import pggan_kit

    def run(*lines: str, plugins: tuple[object, ...] = (), run_dir: str | None = None, base: str = TINY) -> object:
        return pggan_kit.train(tiny(*lines, base=base), run_dir=run_dir, plugins=[str(STUB), *plugins])

    return run


@pytest.fixture
def no_memory_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """`plan` and dry runs do not count the memory of stages, four fifths of their time; tests of `plan` do."""
    monkeypatch.setattr("pggan_kit.benchmarking.plan.count_activations_mib", lambda rig: None)


@pytest.fixture
def few_calibrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Averages with batch normalisation are calibrated with 2 batches, not with 16, which cost more than tiny runs."""
    monkeypatch.setattr("pggan_kit.runs.average.CALIBRATION_BATCHES", 2)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`cli("config", "check", file)` calls `pggan-kit` in this process; see `exit_code`, `stdout` and `stderr`."""
    from pggan_kit.cli import main

    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[Result, str], str]:
    """`refused(result, pattern)` checks that wrong input was refused as it should be, and returns the message.

    Exit code 2, one short line on stderr in which the pattern is found, no traceback, no run directory.
    """

    def check(result: Result, pattern: str) -> str:
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 2, result.output
        message = result.stderr.strip()
        assert message.startswith("error: ") and "\n" not in message and "Traceback" not in message
        assert len(message) < 700, message
        assert re.search(pattern, message), message
        assert not list(tmp_path.glob("runs/[!.]*")), "a run directory was left behind"
        return message

    return check


@pytest.fixture
def rejected(
    tiny: Callable[..., str], cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> Callable[..., str]:
    """`rejected(pattern, "train.seed = -1", args=["-b", ...])`: the tiny experiment with these lines is `refused`."""

    def check(pattern: str, *lines: str, args: Sequence[str] = (), base: str = TINY) -> str:
        return refused(cli("train", tiny(*lines, base=base), "--plugin", STUB, *args), pattern)

    return check
