"""A run: its directory, and what hooks are given of it."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pggan_kit.checkpoint import Checkpoints, write_atomically
from pggan_kit.errors import RunError
from pggan_kit.seeding import torch_generator

if TYPE_CHECKING:
    from pggan_kit.experiment import Experiment
    from pggan_kit.plugins import Hooks
    from pggan_kit.schedule import Schedule
    from pggan_kit.state import TrainState

ROOT = Path("runs")


class RunDirectory:
    """The files of a run.

    `run.json` (plugins, overrides, environment), `config.gin` (self-contained), `operative.gin`, `log.txt`,
    `stats.jsonl`, `checkpoints/`, and what observers add.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path | None, name: str) -> RunDirectory:
        """A new directory: `path`, or the next number under `runs/`, as `runs/00007-mnist`.

        Raises:
            RunError: `path` is not empty, or cannot be made.
        """
        try:
            if path is not None:
                if path.exists() and (not path.is_dir() or any(path.iterdir())):
                    what = "already holds a run" if (path / "run.json").exists() else "is not empty"
                    raise RunError(f"--run-dir {path} {what}; name another, or `pggan-kit resume {path}`")
                path.mkdir(parents=True, exist_ok=True)
                return cls(path)
            ROOT.mkdir(exist_ok=True)
            while True:
                numbers = [int(m[1]) for entry in ROOT.iterdir() if (m := re.match(r"(\d{5})-", entry.name))]
                path = ROOT / f"{max(numbers, default=-1) + 1:05d}-{name}"
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                return cls(path)
        except OSError as error:
            raise RunError(f"cannot make a run directory at {path or ROOT}: {error.strerror}") from error

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run's directory.

        Raises:
            RunError: there is no run in it.
        """
        if not (path / "run.json").is_file():
            raise RunError(f"{path} holds no run (it has no run.json)")
        return cls(path)

    def record(self, plugins: list[dict[str, Any]], config_text: str, operative_text: str, command: str) -> None:
        """Write what the run consists of, once, before it starts."""
        about = {
            "command": command,
            "plugins": plugins,
            "environment": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "platform": platform.platform(),
                "threads": torch.get_num_threads(),
                "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            },
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        write_atomically(self.path / "config.gin", config_text.encode())
        write_atomically(self.path / "operative.gin", operative_text.encode())
        write_atomically(self.path / "run.json", (json.dumps(about, indent=1) + "\n").encode())

    def about(self) -> dict[str, Any]:
        """What `record` wrote in `run.json`.

        Raises:
            RunError: the file is damaged.
        """
        try:
            found: dict[str, Any] = json.loads((self.path / "run.json").read_text())
        except ValueError as error:
            raise RunError(f"{self.path / 'run.json'} is damaged: {error}") from error
        return found

    def log(self, line: str) -> None:
        """Add a dated line to `log.txt`."""
        with (self.path / "log.txt").open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def append_stats(self, row: Mapping[str, Any]) -> None:
        """Add a tick's row to `stats.jsonl`."""
        with (self.path / "stats.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def stats(self) -> list[dict[str, Any]]:
        """All ticks' rows."""
        file = self.path / "stats.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def cut_stats(self, images: int) -> None:
        """Drop the rows past `images`: a resumed run writes them again."""
        rows = [row for row in self.stats() if row["images"] <= images]
        write_atomically(self.path / "stats.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


class Run:
    """What hooks are given of a run.

    Attributes:
        directory: the run's folder.
        experiment, schedule: what is trained, and when it grows.
        state: networks and clock.
        hooks: those of this run.
        device: where the networks live.
        resumed: whether an earlier process began it.
        alpha: of the last step, by path (`generator`, `discriminator`, `reals`); 1 where nothing fades.
    """

    def __init__(
        self, files: RunDirectory, experiment: Experiment, schedule: Schedule, state: TrainState, hooks: Hooks
    ) -> None:
        self.files = files
        self.directory = files.path
        self.experiment = experiment
        self.schedule = schedule
        self.state = state
        self.hooks = hooks
        self.device = state.device
        self.resumed = False
        self.alpha: dict[str, float] = {}
        self.checkpoints = Checkpoints(files.path / "checkpoints", experiment.keep)

    @property
    def name(self) -> str:
        """The directory's own name."""
        return self.directory.resolve().name

    def fixed_latents(self, count: int) -> Tensor:
        """(count, Z) latents that are the same at every call and in every run with this seed."""
        generator = torch_generator(self.experiment.seed, "fixed latents")
        return torch.randn(count, self.experiment.latent_size, generator=generator)

    def fixed_labels(self, count: int) -> Tensor | None:
        """(count,) labels 0, 1, ..., K - 1, 0, ...; None where the generator does not look at labels."""
        classes = self.state.stage.classes if self.experiment.architecture.conditional else 0
        return torch.arange(count) % classes if classes else None

    @torch.no_grad()
    def generate(self, latents: Tensor, labels: Tensor | None = None, average: bool = True) -> Tensor:
        """Images (N, C, h, w), float32 on the CPU, nominally in [-1, 1], at the current size and alpha.

        Args:
            latents: (N, Z).
            labels: (N,), where the generator is conditional.
            average: from the average of G's weights; else from G itself.
        """
        net = self.state.ema if average else self.state.generator
        alpha = self.alpha.get("generator", 1.0) if net.bridge is not None else 1.0
        was_training = net.training
        net.eval()
        # Networks that draw noise must neither disturb training nor differ between calls.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.experiment.seed)
            chunks = [
                net(
                    part.to(self.device),
                    None if labels is None else labels[start : start + len(part)].to(self.device),
                    None if alpha == 1.0 else torch.tensor(alpha, device=self.device),
                ).float().cpu()
                for start, part in zip(range(0, len(latents), 256), latents.split(256), strict=True)
            ]
        net.train(was_training)
        return torch.cat(chunks)


def environment_command() -> str:
    """How this process was called."""
    return " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
