"""Test that observers keep their contract."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pggan_kit.testing.suite import TrainedSuite, read_files
from pggan_kit.testing.support import are_equal, require
from pggan_kit.testing.tiny_runs import load_snapshots, summarize_run, train_tiny
from pggan_kit.testing.toys import TwoModeToyArchitecture


class ObserverSuite(TrainedSuite):
    """Observers watch a run through hooks and change nothing in it."""

    kind = "observers"

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the component as the one of `train.observers`, of networks that notice each call in training mode."""
        return {"observers": [component], "architecture": TwoModeToyArchitecture()}

    def compare_memories(self, unbroken: Mapping[str, Any], resumed: Mapping[str, Any]) -> None:
        """Require nothing: an observer decides nothing, and may count what is its process's own."""

    def test_changes_nothing(self) -> None:
        """Require a run with the observer to end with the same weights as one without, bit for bit."""
        first = self.first_run()
        others = {name: value for name, value in self.choose_arguments(self.make()).items() if name != "observers"}
        with tempfile.TemporaryDirectory() as folder:
            without = summarize_run(train_tiny(object(), "nobody", Path(folder), others))
        require(
            are_equal(first.end, without),
            f"a run with {first.name} ends with other weights than one without: it disturbs training (does it "
            "call networks of `run.state` in training mode, or leave them in inference mode?)",
        )

    def test_leaves_the_same_files_in_each_run(self) -> None:
        """Require the second run with one object to leave the files that a new object leaves."""
        first = self.first_run()
        name = first.name
        other = self.other_run()
        second = self.second_run()

        # A file in which two new objects differ has the time in it.
        for path, content in first.files.items():
            if other.files.get(path) == content:
                require(
                    second.files.get(path) == content,
                    f"in a second run with one {name}, {path} is not what a new one leaves: {name} keeps something "
                    "from run to run; begin it in before_run, not in __init__ alone",
                )

    def test_resumes_with_the_same_files(self) -> None:
        """Require a run that is resumed from any of its checkpoints to leave the files that one without a break leaves.

        The folder has all that was written after the checkpoint, as where a process was killed later.
        """
        first = self.first_run()
        other = self.other_run()
        name = first.name
        # A file in which two runs differ has the time in it.
        unbroken = {
            path: content
            for path, content in first.files.items()
            if other.files.get(path) == content and Path(path).parent.name != "checkpoints"
        }
        with tempfile.TemporaryDirectory() as folder:
            first.write_files(Path(folder))
            for saved in load_snapshots(Path(folder)):
                self.train(self.make(), name, folder, saved)
                resumed = read_files(Path(folder))
                for path, content in unbroken.items():
                    require(
                        resumed.get(path) == content,
                        f"a run with {name} that is resumed at images {saved.images} leaves another {path} than one "
                        "without a break: in before_run, drop what is later than run.state.images, which is written "
                        "again",
                    )
