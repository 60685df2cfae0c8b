"""The size pyramid and the sampler, against slow and independent formulas."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pggan_kit.data import array_files as arrayfile
from pggan_kit.data import pyramid
from pggan_kit.data.pyramid import Level, image_channels, resize
from pggan_kit.data.sampler import Data, Sampler, open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError, SkipImage
from pggan_kit.schedule import Stage
from pggan_kit.system import locks
from pggan_kit.system.cache import cache_folder


class Pictures:
    """Random pictures of one or of many sizes, which count how often they are asked for."""

    def __init__(self, images: list[np.ndarray], classes: int = 0, name: str = "pictures") -> None:
        self.images, self.classes, self.name = images, classes, name
        self.asked: Counter[int] = Counter()
        self.broken: set[int] = set()

    def __len__(self) -> int:
        return len(self.images)

    def image(self, i: int) -> np.ndarray:
        self.asked[i] += 1
        if i in self.broken:
            raise SkipImage(f"picture {i} is broken")
        return self.images[i]

    def label(self, i: int) -> int:
        return i % self.classes

    def fingerprint(self) -> str:
        return self.name


def pictures(count: int = 10, shape: tuple[int, int, int] = (12, 12, 1), classes: int = 0, name: str = "p") -> Pictures:
    values = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    return Pictures(list(values), classes, name)


def settings(folder: Path, **options: object) -> DataSettings:
    return DataSettings(cache=str(folder), **{"workers": 2, **options})  # type: ignore[arg-type]


def images_of(data: Data, size: tuple[int, int]) -> np.ndarray:
    """A level's images, in the data set's order."""
    return np.array(data._levels[size].images)


def files_of(folder: Path, pattern: str = "*.images.npy") -> list[Path]:
    return sorted((folder / "pyramids").glob(pattern))


# Resizing


def block_mean(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mean over what each pixel covers, in float64, any ratio: a matrix of overlaps for each direction."""

    def overlaps(source: int, target: int) -> np.ndarray:
        edges = np.arange(target + 1) * source / target
        pixels = np.arange(source)
        covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        return np.clip(covered, 0, None) * target / source

    rows, columns = overlaps(image.shape[0], height), overlaps(image.shape[1], width)
    return np.einsum("yh,hxc->yxc", rows, np.einsum("xw,hwc->hxc", columns, image.astype(np.float64)))


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
    source = pictures(3, shape)
    level = images_of(open_data(source, settings(tmp_path), [size], 0), size)
    expected = np.stack([block_mean(image, *size) for image in source.images]).transpose(0, 3, 1, 2)
    # Pillow rounds sums over 3x3 down where they end in 5/9.
    assert np.abs(level - expected).max() < 0.56


@pytest.mark.parametrize(("source", "target"), [(28, 14), (28, 7), (30, 7), (5, 10)])
def test_nearest_samples_pixel_centres(source: int, target: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (source, source, 3), np.uint8)
    index = np.floor((np.arange(target) + 0.5) * source / target).astype(int)
    np.testing.assert_array_equal(
        resize(Image.fromarray(image), (target, target), "nearest"), image[index[:, None], index[None]]
    )


def test_lanczos_is_the_windowed_sinc_to_rounding() -> None:
    image = np.random.default_rng(2).integers(60, 190, (24, 24), np.uint8)
    scale, target = 3.0, 8
    centres = (np.arange(target) + 0.5) * scale
    distance = (np.arange(24) + 0.5 - centres[:, None]) / scale
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
    weights /= weights.sum(1, keepdims=True)
    expected = weights @ image.astype(np.float64) @ weights.T
    assert np.abs(resize(Image.fromarray(image), (target, target), "lanczos") - expected).max() <= 1.3


def test_the_largest_size_is_the_picture_itself(tmp_path: Path) -> None:
    source = pictures(5, (8, 12, 3))
    data = open_data(source, settings(tmp_path), [(4, 6), (8, 12)], 0)
    np.testing.assert_array_equal(images_of(data, (8, 12)), np.stack(source.images).transpose(0, 3, 1, 2))
    assert (len(data), data.image_channels, data.classes, data.skipped) == (5, 3, 0, 0)


