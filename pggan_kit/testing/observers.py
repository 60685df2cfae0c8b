"""The suites of observers and of launchers: what stands around a run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pggan_kit.testing.base import TrainedSuite
from pggan_kit.testing.support import equal, require
from pggan_kit.testing.tiny_runs import summary, train_tiny


class ObserverSuite(TrainedSuite):
    """Watches a run through hooks and changes nothing in it."""

    kind = "observers"

    def chosen(self, part: Any) -> dict[str, Any]:
        """As `train.observers`."""
        return {"observers": [part]}

    def test_changes_nothing(self) -> None:
        """A run with it and one without end in the same weights, to the bit."""
        part, name = self.part()
        with tempfile.TemporaryDirectory() as watched, tempfile.TemporaryDirectory() as alone:
            with_it = summary(train_tiny(part, name, Path(watched), self.chosen(part)))
            without = summary(train_tiny(object(), "nobody", Path(alone), {}))
        require(
            equal(with_it, without), f"a run with {name} ends in other weights than one without: it disturbs training"
        )

    def test_leaves_the_same_files_in_each_run(self) -> None:
        """One object in two runs: in the second it leaves the files that a new object leaves."""
        used, name = self.part()
        left: list[dict[str, bytes]] = []
        for part in (used, used, self.make(), self.make()):
            with tempfile.TemporaryDirectory() as folder:
                train_tiny(part, name, Path(folder), self.chosen(part))
                files = [path for path in Path(folder).rglob("*") if path.is_file()]
                left.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
        _, second, fresh, other = left
        for path, content in fresh.items():
            if other.get(path) == content:  # else it has the time in it
                require(
                    second.get(path) == content,
                    f"in a second run with one {name}, {path} is not what a new one leaves: {name} keeps something "
                    "from run to run; begin it in before_run, not in __init__ alone",
                )
