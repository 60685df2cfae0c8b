"""Imports of commands: help needs no torch, checking a config needs no compiler, and help works on Windows too.

Each process here runs several commands in turn, because starting one takes seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from click.testing import Result
from helpers.patience import PATIENCE_SECONDS

import pggan_kit
from pggan_kit.cli import main
from pggan_kit.errors import ConfigError
from pggan_kit.system import devices

ASK = """\
import contextlib, io, json, os, sys

{before}
from pggan_kit.cli import main

answers = []
for command in {commands!r}:
    words, complete = command
    os.environ.pop("_PGGAN_KIT_COMPLETE", None)
    if complete:
        os.environ |= {{"_PGGAN_KIT_COMPLETE": "bash_complete", "COMP_WORDS": complete, "COMP_CWORD": "1"}}
    shown = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            main(words, prog_name="pggan-kit")
            code = 0
        except SystemExit as ended:
            code = ended.code
    shown.flush()
    written = shown.buffer.getvalue().decode()
    answers.append([code, written, [name for name in {heavy!r} if name in sys.modules]])
print(json.dumps(answers))
"""

Answer = tuple[int, str, list[str]]


def run_commands(commands: Sequence[tuple[Sequence[str], str]], heavy: Sequence[str], before: str = "") -> list[Answer]:
    """Run commands one after another in a process of their own.

    Args:
        commands: The words of each command; and the line to complete, where a shell asks for that.
        heavy: Modules to look for.
        before: Code that runs first.

    Returns:
        The exit code of each command, its output, and which of the modules were imported by then.
    """
    code = ASK.format(commands=[(list(words), line) for words, line in commands], heavy=list(heavy), before=before)
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(code, shown, imported) for code, shown, imported in json.loads(done.stdout)]


def test_help_version_completion_and_usage_errors_import_no_torch() -> None:
    groups = {name: list(command.commands) for name, command in main.commands.items() if hasattr(command, "commands")}
    with_help = [(), *[(name,) for name in main.commands], *[(a, b) for a, names in groups.items() for b in names]]
    commands = [((*words, "--help"), "") for words in with_help]
    commands += [(("--version",), ""), ((), "pggan-kit sa"), (("trian",), ""), (("train",), "")]
    commands += [(("plugins", "new", "mine"), ""), (("sample", "run", "--count", "0"), "")]
    answers = run_commands(commands, ["torch", "matplotlib", "scipy", "gin"])

    for (words, _), (_, shown, heavy) in zip(commands, answers, strict=True):
        assert heavy == [], f"pggan-kit {' '.join(words)} imports {', '.join(heavy)}"
        assert "Traceback" not in shown
    helped = answers[: len(with_help)]
    assert all(code == 0 and shown.startswith("Usage: pggan-kit") for code, shown, _ in helped)
    assert "Draw images from a run's averaged generator." in helped[0][1], "the list of commands says what each does"
    version, completed, misspelt, missing, no_kind, low = answers[len(with_help) :]
    assert version[:2] == (0, "pggan-kit, version 0.1.0\n")
    assert completed[:2] == (0, "plain,sample\n")
    assert (misspelt[0], missing[0], no_kind[0], low[0]) == (2, 2, 2, 2)
    # `trial` is near, too: launchers run it, and help does not show it.
    assert "No such command 'trian' (did you mean train?)." in misspelt[1] and "'--kind'" in no_kind[1]


def test_commands_that_train_nothing_import_no_compiler(
    train: Callable[..., object], tiny: Callable[..., str], stub: str
) -> None:
    """torch imports it as it makes the first optimizer, and a generator is restored without one."""
    train("schedule.sizes = (4,)", run_dir="run")
    good = tiny()
    bad = tiny("train.sede = 1", name="bad.gin")
    commands = [
        (("sample", "run", "--count", "4", "--out", "x.npz", "--plugin", stub), ""),
        (("config", "show", good, "--plugin", stub), ""),
        (("plugins", "list"), ""),
        (("plugins", "show", "losses.Hinge"), ""),
        (("config", "check", bad, "--plugin", stub), ""),
        (("train", bad, "--plugin", stub), ""),
        (("resume", "nowhere"), ""),
        (("sample", "nowhere", "--out", "x.png"), ""),
    ]
    answers = run_commands(commands, ["torch._inductor", "torch._dynamo", "matplotlib", "scipy"])
    assert [code for code, _, _ in answers] == [0, 0, 0, 0, 2, 2, 2, 2], answers
    assert "did you mean" in answers[4][1]
    for (words, _), (_, _, heavy) in zip(commands, answers, strict=True):
        assert heavy == [], f"pggan-kit {' '.join(words)} imports {', '.join(heavy)}"


def test_no_module_imports_heavy_packages_that_few_need() -> None:
    """torch itself imports its compiler when the first optimizer is built; nothing of ours does so before."""
    core = Path(pggan_kit.__file__).parent
    names = [".".join(file.relative_to(core.parent).with_suffix("").parts) for file in sorted(core.rglob("*.py"))]
    # `ablation` imports scipy at once, so that a missing package is reported before hours of training.
    aside = ("pggan_kit.ablation", "pggan_kit.__main__", "pggan_kit.scaffold.templates")
    names = [name.removesuffix(".__init__") for name in names if not name.startswith(aside)]
    assert "pggan_kit.training.compiler" in names and "pggan_kit.report" in names
    code = f"""
import importlib, sys
import pggan_kit
assert pggan_kit.Component.__name__ == "Component"
assert "torch" not in sys.modules, "a row of components() needs no torch"
for name in {names!r}:
    importlib.import_module(name)
    heavy = [module for module in ("torch._inductor", "matplotlib", "scipy", "jinja2") if module in sys.modules]
    assert not heavy, f"{{name}} imports {{heavy}}"
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_run_without_the_module_resource_does_not_log_memory(
    train: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "resource", None)
    (row, *_) = train("schedule.sizes = (4,)").stats  # type: ignore[attr-defined]
    assert "Timing/seconds" in row and "Resources/memory_mib" not in row


def test_memory_that_cannot_be_measured_is_one_clear_error(
    tiny: Callable[..., str],
    cli: Callable[..., Result],
    refused: Callable[[Result, str], str],
    stub: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "resource", None)
    monkeypatch.setattr(devices, "STATUS", Path("/nowhere"))
    with pytest.raises(ConfigError, match="memory of a process cannot be measured on this platform"):
        devices.peak_mib(torch.device("cpu"))

    monkeypatch.delattr("os.sysconf")
    result = cli("plan", tiny("schedule.sizes = (4,)"), "--plugin", stub)
    refused(result, r"does not tell Python how much memory the machine has.*: plan for a GPU, or on Linux or macOS")
