"""Installed plugins of another version, or none at all, where a run is resumed."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import STUB_PLUGIN

from pggan_kit import PluginError, load_generator
from pggan_kit.api.train import resume

SOURCE = """\
from pggan_kit import Component, hookimpl

class Late:
    @hookimpl
    def fade_alpha(self, progress): return progress**2

@hookimpl
def components(): return [Component("switches", "Late", Late)]
"""

LATE = "train.switch = @switches.Late()"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str | None], None]]:
    """`install("1.0")` puts a distribution with a plugin on the path, as pip does; `install(None)` removes it."""

    def put(version: str | None) -> None:
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        if version is None:
            return
        site = tmp_path / f"site-{version}"
        info = site / f"lateness-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lateness\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("[pggan_kit]\nlate = lateness_of_a_test\n")
        (site / "lateness_of_a_test.py").write_text(SOURCE)
        monkeypatch.syspath_prepend(str(site))

    yield put
    sys.modules.pop("lateness_of_a_test", None)


def test_another_version_of_an_installed_plugin_is_said_and_recorded(
    train: Callable[..., Any], install: Callable[[str | None], None]
) -> None:
    install("1.0")
    train(LATE, run_dir="run")
    install("2.0")
    said = "this run began with the plugins of lateness 1.0, and goes on with those of lateness 2.0"
    with pytest.warns(UserWarning, match=f"^{said}$"):
        resume("run")
    assert f"warning: {said}\n" in Path("run/log.txt").read_text()
    about = json.loads(Path("run/run.json").read_text())
    assert [row["distributions"]["lateness"] for row in about["processes"]] == ["1.0", "2.0"]


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_of_plugins_that_are_the_same(
    train: Callable[..., Any], install: Callable[[str | None], None]
) -> None:
    install("1.0")
    train(LATE, run_dir="run")
    resume("run")


def test_a_component_of_a_plugin_that_is_not_installed(
    train: Callable[..., Any], install: Callable[[str | None], None]
) -> None:
    install("1.0")
    train(LATE, run_dir="run")
    install(None)
    text = (
        r"config\.gin:\d+: unknown component switches\.Late: this run used the plugin late of lateness 1\.0, which is "
        r"not installed, or left out by PGGAN_KIT_NO_PLUGINS: bring it back$"
    )
    with pytest.raises(PluginError, match=text):
        resume("run")
    with pytest.raises(PluginError, match=text):
        load_generator("run")


def test_a_plugin_of_which_the_config_names_nothing_may_be_gone(
    train: Callable[..., Any], install: Callable[[str | None], None]
) -> None:
    install("1.0")
    train(run_dir="run")
    install(None)
    with pytest.warns(UserWarning, match=r"this run used the plugin late of lateness 1\.0, which is not installed"):
        resume("run", plugins=[str(STUB_PLUGIN)])
