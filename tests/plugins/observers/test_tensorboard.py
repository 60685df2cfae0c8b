"""A run's event files as a real TensorBoard server reads them, by the endpoints of its own pages."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import STUB, TINY
from helpers.patience import PATIENCE_SECONDS
from PIL import Image

from pggan_kit.api.train import train
from pggan_plugins.observers.tensorboard import LAYOUT
from pggan_plugins.observers.tick_log import parse_hyperparameters

OBSERVED = """\
train.observers = [@observers.TensorBoard(), @observers.TransitionShock()]
observers.TensorBoard.count = 9
"""

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Path:
    """Train the runs `soft` and `hard`."""
    folder = tmp_path_factory.mktemp("runs")
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("tiny.gin").write_text(TINY + OBSERVED)
        train("tiny.gin", run_dir="soft", plugins=[str(STUB)])
        train("tiny.gin", ["train.switch = @switches.Hard()"], run_dir="hard", plugins=[str(STUB)])
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(scope="module")
def ask(runs: Path) -> Iterator[Ask]:
    """Yield a function that queries a server on the runs: `ask("scalars/tags", run="soft")`; a `body` is posted."""
    code = "from tensorboard.main import run_main; run_main()"
    command = [sys.executable, "-c", code, "--logdir", str(runs), "--port", "0", "--host", "127.0.0.1"]
    server = subprocess.Popen([*command, "--load_fast", "false"], stderr=subprocess.PIPE, text=True)
    try:
        address = _read_address(server)

        def query_server(path: str, body: dict[str, Any] | None = None, raw: bool = False, **query: Any) -> Any:
            url = f"{address}data/plugin/{path}?{urllib.parse.urlencode(query)}"
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=20) as answer:
                content = answer.read()
            return content if raw else json.loads(content)

        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(query_server("scalars/tags")) < 2 and time.monotonic() < deadline:  # it reads in the background
            time.sleep(0.2)
        yield query_server
    finally:
        server.terminate()
        server.wait(20)
        assert server.stderr is not None
        server.stderr.close()


def _read_address(server: subprocess.Popen[str]) -> str:
    assert server.stderr is not None
    for line in server.stderr:
        actual = re.search(r"http://\S+", line)
        if actual:
            return actual[0]
    raise AssertionError("the server printed no address")


def test_scalars_are_those_of_the_ticks(ask: Ask, runs: Path) -> None:
    rows = [json.loads(line) for line in (runs / "soft/stats.jsonl").read_text().splitlines()]
    tags = ask("scalars/tags")["soft"]
    for tag in ("Loss/generator/hinge", "Progress/alpha", "Timing/seconds"):
        assert tag in tags
        points = ask("scalars/scalars", run="soft", tag=tag)
        assert [step for _, step, _ in points] == [row["images"] for row in rows]
        assert [value for *_, value in points] == pytest.approx([row[tag] for row in rows])


@pytest.mark.parametrize("run", ["soft", "hard"])
def test_transitions_are_there(ask: Ask, runs: Path, run: str) -> None:
    rows = [json.loads(line) for line in (runs / run / "transitions.jsonl").read_text().splitlines()]
    for tag in ("Transition/rms/ema", "Transition/Loss/generator/hinge/after"):
        points = ask("scalars/scalars", run=run, tag=tag)
        assert [(step, value) for _, step, value in points] == [
            (row["images"] + 1, pytest.approx(row[tag], abs=1e-6)) for row in rows
        ]
    assert len(rows) == (4 if run == "soft" else 2)


def test_the_charts_find_their_tags(ask: Ask) -> None:
    shown = ask("custom_scalars/layout")
    assert [category["title"] for category in shown["category"]] == list(LAYOUT)
    charts = {chart["title"]: chart["multiline"]["tag"] for c in shown["category"] for chart in c["chart"]}
    assert charts["losses"] == ["Loss/.*"]
    there = set(ask("scalars/tags")["soft"])
    for title, expressions in charts.items():
        if title not in ("metrics", "jump of features at switches"):  # this run has none
            assert [tag for tag in there if re.fullmatch(expressions[0], tag)], f"{title} shows nothing"
            answer = ask("custom_scalars/scalars", run="soft", tag=expressions[0])
            assert answer["regex_valid"] and answer["tag_to_events"], title


def test_images_are_grids(ask: Ask) -> None:
    assert ask("images/tags")["soft"]["Samples"]["samples"] == 1
    actual = ask("images/images", run="soft", tag="Samples", sample=0)
    assert [entry["step"] for entry in actual] == [8, 16, 24, 32, 40]
    with Image.open(io.BytesIO(ask(f"images/individualImage?{actual[-1]['query']}&_=", raw=True))) as picture:
        assert picture.format == "PNG"
        assert picture.size == (3 * (64 + 2) + 2,) * 2  # 16x16, four times as large

    # Reals come once for each stage, one image after its beginning.
    actual = ask("images/images", run="soft", tag="Reals", sample=0)
    assert [entry["step"] for entry in actual] == [1, 9, 25]
    with Image.open(io.BytesIO(ask(f"images/individualImage?{actual[-1]['query']}&_=", raw=True))) as picture:
        assert picture.size == (3 * (64 + 2) + 2,) * 2


def test_hyperparameters_distinguish_the_runs(ask: Ask) -> None:
    experiment = ask("hparams/experiment", body={"experimentName": ""})
    names = {info["name"] for info in experiment["hparamInfos"]}
    assert {"train.switch", "train.latent_size", "schedule.sizes"} <= names
    compared = {info["name"]["tag"] for info in experiment["metricInfos"]}
    assert compared == {"Loss/generator/hinge", "Loss/discriminator/hinge"}
    wanted = {"allowedStatuses": ["STATUS_SUCCESS", "STATUS_RUNNING", "STATUS_UNKNOWN", "STATUS_FAILURE"]}
    groups = ask("hparams/session_groups", body={"experimentName": "", "startIndex": 0, "sliceSize": 10, **wanted})
    actual = {group["sessions"][0]["name"]: group for group in groups["sessionGroups"]}
    assert {name: group["hparams"]["train.switch"] for name, group in actual.items()} == {
        "soft": "@switches.Linear()",
        "hard": "@switches.Hard()",
    }
    assert actual["soft"]["hparams"]["train.latent_size"] == 8
    values = {value["name"]["tag"]: value["value"] for value in actual["soft"]["metricValues"]}
    points = ask("scalars/scalars", run="soft", tag="Loss/generator/hinge")
    assert values["Loss/generator/hinge"] == pytest.approx(points[-1][2])


def test_the_operative_config_is_a_text(ask: Ask) -> None:
    (tag,) = ask("text/tags")["soft"]
    assert "train.collapse_below = 0.05" in ask("text/text", run="soft", tag=tag)[0]["text"]


def test_hyperparameters_are_numbers_truths_and_texts() -> None:
    text = "SIZES = (4, 8)\n\na.b = 3\na.c = 1e-3\ns/a.d = True\na.e = 'x'\na.f = @b.C()\na.g = {4: 2}\n"
    assert parse_hyperparameters(text) == {
        "SIZES": "(4, 8)",
        "a.b": 3,
        "a.c": 1e-3,
        "s/a.d": True,
        "a.e": "x",
        "a.f": "@b.C()",
        "a.g": "{4: 2}",
    }
    assert len(parse_hyperparameters(f"a.b = @{'x' * 900}")["a.b"]) == 200
