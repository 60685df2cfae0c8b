"""The page of `explore`: what its controls ask for, what cannot be served, and the page itself in a real browser."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from conftest import TINY
from helpers.chromium import open_in_chromium
from helpers.forks import Fork, wait_until
from helpers.gin_text import bind_again
from PIL import Image

from pggan_kit.api import explore_page
from pggan_kit.api.explore_page import IN_TURN, Painter, describe_address, open_socket
from pggan_kit.api.explorer import END, FADE, GRID, GROWTH, Explorer, View, open_explorer
from pggan_kit.api.train import train as train_file
from pggan_kit.cli import main
from pggan_kit.errors import RunError, SettingError

Cli = Callable[..., Result]
Refused = Callable[[Result, str], str]

LINES = (
    "datasets.Stub.classes = 3",
    "architectures.StyleGAN2.conditioning = 'projection'",
    "architectures.StyleGAN2.style_size = 6",
    "architectures.StyleGAN2.mapping_layers = 2",
)


@pytest.fixture
def explorer(tmp_path: Path, stub: str, monkeypatch: pytest.MonkeyPatch) -> Explorer:
    """Return what explores `run`, which has fades, classes and styles."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.gin").write_text(bind_again(TINY.replace("PGGAN", "StyleGAN2"), LINES))
    train_file("tiny.gin", run_dir="run", plugins=[stub])
    return open_explorer(Path("run"))


def test_controls_become_a_view_and_a_picture_that_says_so(
    explorer: Explorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explore_page, "KEPT_PICTURES", 2)
    painter = Painter(explorer, "mine", tmp_path)
    view = View(stage=1, moment=FADE, alpha=0.5, seed=4, count=3)
    neutral = {**asdict(view), "label": IN_TURN, "first_mixed_layer": 6}
    assert painter.make_view(neutral) == view
    chosen = {**neutral, "label": "1", "first_mixed_layer": 2}
    assert painter.make_view(chosen) == replace(view, label=1, first_mixed_layer=2)
    with pytest.raises(SettingError, match="seed must be"):
        painter.make_view({**neutral, "seed": None})

    path, words = painter.paint(chosen)
    assert words == explorer.describe(view)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(picture, explorer.draw(painter.make_view(chosen)))
        assert View(**json.loads(picture.info["pggan_kit"])) == painter.make_view(chosen)  # type: ignore[attr-defined]

    # Files of pictures that nobody looks at any more do not pile up.
    for _ in range(3):
        painter.paint(neutral)
    assert sorted(file.name for file in tmp_path.glob("mine-*.png")) == ["mine-0002.png", "mine-0003.png"]


def test_what_cannot_be_served_is_refused(cli: Cli, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gradio", None)
        refused(cli("explore", "nowhere"), r"the page needs the library `gradio` .*: pip install 'pggan_kit\[explore]'")
    assert cli("explore", "nowhere", "--port", 65536).exit_code == 2

    # All that is refused before Gradio is used.
    monkeypatch.setattr(explore_page, "import_gradio", lambda cache: None)
    refused(cli("explore", "nowhere", "--port", 0), r"nowhere")
    refused(cli("explore", "nowhere", "--host", ".."), r"--host \.\.: there is no such address")
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        refused(cli("explore", "nowhere", "--port", port), rf"--port {port}: cannot listen there \(.*0 for a free one")
        assert describe_address(taken) == f"http://127.0.0.1:{port}/"

    # A port is free again as soon as its page is stopped, and the address of IPv6 is written as browsers take it.
    with open_socket("127.0.0.1", port):
        pass
    with pytest.raises(RunError, match="cannot listen there"):
        open_socket("192.0.2.1", 0)
    if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"):
        with open_socket("::1", 0) as listener:
            assert describe_address(listener) == f"http://[::1]:{listener.getsockname()[1]}/"


def read_picture(page: Any) -> np.ndarray:
    """Return the picture that a page shows."""
    source = page.locator(".picture img").get_attribute("src")
    with Image.open(io.BytesIO(page.request.get(source).body())) as picture:
        return np.asarray(picture)


def wait_for_picture(page: Any, wanted: Image.Image) -> None:
    """Wait until a page shows a picture, pixel by pixel."""
    wait_until(lambda: np.array_equal(read_picture(page), np.asarray(wanted)))


def move(page: Any, name: str, value: float) -> None:
    """Move a slider, or write a number."""
    page.locator(f"#{name} input").last.fill(str(value))


@pytest.mark.browser
def test_in_a_real_browser(explorer: Explorer, tmp_path: Path) -> None:
    """A visitor moves every control, and sees the picture that belongs to it; saves it; and the page ends in order."""
    pytest.importorskip("gradio", reason="needs the extra explore: make test-browser")
    log = tmp_path / "log"
    server = Fork(lambda: main(["explore", "run", "--port", "0"]), log)
    wait_until(lambda: "Ctrl-C" in log.read_text(), server)
    (address,) = re.findall(r"http://\S+", log.read_text())
    with open_in_chromium(address, height=1300) as page:
        view = View(stage=2, moment=FADE)
        page.wait_for_selector(".picture img")
        wait_for_picture(page, explorer.draw(view))
        first = page.locator(".picture img").screenshot()

        # Alpha through the fade, and stage by stage, with the same latents.
        for alpha in (0.0, 0.3):
            view = replace(view, alpha=alpha)
            move(page, "alpha", alpha)
            wait_for_picture(page, explorer.draw(view))
        assert page.locator(".picture img").screenshot() != first
        assert page.locator("#words").inner_text() == explorer.describe(view)
        for stage in (1, 0):
            view = replace(view, stage=stage)
            move(page, "stage", stage)
            wait_for_picture(page, explorer.draw(view))
        page.wait_for_selector("#alpha input[type=range]:disabled")
        assert "no checkpoint during its fade was kept" in page.locator("#words").inner_text()
        view = replace(view, stage=2, moment=END)
        move(page, "stage", 2)
        page.wait_for_selector("#alpha input[type=range]:enabled")
        page.get_by_label(END).check()
        wait_for_picture(page, explorer.draw(view))
        page.wait_for_selector("#alpha input[type=range]:disabled")

        # Latents, classes and styles.
        changes = {"seed": 3, "second_seed": 8, "way": 0.5, "count": 4, "truncation": 0.7, "first_mixed_layer": 2}
        for name, value in changes.items():
            view = replace(view, **{name: value})
            move(page, name, value)
        page.locator("#label input").click()
        page.get_by_role("option", name="1", exact=True).click()
        view = replace(view, label=1)
        wait_for_picture(page, explorer.draw(view))
        page.screenshot(path=tmp_path / "page.png", full_page=True)

        # What is saved is what is shown, and says how to draw it again.
        with page.expect_download() as download:
            page.locator("#save").click()
        assert re.fullmatch(r"run-\d{4}\.png", download.value.suggested_filename)
        with Image.open(download.value.path()) as picture:
            np.testing.assert_array_equal(picture, explorer.draw(view))
            assert View(**json.loads(picture.info["pggan_kit"])) == view  # type: ignore[attr-defined]

        page.get_by_label(GROWTH).check()
        wait_for_picture(page, explorer.draw(replace(view, shown=GROWTH)))
        page.get_by_label(GRID, exact=True).check()
        wait_for_picture(page, explorer.draw(view))

        # A wrong number is named, and the picture stays.
        move(page, "seed", 2**70)
        page.get_by_text(re.compile("seed must be")).wait_for()

    server.send_signal(signal.SIGINT)
    assert server.wait() == 0, log.read_text()
    assert "Traceback" not in log.read_text()
