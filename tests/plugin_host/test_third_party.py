"""A plugin that this project has never seen: as an installed wheel in a fresh environment, and as a single file."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from helpers.fresh import fresh_python
from helpers.patience import PATIENCE_SECONDS

SOURCE = '''\
"""A loss, a switch and an observer from outside the project."""

from pggan_kit import Component, Scores, check_above, hookimpl


class Margin:
    """A loss with a margin."""

    needs_real = False
    penalties = ()

    def __init__(self, margin: float = 1.0) -> None:
        check_above("margin", margin, 0)
        self.margin = margin

    def discriminator(self, real: Scores, fake: Scores) -> dict:
        return {"margin": (self.margin - real.score).relu().mean() + (self.margin + fake.score).relu().mean()}

    def generator(self, fake: Scores, real: Scores | None) -> dict:
        return {"margin": -fake.score.mean()}


class Stairs:
    """A fade in steps."""

    def __init__(self, steps: int = 2) -> None:
        self.steps = steps

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        return int(progress * self.steps) / self.steps


class Diary:
    """An observer that writes a line at each tick."""

    @hookimpl
    def after_tick(self, run, stage, stats):
        with (run.directory / "diary.txt").open("a") as file:
            file.write(f"{stage.size} {stats['Progress/alpha']:.2f} {'Loss/generator/margin' in stats}\\n")


@hookimpl
def components():
    return [
        Component("losses", "Margin", Margin),
        Component("switches", "Stairs", Stairs),
        Component("observers", "Diary", Diary),
    ]
'''

LINES = [
    "schedule.sizes = (4, 8)",
    "train.loss = @losses.Margin()",
    "losses.Margin.margin = 2.0",
    "train.switch = @switches.Stairs()",
    "train.observers = [@observers.Diary()]",
    "train.tick = 4",
]
DIARY = ["4x4 1.00 True"] * 2 + ["8x8 0.00 True", "8x8 0.50 True"] + ["8x8 1.00 True"] * 2

PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "somebody-elses-parts"
version = "3.1"

[project.entry-points.pggan_kit]
elsewhere = "somebody_elses_parts"

[tool.setuptools]
py-modules = ["somebody_elses_parts"]
"""


def run_command(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Return the Python of a fresh environment; see `fresh_python`."""
    return fresh_python(tmp_path)


@pytest.mark.slow
def test_an_installed_wheel_supplies_a_loss_a_switch_and_an_observer(
    fresh: Path, tiny: Callable[..., str], cli: Callable[..., Result], stub: str, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(PYPROJECT)
    (project / "somebody_elses_parts.py").write_text(SOURCE)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    offline = ["--no-build-isolation", "--no-deps", "--no-index"]
    run_command(*pip, "wheel", project, "-w", tmp_path / "wheels", *offline)
    (wheel,) = (tmp_path / "wheels").glob("somebody_elses_parts-3.1-*.whl")
    run_command(*pip, "--python", fresh, "install", wheel, "--no-deps", "--no-index")

    environment = {**os.environ, "PYTHONNOUSERSITE": "1"}
    kit = (fresh, "-m", "pggan_kit")
    shown = json.loads(run_command(*kit, "plugins", "list", "--json", environment=environment))
    (plugin,) = [each for each in shown["plugins"] if each["plugin"] == "elsewhere"]
    assert Path(plugin.pop("folder")).is_dir() and plugin.pop("broken") is None
    assert plugin == {
        "plugin": "elsewhere",
        "distribution": "somebody-elses-parts",
        "version": "3.1",
        "origin": "somebody-elses-parts 3.1",
        "parts": ["losses.Margin", "switches.Stairs", "observers.Diary"],
        "hooks": {"fade_alpha": ["switches.Stairs"], "after_tick": ["observers.Diary"]},
        "blocked": False,
    }
    run_command(*kit, "train", tiny(*LINES), "--plugin", stub, "--run-dir", "run", environment=environment)
    assert Path("run/diary.txt").read_text().splitlines() == DIARY
    about = json.loads(Path("run/run.json").read_text())
    assert "somebody-elses-parts 3.1" in [plugin["origin"] for plugin in about["plugins"]]
    # The environment of these tests has not changed.
    assert "elsewhere" not in cli("plugins", "list").stdout


def test_a_single_file_supplies_them_too(
    tiny: Callable[..., str], cli: Callable[..., Result], stub: str, rejected: Callable[..., str]
) -> None:
    file = tiny(*LINES)
    Path("parts.py").write_text(SOURCE)
    assert "losses.Margin" in cli("plugins", "list", "--plugin", "parts.py").stdout
    result = cli("train", file, "--plugin", stub, "--plugin", "parts.py", "--run-dir", "run")
    assert result.exit_code == 0, result.output
    assert Path("run/diary.txt").read_text().splitlines() == DIARY
    assert cli("sample", "run", "--count", 2, "--out", "x.npz").exit_code == 0
    message = r"tiny\.gin:19: losses\.Margin\.margin must be above 0, and is -2$"
    rejected(message, LINES[0], LINES[1], "losses.Margin.margin = -2", args=["--plugin", "parts.py"])
