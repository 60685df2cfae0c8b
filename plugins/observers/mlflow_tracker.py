"""Runs in MLflow."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggan_kit import Interval, Run
from pggan_plugins.observers.tick_log import Point
from pggan_plugins.observers.tracker import Tracker

if TYPE_CHECKING:
    from PIL import Image

BATCH = 500
"""Maximum number of metrics in a request; MLflow allows 1,000."""

PARAMS = 100
"""Maximum number of parameters in a request, as MLflow allows."""


class MLflow(Tracker):
    """A run of MLflow, whose step is the clock in images. Needs the extra `mlflow`.

    It has every number of each tick under its tag, metrics with their floors among them, and those of
    `transitions.jsonl`; as artifacts grids (`Samples/000012800.png`), the film of `observers.Growth` and the operative
    config; and the bindings of the config as parameters, those with which the run was begun.

    Args:
        project: Name of the experiment.
        count, every: See `observers.tracker.Tracker`.
        uri: Where runs are kept: a server, or a file such as `sqlite:///mlflow.db`. None for what
            `MLFLOW_TRACKING_URI` says, or else the default of MLflow, a file in the working directory.

    Raises:
        SettingError: See `observers.tracker.Tracker`.
    """

    service = "mlflow"
    module = "mlflow"

    def __init__(
        self, project: str = "pggan_kit", count: int = 16, every: Interval = None, uri: str | None = None
    ) -> None:
        super().__init__(project, count, every)
        self.uri = uri
        self._client: Any = None
        self._id = ""

    def open(self, run: Run, name: str, config: Mapping[str, Any]) -> None:
        """Open the run of this name, which is a tag of it: MLflow makes the ids itself."""
        entities = self.library.entities
        self._client = self.library.MlflowClient(tracking_uri=self.uri)
        experiment = self._client.get_experiment_by_name(self.project)
        if experiment is None:
            number = self._client.create_experiment(self.project)
        else:
            number = experiment.experiment_id
        there = self._client.search_runs([number], f"tags.pggan_kit_run = '{name}'")
        if there:
            self._id = there[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return

        # A new run gets the settings, which a resumed one has already.
        self._id = self._client.create_run(number, run_name=run.name, tags={"pggan_kit_run": name}).info.run_id
        params = [entities.Param(key, str(value)) for key, value in config.items()]
        for start in range(0, len(params), PARAMS):
            self._client.log_batch(self._id, params=params[start : start + PARAMS])
        operative = run.directory / "operative.gin"
        if operative.is_file():
            self._client.log_artifact(self._id, str(operative))

    def send(self, points: Sequence[Point], grid: Image.Image | None, images: int) -> None:
        """Log a grid as a file of its clock, which is replaced where it is sent again, and then the numbers."""
        if grid is not None:
            self._client.log_image(self._id, grid, artifact_file=f"Samples/{images:09d}.png")
        now = int(1000 * time.time())
        metrics = [
            self.library.entities.Metric(tag, value, now, clock)
            for clock, numbers in points
            for tag, value in numbers.items()
        ]
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(self._id, metrics=metrics[start : start + BATCH])

    def send_film(self, path: Path, images: int) -> None:
        """Log the film."""
        self._client.log_artifact(self._id, str(path))

    def close(self, status: str) -> None:
        """Set the status of the run."""
        self._client.set_terminated(self._id, status.upper())
