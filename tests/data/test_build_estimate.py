"""What a build of resized copies will take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import make_random_dataset

from pggan_kit.data import build_estimate
from pggan_kit.data.build_estimate import estimate_build
from pggan_kit.data.sampler import open_data
from pggan_kit.data.settings import DataSettings

SIZES = [(6, 6), (12, 12), (6, 6)]


def test_bytes_are_those_of_the_files_but_for_what_is_beside_the_images(tmp_path: Path) -> None:
    source = make_random_dataset(50, (12, 12, 3))
    settings = DataSettings(cache=str(tmp_path), workers=1)
    needed = estimate_build(source, settings, SIZES).bytes
    open_data(source, settings, SIZES, 0)
    stored = [path.stat().st_size - 128 for path in (tmp_path / "pyramids").glob("*.images.npy")]
    assert sorted(needed.values()) == sorted(stored)


@pytest.mark.parametrize("kind", ["float16", "float64", ">i2"])
@pytest.mark.parametrize("filter", ["lanczos", "nearest"])
def test_numbers_of_any_type_are_resized(kind: str, filter: str) -> None:
    source = make_random_dataset(3)
    source.images = [image.astype(kind) for image in source.images]
    size = 4 if kind.startswith("float") else 2
    assert estimate_build(source, DataSettings(filter=filter), [(6, 6)]).bytes == {(6, 6): 3 * 36 * size}


@pytest.mark.parametrize(("workers", "count"), [(1, 1), (1, 40), (4, 1000)])
def test_seconds_are_those_of_some_images_divided_by_the_threads(
    monkeypatch: pytest.MonkeyPatch, workers: int, count: int
) -> None:
    """Each image takes a second of a clock that nothing else moves; one that is broken does, too."""
    source = make_random_dataset(count)
    source.broken = set(range(1, count, 7))
    clock = 0.0
    read = source.image

    def image(i: int) -> np.ndarray:
        nonlocal clock
        clock += 1
        return read(i)

    source.image = image  # type: ignore[method-assign]
    monkeypatch.setattr(build_estimate.time, "perf_counter", lambda: clock)
    monkeypatch.setattr(build_estimate, "SAMPLE_SECONDS", 1000)
    assert estimate_build(source, DataSettings(workers=workers), SIZES).seconds == pytest.approx(count / workers)
    assert len(source.reads) <= 18
    source.reads.clear()
    monkeypatch.setattr(build_estimate, "SAMPLE_SECONDS", 2)
    estimate_build(source, DataSettings(workers=workers), SIZES)
    assert len(source.reads) <= 4, "slow images are not waited for"
