"""The size pyramid: resizing against slow and independent formulas, the cache, and data sets that are wrong."""

from __future__ import annotations

import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.datasets import ArrayDataset, make_random_dataset
from helpers.forks import Fork
from helpers.patience import PATIENCE_SECONDS
from helpers.platforms import resource
from PIL import Image

from pggan_kit.data import array_files, pyramid, resizing
from pggan_kit.data.area_means import average_areas
from pggan_kit.data.image_kinds import find_image_kind
from pggan_kit.data.resizing import resize_to_all
from pggan_kit.data.sampler import Data, open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError
from pggan_kit.system import locks
from pggan_kit.system.activities import receive_activities


def make_settings(folder: Path, **options: object) -> DataSettings:
    """Return settings with a cache folder, two threads, and other options."""
    return DataSettings(cache=str(folder), **{"workers": 2, **options})  # type: ignore[arg-type]


def read_images(data: Data, size: tuple[int, int]) -> np.ndarray:
    """Return a level's images, in the data set's order."""
    return np.array(data.level(size).images)


def find_files(folder: Path, pattern: str = "*.images.npy") -> list[Path]:
    """Return the files of the pyramid that a cache folder holds."""
    return sorted((folder / "pyramids").glob(pattern))


# Resizing


def average_blocks(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the mean over what each pixel covers, in float64, at any ratio."""

    def find_overlaps(source: int, target: int) -> np.ndarray:
        edges = np.arange(target + 1) * source / target
        pixels = np.arange(source)
        covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        return np.clip(covered, 0, None) * target / source

    rows = find_overlaps(image.shape[0], height)
    columns = find_overlaps(image.shape[1], width)
    narrow = np.einsum("xw,hwc->hxc", columns, image.astype(np.float64))
    return np.einsum("yh,hxc->yxc", rows, narrow)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((28, 28, 1), (14, 14)),
        ((28, 28, 3), (7, 7)),
        ((24, 36, 3), (8, 12)),
        ((24, 36, 1), (24, 36)),
        ((30, 30, 3), (7, 7)),
        ((30, 20, 1), (21, 14)),
        ((178, 178, 3), (64, 64)),
        ((5, 5, 3), (8, 8)),
    ],
)
@pytest.mark.filterwarnings("ignore:.*enlarged")
def test_area_is_the_mean_of_what_a_pixel_covers(
    tmp_path: Path, shape: tuple[int, int, int], size: tuple[int, int]
) -> None:
    source = make_random_dataset(3, shape)
    level = read_images(open_data(source, make_settings(tmp_path), [size], 0), size)
    means = [average_blocks(image, *size) for image in source.images]
    expected = np.stack(means).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(level, np.floor(expected + 0.5 + 1e-9))


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((64, 64, 3), [(64, 64), (32, 32), (16, 16), (8, 8), (4, 4)]),
        ((90, 90, 3), [(64, 64), (32, 32), (16, 16)]),
        ((60, 300, 3), [(48, 256), (24, 128)]),
        ((30, 45, 1), [(20, 30), (4, 6), (10, 15), (2, 3)]),
        ((20, 20, 3), [(32, 32), (16, 16), (8, 8)]),
        ((36, 36, 1), [(36, 36), (12, 12), (9, 9), (1, 1)]),
        ((500, 700, 1), [(2, 2), (100, 140), (4, 2)]),
    ],
)
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
def test_each_of_several_sizes_is_the_mean_of_the_picture_itself(
    shape: tuple[int, int, int], sizes: list[tuple[int, int]], kind: str
) -> None:
    """Rounded once, halves up: not the mean of means that were rounded before."""
    image = np.random.default_rng(4).integers(-(2**15) if kind == "int16" else 0, 2**15, shape).astype(kind)
    if kind == "float32":
        image = image / np.float32(7)
    resized = dict(average_areas(image, sizes))
    assert set(resized) == set(sizes)
    for size, pixels in resized.items():
        assert pixels.dtype == kind and pixels.shape == (shape[2], *size)
        expected = average_blocks(image, *size).transpose(2, 0, 1)
        if kind == "float32":
            np.testing.assert_allclose(pixels, expected, rtol=1e-6, err_msg=str(size))
        else:
            np.testing.assert_array_equal(pixels, np.floor(expected + 0.5 + 1e-7), err_msg=str(size))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16])
@pytest.mark.parametrize("shape", [(2, 4), (16, 16), (15, 17), (256, 256), (251, 261), (257, 257)])
def test_halves_round_up_whatever_the_number_of_pixels(kind: type[np.integer[Any]], shape: tuple[int, int]) -> None:
    """And what is a pixel below a half rounds down, up to the largest values, in each type that sums are taken in."""
    count = shape[0] * shape[1]
    for low in (np.iinfo(kind).min, 0, 99, np.iinfo(kind).max - 1):
        flat = np.full(count, low, kind)
        flat[: (count - 1) // 2] += 1
        ((_, below),) = average_areas(flat.reshape(*shape, 1), [(1, 1)])
        assert below.item() == low
        flat[(count - 1) // 2] += 1
        ((_, at_least_half),) = average_areas(flat.reshape(*shape, 1), [(1, 1)])
        assert at_least_half.item() == low + 1


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16])
def test_the_largest_sums_do_not_overflow(kind: type[np.integer[Any]]) -> None:
    for extreme in (np.iinfo(kind).max, np.iinfo(kind).min):
        image = np.full((300, 300, 1), extreme, kind)
        for _, pixels in average_areas(image, [(256, 256), (128, 128), (64, 64), (7, 7), (2, 2), (1, 1)]):
            assert (pixels == extreme).all()
        tall = np.full((70_000, 3, 1), extreme, kind)
        for _, pixels in average_areas(tall, [(69_999, 2), (3, 1), (1, 1)]):
            assert (pixels == extreme).all()


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(("source", "target"), [(28, 14), (28, 7), (30, 7), (5, 10)])
def test_nearest_samples_pixel_centres(source: int, target: int, kind: str) -> None:
    image = np.random.default_rng(1).integers(0, 65536, (source, source, 5)).astype(kind)
    index = np.floor((np.arange(target) + 0.5) * source / target).astype(int)
    ((_, resized),) = resize_to_all(image, [(target, target)], "nearest")
    np.testing.assert_array_equal(resized.transpose(1, 2, 0), image[index[:, None], index[None]])


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
def test_lanczos_is_the_windowed_sinc_to_rounding(kind: str) -> None:
    image = np.random.default_rng(2).integers(60, 190, (24, 24)).astype(kind)
    scale = 3.0
    target = 8
    centres = (np.arange(target) + 0.5) * scale
    distance = (np.arange(24) + 0.5 - centres[:, None]) / scale
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
    weights /= weights.sum(1, keepdims=True)
    expected = weights @ image.astype(np.float64) @ weights.T
    ((_, resized),) = resize_to_all(image[..., None], [(target, target)], "lanczos")
    assert resized.dtype == kind
    assert np.abs(resized[0] - expected).max() <= (0.1 if kind == "float32" else 1.3)


def test_lanczos_stays_within_the_type() -> None:
    steps = np.zeros((24, 24, 1), np.uint16)
    steps[:, 12:] = 65535
    ((_, resized),) = resize_to_all(steps, [(8, 8)], "lanczos")
    assert (resized[..., :2].max() < 6000) and (resized[..., -2:].min() > 60000), "it overshoots, and is clipped"


def test_the_largest_size_is_the_picture_itself(tmp_path: Path) -> None:
    source = make_random_dataset(5, (8, 12, 3))
    data = open_data(source, make_settings(tmp_path), [(4, 6), (8, 12)], 0)
    np.testing.assert_array_equal(read_images(data, (8, 12)), np.stack(source.images).transpose(0, 3, 1, 2))
    assert (len(data), data.image_channels, data.classes, data.skipped) == (5, 3, 0, 0)


def test_pictures_of_other_aspect_ratios_are_cropped_around_the_centre(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    wide = rng.integers(0, 256, (8, 14, 1), np.uint8)
    tall = rng.integers(0, 256, (20, 8, 1), np.uint8)
    data = open_data(ArrayDataset([wide, tall]), make_settings(tmp_path), [(4, 4), (4, 8)], 0)
    square = read_images(data, (4, 4))
    double = read_images(data, (4, 8))
    for level, i, cut in (
        (square, 0, wide[:, 3:11]),
        (square, 1, tall[6:14]),
        (double, 0, wide[:7]),
        (double, 1, tall[8:12]),
    ):
        height, width = level.shape[2:]
        assert np.abs(level[i] - average_blocks(cut, height, width).transpose(2, 0, 1)).max() < 0.501


def test_smaller_pictures_are_enlarged_with_a_warning(tmp_path: Path) -> None:
    source = ArrayDataset([np.zeros((4, 4, 1), np.uint8), np.zeros((9, 9, 1), np.uint8)])
    with pytest.warns(UserWarning, match="1 of 2 images are smaller than 8x8, and enlarged"):
        open_data(source, make_settings(tmp_path), [(4, 4), (8, 8)], 0)


# The cache


def test_a_second_opening_builds_nothing(tmp_path: Path) -> None:
    source = make_random_dataset(150, classes=3)
    first = open_data(source, make_settings(tmp_path), [(3, 3), (6, 6)], 0)
    assert set(source.reads.values()) <= {1, 2}, "one pass for all sizes, and a look at the first picture"
    source.reads.clear()
    second = open_data(source, make_settings(tmp_path), [(6, 6), (3, 3)], 0)
    assert not source.reads
    np.testing.assert_array_equal(read_images(first, (6, 6)), read_images(second, (6, 6)))
    np.testing.assert_array_equal(second.level((3, 3)).labels, np.arange(150) % 3)
    assert not find_files(tmp_path, ".*.part")


def test_only_what_changed_is_built_again(tmp_path: Path) -> None:
    source = make_random_dataset()
    open_data(source, make_settings(tmp_path), [(3, 3), (6, 6)], 0)
    before = {path: path.stat().st_mtime_ns for path in find_files(tmp_path)}
    open_data(source, make_settings(tmp_path), [(6, 6), (4, 4)], 0)
    assert len(find_files(tmp_path)) == 3, "only the new size"
    nearest = open_data(source, make_settings(tmp_path, filter="nearest"), [(6, 6)], 0)
    assert len(find_files(tmp_path)) == 4, "another filter"
    np.testing.assert_array_equal(read_images(nearest, (6, 6))[0, 0], source.images[0][1::2, 1::2, 0])
    negatives = ArrayDataset([255 - image for image in source.images], name="negatives")
    other = open_data(negatives, make_settings(tmp_path), [(6, 6)], 0)
    assert len(find_files(tmp_path)) == 5, "another source"
    assert read_images(other, (6, 6)).mean() != read_images(nearest, (6, 6)).mean()
    assert before == {path: path.stat().st_mtime_ns for path in before}
    source.reads.clear()
    open_data(source, make_settings(tmp_path, mirror=True, workers=1), [(6, 6)], 5)
    assert not source.reads, "neither flips nor seed nor threads are part of the key"


def test_threads_make_no_difference(tmp_path: Path) -> None:
    source = make_random_dataset(300, (16, 16, 3))
    one = open_data(source, make_settings(tmp_path / "a", workers=1), [(8, 8)], 0)
    many = open_data(source, make_settings(tmp_path / "b", workers=4), [(8, 8)], 0)
    np.testing.assert_array_equal(read_images(one, (8, 8)), read_images(many, (8, 8)))


@pytest.mark.parametrize("damage", ["cut", "longer", "header", "empty", "labels", "labels cut", "other dtype"])
def test_a_damaged_file_is_built_again(tmp_path: Path, damage: str) -> None:
    source = make_random_dataset(20, classes=2)
    good = read_images(open_data(source, make_settings(tmp_path), [(6, 6)], 0), (6, 6))
    (images,), (labels,) = find_files(tmp_path), find_files(tmp_path, "*.labels.npy")
    content = images.read_bytes()
    if damage == "cut":
        images.write_bytes(content[:-1])
    elif damage == "longer":
        images.write_bytes(content + b"\0")
    elif damage == "header":
        images.write_bytes(content[:20] + b"?" * 20 + content[40:])
    elif damage == "empty":
        images.write_bytes(b"")
    elif damage == "labels":
        labels.unlink()
    elif damage == "labels cut":
        np.save(labels, np.zeros(19, np.int64))
    else:
        np.save(images, good.astype(np.int8))
    data = open_data(source, make_settings(tmp_path), [(6, 6)], 0)
    np.testing.assert_array_equal(read_images(data, (6, 6)), good)
    assert images.read_bytes() == content
    assert len(np.load(labels)) == 20


def test_any_damage_to_a_header_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2))
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(400):
        broken = bytearray(content)
        broken[rng.integers(0, 128)] ^= 1 << rng.integers(0, 8)
        path.write_bytes(broken)
        array = array_files.open_array(path, np.uint8, 4)
        assert array is None or array.size == 24


def test_labels_are_never_beside_images_of_another_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is killed between the two, and the builds leave out different images, as many in both."""
    source = make_random_dataset(20, classes=3)
    source.broken = {3}
    with pytest.warns(UserWarning, match="left out"):
        open_data(source, make_settings(tmp_path), [(6, 6)], 0)
    (labels,) = find_files(tmp_path, "*.labels.npy")
    labels.write_bytes(b"")
    source.broken = {4}
    commit = array_files.ArrayWriter.commit

    def die_at_the_images(writer: array_files.ArrayWriter) -> None:
        if "images" in str(writer._path):
            raise KeyboardInterrupt
        commit(writer)

    with monkeypatch.context() as patch:
        patch.setattr(array_files.ArrayWriter, "commit", die_at_the_images)
        with pytest.raises(KeyboardInterrupt):
            open_data(source, make_settings(tmp_path), [(6, 6)], 0)
    with pytest.warns(UserWarning, match="left out"):
        level = open_data(source, make_settings(tmp_path), [(6, 6)], 0).level((6, 6))
    np.testing.assert_array_equal(level.labels, [i % 3 for i in range(20) if i != 4])
    wanted = np.stack([source.images[i] for i in range(20) if i != 4])
    assert np.abs(level.images[:, 0] - wanted.reshape(19, 6, 2, 6, 2).mean((2, 4))).max() < 0.56


def test_an_error_while_building_leaves_no_files(tmp_path: Path) -> None:
    source = make_random_dataset(300)
    source.images[250] = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(DataError, match="image 250 has 3 channels where those before it have 1"):
        open_data(source, make_settings(tmp_path), [(6, 6)], 0)
    assert [path.suffix for path in (tmp_path / "pyramids").iterdir()] == [".lock"]


def test_few_chunks_are_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more chunks are begun than two per thread beyond what is written."""
    begun = 0
    written = 0
    largest_lead = 0
    source = make_random_dataset(320)
    read = source.image
    lock = threading.Lock()

    def count_and_read(i: int) -> np.ndarray:
        nonlocal begun
        with lock:
            begun += 1
        return read(i)

    append = array_files.ArrayWriter.append

    def slow_append(self: array_files.ArrayWriter, rows: np.ndarray) -> None:
        nonlocal largest_lead, written
        time.sleep(0.01)
        if rows.ndim == 4:
            largest_lead = max(largest_lead, begun - written)
            written += len(rows)
        append(self, rows)

    monkeypatch.setattr(resizing, "CHUNK_IMAGES", 8)
    monkeypatch.setattr(source, "image", count_and_read)
    monkeypatch.setattr(array_files.ArrayWriter, "append", slow_append)
    open_data(source, make_settings(tmp_path), [(6, 6)], 0)
    assert written == 320
    # Two chunks of 8 for each of two threads, the one that is being written, and the look at the first image.
    assert largest_lead <= 8 * (2 * 2 + 1) + 1


def test_progress_is_reported_from_the_start_to_the_end(tmp_path: Path) -> None:
    reports: list[str] = []
    source = make_random_dataset(150)
    with receive_activities(lambda activity: reports.append(activity.describe())):
        open_data(source, make_settings(tmp_path), [(3, 3), (6, 6)], 0)
    assert reports[0] == "resizing images to 3x3, 6x6: 0 of 150 images"
    assert reports[1] == "resizing images to 3x3, 6x6: 64 of 150 images"
    assert reports[-1] == "resizing images to 3x3, 6x6: 150 of 150 images"


class Slow(ArrayDataset):
    """Forty images, each of which takes a while to read and leaves a mark in a file."""

    def __init__(self, log: Path, pause: float) -> None:
        super().__init__([np.full((8, 8, 1), i, np.uint8) for i in range(40)], name="slow")
        self.log = log
        self.pause = pause

    def image(self, i: int) -> np.ndarray:
        time.sleep(self.pause)
        with self.log.open("a") as log:
            log.write("x")
        return super().image(i)


def start_slow_build(folder: Path, pause: float) -> Fork:
    """Start a process that builds a level of 40 images and pauses for some seconds at each."""

    def build() -> None:
        whats: list[str] = []
        with receive_activities(lambda activity: whats.append(activity.what)):
            data = open_data(Slow(folder / "log", pause), make_settings(folder), [(4, 4)], 0)
        assert read_images(data, (4, 4))[:, 0, 0, 0].tolist() == list(range(40))
        print(whats[0] if whats else "nothing built")

    return Fork(build)


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    both = [start_slow_build(tmp_path, 0.05) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0], [process.read_errors() for process in both]
    outputs = sorted(process.read_output().strip() for process in both)
    assert len((tmp_path / "log").read_text()) == 41, "40 images and the look at the first"
    assert outputs[0] == "resizing images to 4x4"
    assert outputs[1] in ("waiting for another process that resizes the same images", "nothing built")


def test_after_a_kill_the_next_process_builds_and_removes_what_was_left(tmp_path: Path) -> None:
    process = start_slow_build(tmp_path, 0.2)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not find_files(tmp_path, ".*.part") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert find_files(tmp_path, ".*.part"), "killed in the middle"
    assert not find_files(tmp_path), "nothing in place yet"

    same_source = ArrayDataset([np.zeros((8, 8, 1), np.uint8)] * 40, name="slow")
    data = open_data(same_source, make_settings(tmp_path), [(4, 4)], 0)
    assert len(data) == 40
    assert not find_files(tmp_path, ".*.part")


def test_levels_are_built_where_the_file_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "acquire", lambda path, waiting: None)
    assert len(open_data(make_random_dataset(), make_settings(tmp_path), [(4, 4)], 0)) == 10


def test_a_complete_cache_may_be_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_data(make_random_dataset(), make_settings(tmp_path), [(4, 4)], 0)

    def refuse(*args: object) -> None:
        raise AssertionError("asked for the lock")

    monkeypatch.setattr(pyramid, "lock_file", refuse)
    assert len(open_data(make_random_dataset(), make_settings(tmp_path), [(4, 4)], 0)) == 10


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write resized images under .*file.*data\.cache or \$PGGAN_KIT_CACHE"):
        open_data(make_random_dataset(), make_settings(tmp_path / "file" / "cache"), [(4, 4)], 0)


def test_a_full_disk_is_reported_and_leaves_no_files(tmp_path: Path) -> None:
    source = make_random_dataset(400)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(DataError, match=r"cannot write resized images under .*Free some space"):
            open_data(source, make_settings(tmp_path), [(12, 12)], 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not find_files(tmp_path, "*.npy")
    assert not find_files(tmp_path, ".*.part")


def test_a_disk_that_is_too_small_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1})())
    with pytest.raises(DataError, match=r"need 0\.0 GiB, and .* has 0\.0 GiB free: free some space"):
        open_data(make_random_dataset(), make_settings(tmp_path), [(4, 4)], 0)


# Data sets that are wrong


def test_skipped_images_are_left_out_and_counted(tmp_path: Path) -> None:
    source = make_random_dataset(10, classes=10)
    source.broken = {0, 7}
    assert find_image_kind(source) == (1, "uint8", False)
    with pytest.warns(UserWarning, match="2 of 10 images are left out:\n  picture 0 is broken\n  picture 7 is broken"):
        data = open_data(source, make_settings(tmp_path), [(12, 12)], 0)
    kept = [1, 2, 3, 4, 5, 6, 8, 9]
    assert (len(data), data.skipped) == (8, 2)
    np.testing.assert_array_equal(read_images(data, (12, 12))[:, 0], np.stack(source.images)[kept][..., 0])
    labels = data.sampler((12, 12)).batch(0, 8)[1]
    assert labels is not None
    assert sorted(labels.tolist()) == kept
    source.reads.clear()
    assert open_data(source, make_settings(tmp_path), [(12, 12)], 0).skipped == 2
    assert not source.reads


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((4, 4), np.uint8),
            r"image 0 must be \(H, W, C\) of uint8, uint16, int16 or float32, and is uint8 \(4, 4\)",
        ),
        (np.zeros((4, 4, 2), np.int64), r"and is int64 \(4, 4, 2\)"),
        (np.zeros((4, 4, 1), np.bool_), r"and is bool \(4, 4, 1\)"),
        (np.zeros((0, 4, 1), np.uint8), r"and is uint8 \(0, 4, 1\)"),
    ],
)
def test_wrong_images_are_named(tmp_path: Path, image: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(ArrayDataset([image]), make_settings(tmp_path), [(4, 4)], 0)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (torch.zeros(4, 4, 1, dtype=torch.uint8), r"torch\.Tensor"),
        (Image.new("L", (4, 4)), r"PIL\.Image\.Image"),
        ([[[0]]], r"builtins\.list"),
        (None, r"builtins\.NoneType"),
    ],
)
@pytest.mark.parametrize("before", [0, 1])
def test_images_that_are_no_arrays_are_named(tmp_path: Path, image: Any, kind: str, before: int) -> None:
    images = [*make_random_dataset(before, shape=(4, 4, 1)).images, image]
    with pytest.raises(
        DataError, match=rf"^image {before} must be a NumPy array \(H, W, C\), and is a {kind}: return np"
    ):
        open_data(ArrayDataset(images), make_settings(tmp_path), [(4, 4)], 0)


def test_a_data_set_without_images_that_can_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        open_data(ArrayDataset([]), make_settings(tmp_path), [(4, 4)], 0)
    source = make_random_dataset(3)
    source.broken = {0, 1, 2}
    with pytest.raises(DataError, match="holds no image that can be read"):
        open_data(source, make_settings(tmp_path), [(4, 4)], 0)


def test_a_label_out_of_range_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_random_dataset(4, classes=3)
    monkeypatch.setattr(source, "label", lambda i: i)
    with pytest.raises(DataError, match=r"image 3 has label 3; with 3 classes it must be in \[0, 3\)"):
        open_data(source, make_settings(tmp_path), [(4, 4)], 0)


@pytest.mark.parametrize(("label", "kind"), [("cat", "str"), (1.0, "float"), (None, "NoneType"), ([1], "list")])
def test_a_label_that_is_no_whole_number_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: Any, kind: str
) -> None:
    source = make_random_dataset(4, classes=3)
    monkeypatch.setattr(source, "label", lambda i: label if i == 2 else np.int64(i % 3))
    text = rf"image 2 has the label {re.escape(repr(label))}, a {kind}: labels are whole numbers in \[0, 3\)"
    with pytest.raises(DataError, match=text):
        open_data(source, make_settings(tmp_path), [(4, 4)], 0)
