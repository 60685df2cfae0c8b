"""The conformance suite of launchers on `launchers.Mine`. Add what is particular to yours."""

import sys
from pathlib import Path

from mine import Mine

from pggan_kit import Trial
from pggan_kit.testing import LauncherSuite


class TestMine(LauncherSuite):
    bad_arguments = ({"retries": -1},)

    def make(self) -> Mine:
        return Mine()


def test_one_that_always_dies_is_run_so_often_and_no_more(tmp_path: Path) -> None:
    code = "open('times', 'a').write('x'); raise SystemExit(7)"
    trial = Trial("dies", [sys.executable, "-c", code], folder=tmp_path)
    assert Mine(retries=2).launch([trial]) == [7]
    assert (tmp_path / "times").read_text() == "xxx"
