"""`observers.Spectra`: its curves, against a run whose images are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pggan_kit.errors import ConfigError
from pggan_kit.layers.value_maps import BYTES
from pggan_kit.schedule import Stage
from pggan_kit.testing import ObserverSuite
from pggan_plugins.metrics import RadialSpectrum, SlicedWasserstein
from pggan_plugins.observers import Spectra
from pggan_plugins.observers.spectra import COLOURS, draw_curves

STAGE = Stage(0, 8, 8, 1, 0, 40, 4)


class TestSpectra(ObserverSuite):
    bad_arguments = ({"count": 0}, {"count": 1.5})

    def make(self) -> Spectra:
        return Spectra(RadialSpectrum(), 4)

    def make_with(self, **arguments: Any) -> Spectra:
        return Spectra(RadialSpectrum(), **arguments)


@pytest.mark.parametrize("count", [0, 2.5])
def test_wrong_counts_name_themselves(count: Any) -> None:
    with pytest.raises(ValueError, match=r"^count must be a whole number of at least 1, and is"):
        Spectra(RadialSpectrum(), count)


def make_run(folder: Path, reals: np.ndarray, fakes: Tensor) -> Any:
    """Return a run at the end of a stage of 8x8, whose reals and fakes are given."""
    data = SimpleNamespace(
        draw_order=lambda: np.arange(len(reals))[::-1].copy(),
        level=lambda size: SimpleNamespace(images=reals),
        values=BYTES,
    )
    return SimpleNamespace(
        directory=folder,
        data=data,
        values=data.values,
        state=SimpleNamespace(images=40, stage=STAGE),
        fixed_latents=lambda count: torch.arange(float(count))[:, None],
        fixed_labels=lambda count: torch.arange(count) % 3,
        generate=lambda latents, labels: fakes[latents[:, 0].long() // 3 * 3 + labels],
    )


def measure_power(images: np.ndarray, ring: int) -> float:
    """Return the mean power of 8x8 images in [-1, 1] in a ring, by the definition."""
    rows, columns = np.meshgrid(np.fft.fftfreq(8), np.fft.fftfreq(8), indexing="ij")
    inside = np.round(np.hypot(rows, columns) * 8) == ring
    return float((np.abs(np.fft.fft2(images)) ** 2 / 64)[..., inside].mean())


@pytest.mark.parametrize("batch", [2, 50])
def test_its_curves(tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over `count` images, those of the fakes rounded to 8 bits, however many are in memory at once."""
    monkeypatch.setattr("pggan_plugins.observers.spectra.BATCH", batch)
    rng = np.random.default_rng(0)
    reals = rng.integers(0, 256, (9, 1, 8, 8), np.uint8)
    fakes = torch.from_numpy(rng.normal(size=(6, 1, 8, 8)) / 255).float()
    run = make_run(tmp_path, reals, fakes)
    observer = Spectra(RadialSpectrum(), 5)
    (tmp_path / "spectra").mkdir()
    for name in ("000000041-8x8.json", "000000040-8x8.png", "mine.json"):
        (tmp_path / "spectra" / name).touch()
    (tmp_path / "spectra" / "2024-figures").mkdir()
    observer.before_run(run)
    names = sorted(file.name for file in (tmp_path / "spectra").iterdir())
    assert names == ["000000040-8x8.png", "2024-figures", "mine.json"]

    observer.after_stage(run, STAGE, run.state)
    curves = json.loads((tmp_path / "spectra" / "000000040-8x8.json").read_text())
    rounded = np.round((fakes[:5].double().numpy() + 1) * 127.5) / 127.5 - 1
    for ring in range(7):
        assert curves["real"][ring] == pytest.approx(measure_power(reals[4:] / 127.5 - 1, ring), rel=1e-4)
        assert curves["fake"][ring] == pytest.approx(measure_power(rounded, ring), rel=1e-4)
    assert set(curves) == set(COLOURS) and len(curves["real"]) == 7
    with Image.open(tmp_path / "spectra" / "000000040-8x8.png") as picture:
        assert picture.size == (480, 320)


def test_the_figure_has_higher_powers_further_up() -> None:
    pixels = np.asarray(draw_curves({"real": [9.0] + [1.0] * 6, "fake": [9.0] + [0.01] * 5 + [0.1]}, 8)).astype(int)
    places = {}
    for name, colour in COLOURS.items():
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        rows, columns = np.nonzero((pixels == wanted).all(2))
        inside = (rows > 48) & (rows < 320 - 48)
        places[name] = rows[inside], columns[inside]
    real_rows, _ = places["real"]
    fake_rows, fake_columns = places["fake"]
    assert real_rows.max() < fake_rows.min()
    assert fake_rows[fake_columns > 420].mean() < fake_rows[fake_columns < 300].mean() - 20


def test_other_metrics_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, np.zeros((4, 1, 16, 16), np.uint8), torch.zeros(4, 1, 16, 16))
    (tmp_path / "spectra").mkdir()
    with pytest.raises(ConfigError, match=r"^observers\.Spectra\.spectrum must describe images by powers: take"):
        Spectra(SlicedWasserstein(), 4).after_stage(run, STAGE, run.state)


def test_each_stage_of_a_run_has_a_figure(train: Callable[..., Any]) -> None:
    run = train(
        "train.observers = [@observers.Spectra()]",
        "observers.Spectra.spectrum = @metrics.RadialSpectrum()",
        "observers.Spectra.count = 8",
    )
    names = sorted(file.name for file in (run.directory / "spectra").iterdir())
    ends = [*run.state.starts[1:], run.state.images]
    stems = [f"{end:09d}-{stage.size}" for end, stage in zip(ends, run.schedule.stages, strict=True)]
    assert names == sorted(f"{stem}{suffix}" for stem in stems for suffix in (".json", ".png"))