def test_odd_pictures_are_centre_cropped_to_the_aspect_ratio(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    wide, tall = (rng.integers(0, 256, shape, np.uint8) for shape in ((8, 14, 1), (20, 8, 1)))
    data = open_data(Pictures([wide, tall]), settings(tmp_path), [(4, 4), (4, 8)], 0)
    square, double = images_of(data, (4, 4)), images_of(data, (4, 8))
    for level, i, cut in (
        (square, 0, wide[:, 3:11]),
        (square, 1, tall[6:14]),
        (double, 0, wide[:7][:, :14]),
        (double, 1, tall[8:12]),
    ):
        height, width = level.shape[2:]
        assert np.abs(level[i] - block_mean(cut, height, width).transpose(2, 0, 1)).max() < 0.501


def test_smaller_pictures_are_enlarged_with_a_warning(tmp_path: Path) -> None:
    source = Pictures([np.zeros((4, 4, 1), np.uint8), np.zeros((9, 9, 1), np.uint8)])
    with pytest.warns(UserWarning, match="1 of 2 images are smaller than 8x8, and enlarged"):
        open_data(source, settings(tmp_path), [(4, 4), (8, 8)], 0)


# The cache


def test_a_second_opening_builds_nothing(tmp_path: Path) -> None:
    source = pictures(150, classes=3)
    first = open_data(source, settings(tmp_path), [(3, 3), (6, 6)], 0)
    assert set(source.asked.values()) <= {1, 2}, "one pass for all sizes, and a look at the first picture"
    source.asked.clear()
    second = open_data(source, settings(tmp_path), [(6, 6), (3, 3)], 0)
    assert not source.asked
    np.testing.assert_array_equal(images_of(first, (6, 6)), images_of(second, (6, 6)))
    np.testing.assert_array_equal(second._levels[(3, 3)].labels, np.arange(150) % 3)
    assert not files_of(tmp_path, ".*.part")


def test_only_what_changed_is_built_anew(tmp_path: Path) -> None:
    source = pictures()
    open_data(source, settings(tmp_path), [(3, 3), (6, 6)], 0)
    before = {path: path.stat().st_mtime_ns for path in files_of(tmp_path)}
    open_data(source, settings(tmp_path), [(6, 6), (4, 4)], 0)
    assert len(files_of(tmp_path)) == 3, "only the new size"
    nearest = open_data(source, settings(tmp_path, filter="nearest"), [(6, 6)], 0)
    assert len(files_of(tmp_path)) == 4, "another filter"
    np.testing.assert_array_equal(images_of(nearest, (6, 6))[0, 0], source.images[0][1::2, 1::2, 0])
    other = open_data(Pictures([255 - image for image in source.images], name="q"), settings(tmp_path), [(6, 6)], 0)
    assert len(files_of(tmp_path)) == 5, "another source"
    assert images_of(other, (6, 6)).mean() != images_of(nearest, (6, 6)).mean()
    assert before == {path: path.stat().st_mtime_ns for path in before}
    source.asked.clear()
    open_data(source, settings(tmp_path, mirror=True, workers=1), [(6, 6)], 5)
    assert not source.asked, "neither flips nor seed nor threads are part of the key"


def test_threads_make_no_difference(tmp_path: Path) -> None:
    source = pictures(300, (16, 16, 3))
    one = open_data(source, settings(tmp_path / "a", workers=1), [(8, 8)], 0)
    many = open_data(source, settings(tmp_path / "b", workers=4), [(8, 8)], 0)
    np.testing.assert_array_equal(images_of(one, (8, 8)), images_of(many, (8, 8)))


@pytest.mark.parametrize("damage", ["cut", "longer", "header", "empty", "labels", "labels cut", "other dtype"])
def test_a_damaged_file_is_built_anew(tmp_path: Path, damage: str) -> None:
    source = pictures(20, classes=2)
    good = images_of(open_data(source, settings(tmp_path), [(6, 6)], 0), (6, 6))
    (images,), (labels,) = files_of(tmp_path), files_of(tmp_path, "*.labels.npy")
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
    data = open_data(source, settings(tmp_path), [(6, 6)], 0)
    np.testing.assert_array_equal(images_of(data, (6, 6)), good)
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
        array = arrayfile.open_array(path, np.uint8, 4)
        assert array is None or array.size == 24


def test_an_error_on_the_way_leaves_nothing_behind(tmp_path: Path) -> None:
    source = pictures(300)
    source.images[250] = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(DataError, match="image 250 has 3 channels where those before it have 1"):
        open_data(source, settings(tmp_path), [(6, 6)], 0)
    assert [path.suffix for path in (tmp_path / "pyramids").iterdir()] == [".lock"]


def test_memory_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more chunks are begun than two a thread beyond what is written."""
    begun, most = 0, 0
    source = pictures(320)
    ask, lock, written = source.image, threading.Lock(), 0

    def image(i: int) -> np.ndarray:
        nonlocal begun
        with lock:
            begun += 1
        return ask(i)

    append = arrayfile.ArrayWriter.append

    def slow_append(self: arrayfile.ArrayWriter, rows: np.ndarray) -> None:
        nonlocal most, written
        time.sleep(0.01)
        if rows.ndim == 4:
            most = max(most, begun - written)
            written += len(rows)
        append(self, rows)

    monkeypatch.setattr(pyramid, "CHUNK_IMAGES", 8)
    monkeypatch.setattr(source, "image", image)
    monkeypatch.setattr(arrayfile.ArrayWriter, "append", slow_append)
    open_data(source, settings(tmp_path), [(6, 6)], 0)
    assert written == 320
    assert most <= 8 * (2 * 2 + 1) + 1


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    open_data(pictures(150), settings(tmp_path), [(3, 3), (6, 6)], 0, lambda *args: told.append(args))
    assert told[0] == (0, 150, "resizing images to 3x3, 6x6")
    assert told[-1] == (150, 150, "resizing images to 3x3, 6x6")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


SLOW_BUILD = """
import sys, time
from pathlib import Path
import numpy as np
from pggan_kit.data.sampler import open_data
from pggan_kit.data.settings import DataSettings

class Slow:
    classes = 0
    def __len__(self): return 40
    def fingerprint(self): return "slow"
    def label(self, i): return 0
    def image(self, i):
        time.sleep(float(sys.argv[3]))
        with open(sys.argv[2], "a") as log: log.write("x")
        return np.full((8, 8, 1), i, np.uint8)

told = []
data = open_data(Slow(), DataSettings(cache=sys.argv[1], workers=1), [(4, 4)], 0, lambda d, n, what: told.append(what))
assert data._levels[(4, 4)].images[:, 0, 0, 0].tolist() == list(range(40))
print(told[0] if told else "nothing built")
"""


def start_slow_build(folder: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW_BUILD, str(folder), str(folder / "log"), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    both = [start_slow_build(tmp_path, 0.05) for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[0].strip() for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert len((tmp_path / "log").read_text()) == 41, "40 images and the look at the first"
    assert said[0] == "resizing images to 4x4"
    assert said[1] in ("waiting for another process that resizes the same images", "nothing built")


def test_a_killed_builder_leaves_neither_lock_nor_rubbish(tmp_path: Path) -> None:
    process = start_slow_build(tmp_path, 0.2)
    deadline = time.monotonic() + 60
    while not files_of(tmp_path, ".*.part") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert files_of(tmp_path, ".*.part"), "killed in the middle"
    assert not files_of(tmp_path), "nothing in place yet"

    class Fast(Pictures):
        pass

    data = open_data(Fast([np.zeros((8, 8, 1), np.uint8)] * 40, name="slow"), settings(tmp_path), [(4, 4)], 0)
    assert len(data) == 40
    assert not files_of(tmp_path, ".*.part")


def test_without_file_locks_it_still_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "acquire", lambda path, waiting: None)
    assert len(open_data(pictures(), settings(tmp_path), [(4, 4)], 0)) == 10


def test_a_complete_cache_may_be_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_data(pictures(), settings(tmp_path), [(4, 4)], 0)

    def refuse(*args: object) -> None:
        raise AssertionError("asked for the lock")

    monkeypatch.setattr(pyramid, "file_lock", refuse)
    assert len(open_data(pictures(), settings(tmp_path), [(4, 4)], 0)) == 10


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write resized images under .*file.*data\.cache or \$PGGAN_KIT_CACHE"):
        open_data(pictures(), settings(tmp_path / "file" / "cache"), [(4, 4)], 0)


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    source = pictures(400)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(DataError, match=r"cannot write resized images under .*Free some space"):
            open_data(source, settings(tmp_path), [(12, 12)], 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not files_of(tmp_path, "*.npy")
    assert not files_of(tmp_path, ".*.part")


def test_a_disk_that_is_too_small_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1})())
    with pytest.raises(DataError, match=r"need 0\.0 GiB, and .* has 0\.0 GiB free: free some space"):
        open_data(pictures(), settings(tmp_path), [(4, 4)], 0)


# What a data set may not do


def test_skipped_images_are_left_out_and_counted(tmp_path: Path) -> None:
    source = pictures(10, classes=10)
    source.broken = {0, 7}
    assert image_channels(source) == 1
    with pytest.warns(UserWarning, match="2 of 10 images are left out:\n  picture 0 is broken\n  picture 7 is broken"):
        data = open_data(source, settings(tmp_path), [(12, 12)], 0)
    kept = [1, 2, 3, 4, 5, 6, 8, 9]
    assert (len(data), data.skipped) == (8, 2)
    np.testing.assert_array_equal(images_of(data, (12, 12))[:, 0], np.stack(source.images)[kept][..., 0])
    labels = data.sampler((12, 12)).batch(0, 8)[1]
    assert labels is not None
    assert sorted(labels.tolist()) == kept
    source.asked.clear()
    assert open_data(source, settings(tmp_path), [(12, 12)], 0).skipped == 2
    assert not source.asked


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"image 0 must be uint8 \(H, W, 1 or 3\), and is uint8 \(4, 4\)"),
        (np.zeros((4, 4, 2), np.uint8), r"and is uint8 \(4, 4, 2\)"),
        (np.zeros((4, 4, 1), np.float32), r"and is float32 \(4, 4, 1\)"),
        (np.zeros((0, 4, 1), np.uint8), r"and is uint8 \(0, 4, 1\)"),
    ],
)
def test_wrong_images_are_named(tmp_path: Path, image: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(Pictures([image]), settings(tmp_path), [(4, 4)], 0)


def test_no_images_and_no_readable_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        open_data(Pictures([]), settings(tmp_path), [(4, 4)], 0)
    source = pictures(3)
    source.broken = {0, 1, 2}
    with pytest.raises(DataError, match="holds no image that can be read"):
        open_data(source, settings(tmp_path), [(4, 4)], 0)


def test_a_label_out_of_range_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = pictures(4, classes=3)
    monkeypatch.setattr(source, "label", lambda i: i)
    with pytest.raises(DataError, match=r"image 3 has label 3; with 3 classes it must be in \[0, 3\)"):
        open_data(source, settings(tmp_path), [(4, 4)], 0)


# The sampler


def numbered(n: int, shape: tuple[int, int, int] = (1, 1, 3)) -> Level:
    """Images that show their own number, brighter to the right."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, *shape)).copy()
    images[..., 1:] += 100
    return Level(images, np.arange(n))


def shown(sampler: Sampler, position: int, count: int) -> list[int]:
    labels = sampler.batch(position, count)[1]
    assert labels is not None
    return labels.tolist()


def test_each_epoch_shows_each_image_once_in_another_order() -> None:
    sampler = Sampler(numbered(50), seed=3)
    first, second = shown(sampler, 0, 50), shown(sampler, 50, 50)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first != list(range(50))
    assert shown(Sampler(numbered(50), seed=4), 0, 50) != first


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("n", [1, 7, 50])
def test_a_position_shows_the_same_in_any_batch(n: int, mirror: bool) -> None:
    whole_images, whole_labels = Sampler(numbered(n), 1, mirror).batch(0, 230)
    assert whole_labels is not None
    for split in (1, 7, 64, 230):
        sampler = Sampler(numbered(n), 1, mirror)
        parts = [sampler.batch(start, min(split, 230 - start)) for start in range(0, 230, split)]
        assert torch.equal(torch.cat([images for images, _ in parts]), whole_images)
        assert torch.equal(torch.cat([labels for _, labels in parts if labels is not None]), whole_labels)
    sampler = Sampler(numbered(n), 1, mirror)
    for start in (200, 3, 120):  # back and forth
        images, labels = sampler.batch(start, 20)
        assert labels is not None
        assert torch.equal(images, whole_images[start : start + 20])
        assert torch.equal(labels, whole_labels[start : start + 20])


def test_flips_are_whole_and_even() -> None:
    n = 120
    images, labels = Sampler(numbered(n), 5, mirror=True).batch(0, 20 * n)
    plain, same = Sampler(numbered(n), 5).batch(0, 20 * n)
    assert labels is not None
    assert same is not None
    assert torch.equal(labels, same), "flipping leaves the order alone"
    flipped = images[:, 0, 0, 0] != plain[:, 0, 0, 0]
    assert torch.equal(images[flipped], plain[flipped].flip(3))
    assert torch.equal(images[~flipped], plain[~flipped])
    assert abs(flipped.float().mean().item() - 0.5) < 4 * 0.5 / (20 * n) ** 0.5
    assert not torch.equal(flipped[:n], flipped[n : 2 * n])


def test_a_batch_is_the_callers_own() -> None:
    level = numbered(5)
    sampler = Sampler(level, 0)
    images, labels = sampler.batch(0, 5)
    assert (images.dtype, images.shape) == (torch.uint8, (5, 1, 1, 3))
    assert labels is not None
    assert labels.dtype == torch.int64
    images.zero_()
    assert sampler.batch(0, 5)[0].sum() > 0
    assert Sampler(Level(level.images, None), 0).batch(0, 2)[1] is None


def test_large_levels_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_data(pictures(30), settings(tmp_path), [(6, 6)], 0)
    resident = data.sampler((6, 6))
    monkeypatch.setattr("pggan_kit.data.sampler.RESIDENT_BYTES", 0)
    mapped = data.sampler(Stage(0, 6, 6, 1, 0, 10, 4))
    assert mapped.images.base is not None
    assert not mapped.images.flags.writeable
    assert resident.images.base is None
    assert torch.equal(resident.batch(20, 30)[0], mapped.batch(20, 30)[0])


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filter": "bicubic"}, r"^filter must be 'area', 'lanczos' or 'nearest', not 'bicubic'$"),
        ({"filter": "lanczoss"}, r"^filter must be .* not 'lanczoss' \(did you mean 'lanczos'\?\)$"),
        ({"filter": 3}, r"^filter must be .* not 3"),
        ({"mirror": "yes"}, r"^mirror must be True or False, not 'yes'"),
        ({"cache": ""}, r"^cache must name a folder, or be None"),
        ({"workers": 0}, r"^workers must be a whole number of at least 1, or None for one a core, and is 0"),
        ({"workers": 1.5}, r"^workers must be"),
    ],
)
def test_wrong_settings_name_themselves(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSettings(**options)  # type: ignore[arg-type]


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGGAN_KIT_CACHE", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "pggan_kit"
    monkeypatch.setenv("PGGAN_KIT_CACHE", "~/there")
    assert cache_folder() == tmp_path / "there"
    assert cache_folder("here") == Path("here")
    assert DataSettings().threads() >= 1
