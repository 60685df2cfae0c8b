"""`pggan-kit --debug-info`: what a report of a fault needs is there, and no path of the person who reports."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from helpers.paths import ROOT

from pggan_kit.api.debug_info import describe_installation, identify_settings
from pggan_kit.system import libraries
from pggan_kit.system.hidden_paths import hide_paths

MNIST = ROOT / "experiments/mnist.gin"


def test_versions_device_and_plugins_are_named(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGGAN_KIT_NO_PLUGINS", "switches")
    result = cli("--debug-info")
    assert result.exit_code == 0, result.output
    about = json.loads(result.stdout)
    # The distribution of the registry has no "+cu130" in its version, which torch itself has.
    for name in ("torch", "gin-config"):
        assert about["libraries"][name] == importlib.metadata.version(name)
    assert about["environment"]["torch"] == torch.__version__
    assert about["hardware"].endswith(", 1 thread") and about["revision"]
    assert set(about["gpu"]) == {"driver", "cuda", "cudnn"}
    states = {row["plugin"]: row["state"] for row in about["plugins"]}
    assert (states["losses"], states["switches"]) == ("loaded", "blocked")
    assert about["config"] is None
    assert str(Path.home()) not in result.stdout and str(ROOT) not in result.stdout


def test_a_config_has_one_identity_in_every_folder(tmp_path: Path) -> None:
    for name in ("here", "there"):
        shutil.copytree(ROOT / "experiments/base", tmp_path / name / "base")
        shutil.copy(MNIST, tmp_path / name)
    identities = []
    for name in ("here", "there"):
        cache = [f"data.cache = '{tmp_path / name / 'cache'}'"]
        identities.append(describe_installation(tmp_path / name / "mnist.gin", cache)["config"])
    assert identities[0] == identities[1] and len(identities[0]["sha256"]) == 64
    other = describe_installation(tmp_path / "here/mnist.gin", [*cache, "train.seed = 7"])["config"]
    assert other["sha256"] != identities[0]["sha256"]


def test_a_config_that_cannot_be_built_is_reported_without_its_folder(
    tmp_path: Path, cli: Callable[..., Result]
) -> None:
    (tmp_path / "wrong.gin").write_text("train.sede = 1\n")
    result = cli("--debug-info", tmp_path / "wrong.gin")
    assert result.exit_code == 0, result.output
    error = json.loads(result.stdout)["config"]["error"]
    assert "sede" in error and str(tmp_path) not in result.stdout


def test_options_alone_are_no_command(cli: Callable[..., Result]) -> None:
    result = cli("--debug")
    assert result.exit_code == 2 and "Missing command" in result.output


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("in /home/ann/x/mnist.gin:3: wrong", "in .../mnist.gin:3: wrong"),
        (r"C:\Users\Ann\mnist.gin is missing", ".../mnist.gin is missing"),
        ("~/data and /tmp", ".../data and .../tmp"),
        ("no file '/home/ann lee/secret, plans/x.gin'", "no file '.../x.gin'"),
        ("config /srv/our plan/a b/x.gin: no such file", "config .../x.gin: no such file"),
        (r'in "D:\Ann Lee\x.gin"', 'in ".../x.gin"'),
        ("'/home/ann/x', 3 images/s, d/optimizers.Adam", "'.../x', 3 images/s, d/optimizers.Adam"),
    ],
)
def test_paths_are_reduced_to_their_last_name(text: str, hidden: str) -> None:
    assert hide_paths(text, "/srv/our plan", "/srv/our plan/a b") == hidden


def test_settings_in_another_folder_have_the_same_identity() -> None:
    settings = [{"train.dataset": {"folder": repr(f"{folder}/digits")}} for folder in ("/a", "/b c, d")]
    assert identify_settings(settings[0]) == identify_settings(settings[1])
    assert identify_settings(settings[0]) != identify_settings({"train.dataset": {"folder": "'/a/letters'"}})


def test_a_driver_that_cannot_be_asked_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(libraries, "DRIVER_QUERY", (str(tmp_path / "nvidia-smi"),))
    assert libraries.find_driver_version() is None
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 580.12\necho 580.12\n")
    command.chmod(0o755)
    assert libraries.find_driver_version() == "580.12"
