"""Completion in shells: the lines on the page of commands work, and what they ask pggan-kit for is answered."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers.paths import ROOT

from pggan_kit.cli import main

PAGE = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
SHELLS = ("bash", "zsh", "fish")
TAB_SECONDS = 60
"""Seconds after which a shell that shows no completion has none: a press of the key takes one or two."""


def ask(**environment: str) -> Result:
    return CliRunner().invoke(main, [], env=environment, prog_name="pggan-kit")


def read_row(shell: str) -> tuple[str, str]:
    """Return the file and the line that the page of commands names for a shell."""
    (row,) = re.findall(rf"^\| {shell}\b.*\| `~/(.+)` \| `(.+)` \|$", PAGE, re.MULTILINE)
    return row[0], row[1].replace("\\|", "|")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_page_has_a_line_for_each_shell(shell: str) -> None:
    assert f"_PGGAN_KIT_COMPLETE={shell}_source pggan-kit" in read_row(shell)[1]
    script = ask(_PGGAN_KIT_COMPLETE=f"{shell}_source")
    assert script.exit_code == 0 and f"_PGGAN_KIT_COMPLETE={shell}_complete" in script.stdout


PROMPT = b"READY>"
SET_PROMPT = {
    "bash": (".bashrc", "PS1='READY>'"),
    "zsh": (".zshrc", "PS1='READY>'"),
    "fish": (".config/fish/config.fish", "function fish_prompt; echo -n 'READY>'; end"),
}
"""The file that each interactive shell reads as it starts, and the line in it that sets the prompt."""


@pytest.mark.parametrize("shell", SHELLS)
def test_the_tab_key_completes_in_a_shell_with_nothing_but_that_line(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    for file, line in (SET_PROMPT[shell], read_row(shell)):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        with (tmp_path / file).open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
    shown = press_keys(shell, b"pggan-kit interp\t", b"interpolate", tmp_path)
    assert b"interpolate" in shown, shown.decode(errors="replace")


def press_keys(shell: str, keys: bytes, wanted: bytes, home: Path) -> bytes:
    """Return what a shell on a terminal shows after its prompt, once what is wanted is there or time is up."""
    import pty

    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"HOME": str(home), "PATH": path, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(home)
        os.execvpe(shell, [shell, "-i"], environment)

    # The shell is still starting until its prompt is there, and swallows keys that come earlier.
    shown = b""
    keys_are_sent = False
    deadline = time.monotonic() + TAB_SECONDS
    try:
        while time.monotonic() < deadline and wanted not in shown.rpartition(PROMPT)[2]:
            ready, _, _ = select.select([terminal], [], [], 0.2)
            if ready:
                shown += os.read(terminal, 4096)
            if PROMPT in shown and not keys_are_sent:
                os.write(terminal, keys)
                keys_are_sent = True
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)
    return shown


@pytest.mark.parametrize(
    ("shell", "expected"),
    [("bash", "plain,sample\n"), ("zsh", "plain\nsample\n"), ("fish", "plain,sample\t")],
)
def test_what_the_script_asks_for_is_answered(shell: str, expected: str) -> None:
    words = {"COMP_WORDS": "pggan-kit sa", "COMP_CWORD": "sa" if shell == "fish" else "1"}
    answer = ask(_PGGAN_KIT_COMPLETE=f"{shell}_complete", **words)
    assert answer.exit_code == 0
    assert expected in answer.stdout and "train" not in answer.stdout
