"""Completion in shells: the lines on the page of commands work, and what they ask pggan-kit for is answered."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers.paths import ROOT
from helpers.patience import PATIENCE_SECONDS

from pggan_kit.cli import main

PAGE = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
SHELLS = ("bash", "zsh", "fish")


def ask(**environment: str) -> Result:
    return CliRunner().invoke(main, [], env=environment, prog_name="pggan-kit")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_page_has_a_line_for_each_shell(shell: str) -> None:
    (line,) = re.findall(rf"^\| {shell}\b.*\| `(.+)` \|$", PAGE, re.MULTILINE)
    assert f"_PGGAN_KIT_COMPLETE={shell}_source pggan-kit" in line


@pytest.mark.parametrize("shell", SHELLS)
def test_the_line_prints_a_script_that_the_shell_accepts(shell: str, tmp_path: Path) -> None:
    script = ask(_PGGAN_KIT_COMPLETE=f"{shell}_source")
    assert script.exit_code == 0 and f"_PGGAN_KIT_COMPLETE={shell}_complete" in script.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: its script was printed, and not read by it")
    (tmp_path / "script").write_text(script.stdout)
    check = [shell, "-n", "script"]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("shell", "expected"),
    [("bash", "plain,sample\n"), ("zsh", "plain\nsample\n"), ("fish", "plain,sample\t")],
)
def test_what_the_script_asks_for_is_answered(shell: str, expected: str) -> None:
    words = {"COMP_WORDS": "pggan-kit sa", "COMP_CWORD": "sa" if shell == "fish" else "1"}
    answer = ask(_PGGAN_KIT_COMPLETE=f"{shell}_complete", **words)
    assert answer.exit_code == 0
    assert expected in answer.stdout and "train" not in answer.stdout
