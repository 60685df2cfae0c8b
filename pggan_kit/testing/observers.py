"""Test that observers keep their contract."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pggan_kit.testing.suite import TrainedSuite
from pggan_kit.testing.support import are_equal, require
from pggan_kit.testing.tiny_runs import load_snapshots, summarize_run, train_tiny


class ObserverSuite(TrainedSuite):
    """Observers watch a run through hooks and change nothing in it."""

    kind = "observers"

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the component as the one of `train.observers`."""
        return {"observers": [component]}

    def test_changes_nothing(self) -> None:
        """Require a run with the observer to end with the same weights as one without, bit for bit."""
        component, name = self.make_named()
        with tempfile.TemporaryDirectory() as watched, tempfile.TemporaryDirectory() as alone:
            with_it = summarize_run(self.train(component, name, watched))
            without = summarize_run(train_tiny(object(), "nobody", Path(alone), {}))
        require(
            are_equal(with_it, without),
            f"a run with {name} ends with other weights than one without: it disturbs training",
        )

    def test_leaves_the_same_files_in_each_run(self) -> None:
        """Require the second run with one object to leave the files that a new object leaves."""
        used, name = self.make_named()
        files_by_run: list[dict[str, bytes]] = []
        for component in (used, used, self.make(), self.make()):
            with tempfile.TemporaryDirectory() as folder:
                self.train(component, name, folder)
                files_by_run.append(_read_files(Path(folder)))

        # A file in which two new objects differ has the time in it.
        _, second, fresh, other = files_by_run
        for path, content in fresh.items():
            if other.get(path) == content:
                require(
                    second.get(path) == content,
                    f"in a second run with one {name}, {path} is not what a new one leaves: {name} keeps something "
                    "from run to run; begin it in before_run, not in __init__ alone",
                )

    def test_resumes_with_the_same_files(self) -> None:
        """Require a run that is resumed from any of its checkpoints to leave the files that one without a break leaves.

        The folder has all that was written after the checkpoint, as where a process was killed later.
        """
        component, name = self.make_named()
        with tempfile.TemporaryDirectory() as other_folder:
            self.train(self.make(), name, other_folder)
            others = _read_files(Path(other_folder))
        with tempfile.TemporaryDirectory() as folder:
            self.train(component, name, folder)
            # A file in which two runs differ has the time in it.
            unbroken = {
                path: content for path, content in _read_files(Path(folder)).items() if others.get(path) == content
            }
            for saved in load_snapshots(Path(folder)):
                self.train(self.make(), name, folder, saved)
                resumed = _read_files(Path(folder))
                for path, content in unbroken.items():
                    require(
                        resumed.get(path) == content,
                        f"a run with {name} that is resumed at images {saved.images} leaves another {path} than one "
                        "without a break: in before_run, drop what is later than run.state.images, which is written "
                        "again",
                    )


def _read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, by path, without those that the framework checks."""
    files = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name != "checkpoints":
            files[str(path.relative_to(folder))] = path.read_bytes()
    return files
