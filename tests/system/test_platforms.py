"""What Windows and macOS lack: nothing of ours needs it to be imported and to train, and each use is known."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.patience import PATIENCE_SECONDS
from helpers.platforms import HIDE, ONLY_POSIX, ONLY_POSIX_MODULES, find_posix_need

from pggan_kit.system.signals import signal_this_process

USES = {
    "pggan_kit/data/array_files.py": {"POSIX_FADV_RANDOM", "POSIX_FADV_WILLNEED", "posix_fadvise", "preadv"},
    "pggan_kit/system/devices.py": {"resource", "sysconf"},
    "pggan_kit/system/locks.py": {"O_CLOEXEC", "fcntl"},
    "pggan_kit/system/processes.py": {"sched_getaffinity"},
    "pggan_kit/system/shared_memory.py": {"AF_UNIX"},
    "plugins/launchers/preparation_server.py": {
        "SIG_BLOCK", "SIG_SETMASK", "WNOHANG", "fork", "pthread_sigmask", "setsid",
    },
    "plugins/launchers/prepared_processes.py": {"AF_UNIX", "MSG_DONTWAIT", "SOCK_SEQPACKET"},
    "plugins/launchers/ray_cluster.py": {"SIGKILL"},
}  # fmt: skip
"""What each module uses that Windows lacks, behind a check; docs/platforms.md says what is lost there."""


def find_uses(file: Path) -> Iterator[str]:
    """Yield the names that Windows lacks: attributes of modules, and imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in ONLY_POSIX.get(node.value.id, ()):
                yield node.attr
        elif isinstance(node, ast.Import):
            yield from ({alias.name for alias in node.names} & ONLY_POSIX_MODULES)
        elif isinstance(node, ast.ImportFrom):
            yield from ({node.module} & ONLY_POSIX_MODULES)
            yield from ({alias.name for alias in node.names} & ONLY_POSIX.get(node.module or "", set()))


def test_each_use_of_what_windows_lacks_is_known_and_documented() -> None:
    found = {}
    for folder in ("pggan_kit", "plugins"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            uses = set(find_uses(file))
            if uses:
                found[file.relative_to(ROOT).as_posix()] = uses
    assert found == USES, "guard it (`hasattr`, `try`), say in docs/platforms.md what is lost, and list it here"
    page = (ROOT / "docs/platforms.md").read_text(encoding="utf-8")
    assert [module for module in USES if f"`{module}`" not in page] == []


def test_everything_imports_and_a_run_trains_as_on_windows(tiny: Callable[..., str], stub: str) -> None:
    """In a process from whose library everything is taken that Windows lacks."""
    code = f"""{HIDE}
import importlib
from pathlib import Path
from pggan_kit.cli import main
for package, folder in (("pggan_kit", {str(ROOT / "pggan_kit")!r}), ("pggan_plugins", {str(ROOT / "plugins")!r})):
    for file in sorted(Path(folder).rglob("*.py")):
        name = ".".join((package, *file.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
        if "templates" not in name and not name.endswith("__main__"):
            importlib.import_module(name)
import pggan_kit
run = pggan_kit.train({tiny("data.workers = 2", "schedule.sizes = (4,)")!r}, plugins=[{stub!r}], run_dir="run")
assert "Resources/memory_mib" not in run.stats[-1]
assert pggan_kit.resume("run", plugins=[{stub!r}]).state.images == 8
main(["--help"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("Usage:")


def test_nothing_is_written_that_only_other_systems_understand() -> None:
    """On Windows `os.kill` ends this process whatever its handlers are, and there is no /dev/null."""
    foreign = re.compile(r"""os\.kill\(os\.getpid\(\), signal\.|"/dev/null\"""")
    breaches = []
    for folder in ("pggan_kit", "plugins"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for match in foreign.finditer(file.read_text(encoding="utf-8")):
                breaches.append(f"{file.relative_to(ROOT).as_posix()}: {match[0]}")
    assert breaches == [], "use signal_this_process and os.devnull"


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_a_process_that_signals_itself_reaches_its_own_handler(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    if platform == "win32":
        monkeypatch.delattr(os, "kill")
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        signal_this_process(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


def use_a_fork() -> int:
    return os.fork()


def use_nothing() -> str:
    return os.fspath("name")


def use_it_inside() -> Callable[[], int]:
    def inner() -> int:
        return use_a_fork()

    return inner


def kill_somebody() -> None:
    os.kill(1, signal.SIGKILL)


def look_at_linux() -> str:
    return Path("/proc/self/status").read_text()


@pytest.mark.parametrize(
    ("function", "need"),
    [
        (use_nothing, None),
        (use_a_fork, "os.fork"),
        (use_it_inside, "os.fork"),
        (kill_somebody, "signals to other processes"),
        (look_at_linux, "the files of Linux under /proc"),
    ],
)
def test_tests_that_windows_cannot_run_are_found(function: Callable[..., object], need: str | None) -> None:
    assert find_posix_need(function) == need
