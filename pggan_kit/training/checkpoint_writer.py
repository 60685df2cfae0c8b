"""Write checkpoints and averages of a run in the background, while the loop takes steps."""

from __future__ import annotations

from pathlib import Path

from pggan_kit.errors import RunError, TrainingError
from pggan_kit.experiment import NOTHING
from pggan_kit.runs.average_snapshots import AverageSnapshot
from pggan_kit.runs.host_copies import PendingCopy
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import STATE, Snapshot
from pggan_kit.system import distributed
from pggan_kit.system.background_writer import BackgroundWriter
from pggan_kit.training.measures import Meter


class CheckpointWriter:
    """What one process writes to the disk of a run's state: one thing at a time, in a thread, in order.

    Args:
        run: The run.
        meter: The meter that is told how long the loop waits for it.

    Attributes:
        last_file: The last checkpoint on the disk; None where there is none.
    """

    def __init__(self, run: Run, meter: Meter) -> None:
        self.last_file: Path | None = run.checkpoints.find_last_file()
        self._run = run
        self._meter = meter
        self._writer = BackgroundWriter()

    def begin(self, copy: PendingCopy[Snapshot], keep_forever: bool = False, is_best: bool = False) -> None:
        """Begin to write a checkpoint, on rank 0, once what was begun before is written.

        Args:
            copy: Its content.
            keep_forever: Whether what `train.keep_stages` names of it is never deleted.
            is_best: Whether the checkpoint is also kept as the best so far.

        Raises:
            TrainingError: What was begun before cannot be written.
        """
        if distributed.rank() != 0:
            return
        with self._meter.time_part("checkpoints"):
            self._run.files.keep_start()
            kept_part = NOTHING
            # The last checkpoint of a run stays whole: nothing follows that a resumed run could begin from.
            kept_stages = self._run.experiment.keep_stages
            if keep_forever and kept_stages != STATE and not self._run.state.is_over:
                keep_forever = False
                kept_part = kept_stages
            self._writer.begin(lambda: self._save(copy, kept_part, keep_forever, is_best))

    def begin_averages(self, copy: PendingCopy[AverageSnapshot]) -> None:
        """Begin to write a copy of averages, once what was begun before is written; rank 0 alone calls it.

        Raises:
            TrainingError: What was begun before cannot be written.
        """
        self._writer.begin(lambda: self._save_averages(copy))

    def finish(self) -> None:
        """Wait until all is on the disk.

        Raises:
            TrainingError: It cannot be written.
        """
        with self._meter.time_part("checkpoints"):
            self._writer.finish()

    def finish_as_run_fails(self) -> None:
        """Wait likewise, and warn where the checkpoint cannot be written, which hides no other error.

        A signal is raised only after the write: with the wait ends the lock of the run, and another process may begin.
        """
        interruption: BaseException | None = None
        is_writing = True
        while is_writing:
            try:
                self._writer.finish()
                is_writing = False
            except Exception as error:
                self._run.files.warn(f"while the run was failing: {error}")
            except BaseException as error:
                interruption = error
        if interruption is not None:
            raise interruption

    def _save(self, copy: PendingCopy[Snapshot], kept_part: str, keep_forever: bool, is_best: bool) -> None:
        """Write a checkpoint, and before it the part of it that is kept; the thread that writes calls it."""
        snapshot = copy.wait()
        # Again, since a step or more may have passed meanwhile.
        self._run.files.require_own_folder()
        if kept_part != NOTHING:
            self._run.checkpoints.save_part(snapshot.reduce(kept_part))
        self.last_file = self._run.checkpoints.save(snapshot, keep_forever, is_best)

    def _save_averages(self, copy: PendingCopy[AverageSnapshot]) -> None:
        snapshot = copy.wait()
        self._run.files.require_own_folder()
        try:
            self._run.files.average_snapshots().save(snapshot)
        except RunError as error:  # the input was right: a run that was going on failed
            raise TrainingError(str(error)) from error
