"""Threads that wait for each other sleep early: the command says so to OpenMP before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers.patience import PATIENCE_SECONDS

from pggan_kit.cli.base import SPINS, limit_spinning

VARIABLE = "GOMP_SPINCOUNT"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU OpenMP on Linux alone")
def test_openmp_reads_the_number_when_a_command_loads_torch() -> None:
    """OpenMP prints its settings once, when it is loaded: what is set later would not be there."""
    environment = {**os.environ, "OMP_DISPLAY_ENV": "verbose"}
    command = [sys.executable, "-m", "pggan_kit", "plugins", "list"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, env=environment, check=True
    )
    assert f"{VARIABLE} = '{SPINS}'" in done.stderr


@pytest.mark.parametrize(("variable", "value"), [(VARIABLE, "7"), ("OMP_WAIT_POLICY", "active")])
def test_what_the_user_has_set_stands(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv(variable, value)
    limit_spinning()
    assert os.environ[variable] == value
    assert os.environ.get(VARIABLE) == (value if variable == VARIABLE else None)


def test_nothing_is_set_where_torch_is_loaded_already() -> None:
    """It would be of no use there, and processes of a notebook would inherit it."""
    import torch  # noqa: F401

    limit_spinning()
    assert VARIABLE not in os.environ
