"""Test `launchers.Mine` with the conformance suite of launchers; add tests of what is particular to yours."""

import sys
from pathlib import Path

from mine import Mine

from pggan_kit import Trial
from pggan_kit.testing import LauncherSuite


class TestMine(LauncherSuite):
    bad_arguments = ({"retries": -1},)

    def make(self) -> Mine:
        return Mine()


def test_a_trial_that_always_fails_is_run_again_as_often_as_retries_says(tmp_path: Path) -> None:
    code = "open('times', 'a').write('x'); raise SystemExit(7)"
    trial = Trial("fails", [sys.executable, "-c", code], folder=tmp_path)
    assert Mine(retries=2).launch([trial]) == [7]
    assert (tmp_path / "times").read_text() == "xxx"
