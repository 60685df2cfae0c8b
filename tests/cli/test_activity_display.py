"""What takes long says what it does and how far it is: lines in a file, bars in a terminal."""

from __future__ import annotations

import io
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from helpers.patience import PATIENCE_SECONDS
from helpers.reporting import draw_few_pictures, leave_out_plots
from PIL import Image
from rich.console import Console
from rich.file_proxy import FileProxy

from pggan_kit.cli import activity_display
from pggan_kit.cli.activity_display import show_activities
from pggan_kit.cli.base import print_message
from pggan_kit.system.activities import Details, report_activity, track_items

Cli = Callable[..., Result]

FOLDER = (
    "train.dataset = @datasets.ImageFolder()",
    "datasets.ImageFolder.folder = 'images'",
    "datasets.ImageFolder.channels = 1",
)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the display, which looks at it only when something advances."""
    fake = Clock()
    monkeypatch.setattr(activity_display, "time", SimpleNamespace(monotonic=fake.monotonic))
    monkeypatch.setattr(activity_display, "WAKING_SECONDS", 1e6)
    return fake


def test_a_file_gets_a_line_after_ten_silent_seconds(clock: Clock) -> None:
    lines: list[str] = []
    with show_activities(Console(file=io.StringIO()), lines.append):
        for second in track_items(range(400), "evaluate", 400):
            clock.now = 100.0 + second
    # The longer it takes, the rarer: later a line comes when a tenth of the time so far has passed.
    assert lines[:3] == [f"evaluate: {second + 1} of 400 images ({second} s)" for second in (10, 20, 30)]
    assert 15 <= len(lines) <= 26


def test_short_activities_are_silent_and_many_of_them_are_not(clock: Clock) -> None:
    lines: list[str] = []
    with show_activities(Console(file=io.StringIO()), lines.append):
        # As at the ticks of a run: each is short, and far from the last.
        for _ in range(10):
            clock.now += 60.0
            with report_activity("measuring", 2) as activity:
                clock.now += 4.0
                activity.advance()
        assert lines == []
        clock.now += 60.0
        for number in range(4):
            with report_activity(f"hashing {number}"):
                clock.now += 4.0
    assert lines == ["hashing 3 (12 s)"]


def test_what_is_within_another_is_shown_with_it(clock: Clock) -> None:
    lines: list[str] = []
    with (
        show_activities(Console(file=io.StringIO()), lines.append),
        report_activity("drawing runs", 2, "runs"),
        report_activity("drawing images", 64) as inner,
    ):
        clock.now += 10.0
        inner.advance(32)
    assert lines == ["drawing runs: 0 of 2 runs; drawing images: 32 of 64 images (10 s)"]


def test_what_does_not_advance_is_shown_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity_display, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(activity_display, "WAKING_SECONDS", 0.01)
    lines: list[str] = []
    with show_activities(Console(file=io.StringIO()), lines.append), report_activity("comparing"):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(lines) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert lines[:2] == ["comparing (0 s)"] * 2


def test_the_first_of_several_processes_alone_shows_them(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    lines: list[str] = []
    with show_activities(Console(file=io.StringIO()), lines.append), report_activity("hashing", 2) as activity:
        clock.now += 60.0
        activity.advance()
    assert lines == []


def test_a_terminal_gets_bars_and_no_lines(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with show_activities(console, lines.append), report_activity("resizing [4x4]", 3000) as activity:
        activity.advance(1000)
        assert screen.getvalue() == "", "what is short does not flicker"
        for _ in range(2):
            clock.now += 60.0
            activity.advance(500)
    assert "resizing [4x4]: 1,500 of 3,000 images" in screen.getvalue()
    assert lines == []

    # A run's own display shows lines above itself.
    live = io.StringIO()
    monkeypatch.setattr(sys, "stderr", FileProxy(Console(file=live, width=100), screen))
    with show_activities(console, print_message), report_activity("evaluate [x]", 2) as activity:
        clock.now += 60.0
        activity.advance()
    assert live.getvalue() == "evaluate [x]: 1 of 2 images (60 s)\n"


def test_details_stand_below_the_bar_in_a_terminal_alone(clock: Clock) -> None:
    asked: list[float] = []

    def describe() -> Details:
        asked.append(clock.now)
        return Details(("trial", "stage"), [("hard [0]", "1/3 4x4")], [f"{len(asked)} wait"])

    for is_terminal in (True, False):
        asked.clear()
        lines: list[str] = []
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=is_terminal, width=100)
        with (
            show_activities(console, lines.append),
            report_activity("running trials", 300, "trials", describe) as activity,
        ):
            for _ in range(9):
                clock.now += 1.0
                activity.advance()
            clock.now += 10.0
            activity.advance()
        # A terminal shows them; elsewhere nobody asks for them.
        if is_terminal:
            text = screen.getvalue()
            assert re.search(
                r"running trials: 1 of 300 trials.*trial.*stage.*hard \[0\].*1/3 4x4.*wait", text, re.DOTALL
            )
            assert "6 wait" in text and len(asked) == 6, "every two seconds"
            assert lines == []
        else:
            assert lines == ["running trials: 10 of 300 trials (19 s)"] and not asked, "as anything else"


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each report become a line at once."""
    monkeypatch.setattr(activity_display, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(activity_display, "SHARE_BETWEEN_LINES", 0.0)


def require_lines(result: Result, *expected: str) -> None:
    """Check that a command printed lines that begin so on stderr, in this order."""
    assert result.exit_code == 0, result.output
    place = 0
    lines = result.stderr.splitlines()
    for text in expected:
        places = [number for number, line in enumerate(lines) if number >= place and text in line]
        assert places, f"no line with {text!r} after line {place} of\n{result.stderr}"
        place = places[0]


def write_pictures() -> None:
    Path("images").mkdir()
    for number in range(3):
        Image.fromarray(np.full((16, 16), 40 + number, np.uint8)).save(f"images/{number}.png")


@pytest.mark.usefixtures("loud")
def test_data_build_and_train_say_what_they_do(tiny: Callable[..., str], cli: Cli) -> None:
    config = tiny(*FOLDER)
    write_pictures()
    steps = (
        "hashing the contents of images: 2 of 3 files",
        "resizing images to 4x4, 8x8, 16x16: 3 of 3 images",
        "drawing sheets of real images: 1 of 3 sheets",
    )
    require_lines(cli("data", "build", config), *steps)
    Image.new("L", (16, 16)).save("images/3.png")
    require_lines(cli("train", config, "--run-dir", "run"), "hashing the contents of", "resizing images to 4x4")
    require_lines(cli("resume", "run"), "hashing the contents of")


@pytest.mark.usefixtures("loud")
def test_commands_about_a_run_say_what_they_do(
    train: Callable[..., Any], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_plots(monkeypatch)
    draw_few_pictures(monkeypatch)
    train(run_dir="run")
    shutil.copytree("run", "other")
    sampled = cli("sample", "run", "--count", 300, "--out", "x.npz")
    require_lines(sampled, "drawing images: 256 of 300 images")
    assert cli("sample", "run", "--count", 3, "--out", "folder").exit_code == 0

    metric = ("--metric", "SlicedWasserstein", "-b", "evaluation.count = 8", "-b", "evaluation.batch_size = 4")
    measured = (
        "describing real images for metrics.SlicedWasserstein: 4 of ",
        "comparing descriptions by metrics.SlicedWasserstein",
        "drawing and describing images: 4 of 8 images",
        "comparing descriptions by metrics.SlicedWasserstein",
    )
    require_lines(cli("evaluate", "run", *metric), *measured)
    require_lines(cli("evaluate", "folder", "x.npz", *metric), "reading the images of folder: 1 of 3", *measured[:2])

    drawn = ("reading: 1 of 2 runs", "drawing images of runs: 1 of 2 runs; drawing images: ", "drawing the film: 1 of")
    require_lines(cli("report", "run", "other"), *drawn, "drawing curves and tables")


@pytest.mark.usefixtures("loud")
def test_plan_says_how_far_it_is(tiny: Callable[..., str], cli: Cli, stub: str, no_memory_count: None) -> None:
    require_lines(cli("plan", tiny("schedule.sizes = (4, 8)"), "--plugin", stub), "measuring: 1 of 2 stages")


def test_short_commands_say_nothing_of_it(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    built = cli("data", "build", tiny(), "--plugin", stub)
    assert built.exit_code == 0 and not re.search("resizing|hashing", built.stderr)
