"""How costs grow with the size of what is worked on, as ratios to a floor that is measured in the same run."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import STUB, TINY
from helpers.datasets import ArrayDataset
from helpers.forks import Fork
from helpers.many_runs import copy_with_seed, lengthen_stats
from helpers.paths import ROOT
from helpers.patience import PATIENCE_SECONDS
from helpers.reporting import train_pair
from PIL import Image

from pggan_kit.api.train import train
from pggan_kit.benchmarking import plan as planning
from pggan_kit.data import build_journal, sampler
from pggan_kit.data.array_files import ArrayWriter, open_array
from pggan_kit.data.device_feed import choose_feed, close_feed
from pggan_kit.data.level_files import DIGEST_WORDS, match_digests
from pggan_kit.data.pyramid import Level
from pggan_kit.data.resizing import resize_to_all
from pggan_kit.data.sampler import Sampler, open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.pictures import list_pictures
from pggan_kit.report import write_report
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.system import content_hashes
from pggan_kit.system.content_hashes import hash_files
from pggan_kit.system.json_text import json_text

BATCHES = 12
BATCH_SIZE = 32


def write_level(path: Path, size: int, nbytes: int) -> Level:
    """Return a level of random colour images in a file of about so many bytes, none of it in memory."""
    count = nbytes // (3 * size * size)
    draw = np.random.default_rng(0)
    with ArrayWriter(path, np.uint8, (3, size, size)) as writer:
        for start in range(0, count, 256):
            writer.append(draw.integers(0, 256, (min(256, count - start), 3, size, size), np.uint8))
        writer.commit()
    images = open_array(path, np.uint8, 4)
    assert images is not None
    return Level(images, None)


def forget_pages(path: Path) -> None:
    """Let the kernel drop what it keeps of a file in memory."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("size", [64, 256])
def test_random_rows_of_a_file_that_is_not_in_memory(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows read by themselves, against a memory map; the floor is the same number of bytes read in one piece."""
    path = tmp_path / "level.npy"
    level = write_level(path, size, 400 << 20)
    monkeypatch.setattr(sampler, "RESIDENT_BYTES", 0)
    rows = Sampler(level, 0)
    monkeypatch.setattr(sampler.RowReader, "can_read", lambda array: False)
    mapped = Sampler(level, 0)

    seconds: dict[str, float] = {}
    for name, source in (("rows", rows), ("mapped", mapped)):
        forget_pages(path)
        began = time.perf_counter()
        for step in range(BATCHES):
            source.batch(step * BATCH_SIZE, BATCH_SIZE)
        seconds[name] = (time.perf_counter() - began) / (BATCHES * BATCH_SIZE)
    forget_pages(path)
    began = time.perf_counter()
    with open(path, "rb") as file:
        file.read(BATCHES * BATCH_SIZE * 3 * size * size)
    floor = (time.perf_counter() - began) / (BATCHES * BATCH_SIZE)

    print(
        f"\n{size}x{size}: {1 / seconds['rows']:,.0f} images/s by rows, {1 / seconds['mapped']:,.0f} by a memory map, "
        f"{1 / floor:,.0f} in one piece"
    )
    assert seconds["rows"] < seconds["mapped"]


@pytest.mark.parametrize("size", [64, 256])
def test_a_step_does_not_wait_for_rows_that_are_read_ahead(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that a batch takes where 50 ms pass between two, with a thread that is one batch ahead and without."""
    path = tmp_path / "level.npy"
    level = write_level(path, size, 400 << 20)
    monkeypatch.setattr(sampler, "RESIDENT_BYTES", 0)
    waits: dict[str, float] = {}
    for name in ("ahead", "in the step"):
        source = Sampler(level, 0)
        feed = choose_feed(source, torch.device("cpu"), None) if name == "ahead" else source
        forget_pages(path)
        seconds = []
        for step in range(BATCHES):
            began = time.perf_counter()
            feed.batch(step * BATCH_SIZE, BATCH_SIZE)
            seconds.append(time.perf_counter() - began)
            time.sleep(0.05)
        close_feed(feed)
        waits[name] = statistics.median(seconds[1:])
    print(
        f"\n{size}x{size}: {1e3 * waits['ahead']:.1f} ms a batch, and {1e3 * waits['in the step']:.1f} ms in the step"
    )
    assert waits["ahead"] < waits["in the step"]


def test_flipped_rows_cost_little() -> None:
    """Batches of which half the images are flipped, against batches as they are."""
    images = np.random.default_rng(0).integers(0, 256, (512, 3, 256, 256), np.uint8)
    seconds = {}
    for mirror in (False, True):
        source = Sampler(Level(images, None), 0, mirror)
        source.batch(0, BATCH_SIZE)
        seconds[mirror] = measure_shortest(lambda source=source: source.batch(BATCH_SIZE, BATCH_SIZE))
    print(f"\n{BATCH_SIZE / seconds[False]:,.0f} images/s, {BATCH_SIZE / seconds[True]:,.0f} where half are flipped")
    assert seconds[True] < 1.5 * seconds[False]


@pytest.mark.parametrize(("source", "largest", "most"), [(1024, 1024, 1.3), (1000, 512, 2.5), (300, 256, 3.0)])
def test_resizing_to_all_sizes(source: int, largest: int, most: float) -> None:
    """All sizes from 4x4 on, in rows of arrays, as a multiple of the decoding of the picture from JPEG.

    Beside it stands what Pillow takes for the same sizes, whose box filter is no mean where a pixel is covered in part.
    All take turns, and the CPU time counts: memory that one gives back and another asks for is a part of it.
    """
    coarse = np.random.default_rng(0).integers(0, 256, (source // 8, source // 8, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(coarse).resize((source, source), Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=90)
    image = np.asarray(Image.open(encoded))
    sizes = [(2**power, 2**power) for power in range(2, 11) if 2**power <= largest]
    rows = {size: np.empty((3, *size), np.uint8) for size in sizes}

    def resize() -> None:
        for size, resized in resize_to_all(image, sizes, "area"):
            rows[size][...] = resized

    def resize_with_pillow() -> None:
        resized = Image.fromarray(image)
        for size in reversed(sizes):
            if resized.size != size:
                resized = resized.resize(size, Image.Resampling.BOX, reducing_gap=1.0)
            rows[size][...] = np.asarray(resized).transpose(2, 0, 1)

    times: dict[str, list[float]] = {"decoding": [], "resizing": [], "Pillow": []}
    for _ in range(40):
        for name, action in (
            ("decoding", Image.open(encoded).load),
            ("resizing", resize),
            ("Pillow", resize_with_pillow),
        ):
            began = time.process_time()
            action()
            times[name].append(time.process_time() - began)
    decoding, own, pillow = (statistics.median(each) for each in times.values())
    print(
        f"\n{source} -> {largest}, ..., 4: {own / decoding:.2f} times the decoding ({1e3 * decoding:.2f} ms), and "
        f"{pillow / decoding:.2f} times with Pillow"
    )
    assert own < most * decoding


@pytest.mark.parametrize("count", [2_000, 20_000])
def test_the_start_with_a_folder_of_pictures(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing all files and reading their kept hashes; the floor is to walk the folder and look at each file."""
    monkeypatch.setenv("PGGAN_KIT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    for i in range(count):
        path = folder / f"{i // 1000}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(i).encode())
    time.sleep(content_hashes.SETTLED_NS / 1e9)
    hash_files(folder, list_pictures(folder).files)

    starting = measure_shortest(lambda: hash_files(folder, list_pictures(folder).files), 5, time.process_time)
    floor = measure_shortest(lambda: ask_for_all(folder), 5, time.process_time)
    print(f"\n{count:,} files: {starting / count * 1e6:.1f} us a file, {starting / floor:.1f} times the floor")
    assert starting < 6 * floor


def ask_for_all(folder: Path) -> None:
    """Ask for the status of every file."""
    for parent, _, names in os.walk(folder):
        for name in names:
            os.stat(f"{parent}/{name}")


def test_rows_of_older_copies_are_found_in_linear_time() -> None:
    """Ten times the rows, at most 20 times as long: they are sorted, and large arrays miss the processor's cache."""
    seconds = {}
    for count in (20_000, 200_000):
        digests = np.random.default_rng(0).integers(0, 2**32, (count, DIGEST_WORDS), np.uint32)
        changed = digests[::-1].copy()
        changed[::10] += 1
        seconds[count] = measure_shortest(
            lambda known=digests, wanted=changed: match_digests(known, wanted), 5, time.process_time
        )
    few, many = seconds.values()
    print(f"\n{1e6 * few / 20_000:.2f} us a row of 20,000, {1e6 * many / 200_000:.2f} us a row of 200,000")
    assert many < 20 * few


def test_the_journal_of_a_build_costs_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU time of a build with a journal 250 times as often as is usual, against one without."""
    images = list(np.random.default_rng(0).integers(0, 256, (5_000, 16, 16, 3), np.uint8))

    def build(interval: float) -> None:
        monkeypatch.setattr(build_journal, "JOURNAL_SECONDS", interval)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        settings = DataSettings(cache=str(tmp_path / "cache"), workers=1)
        open_data(ArrayDataset(images), settings, [(8, 8), (16, 16)], 0)

    without = measure_shortest(lambda: build(1e9), 3, time.process_time)
    often = measure_shortest(lambda: build(0.02), 3, time.process_time)
    print(f"\n{without:.2f} s without a journal, {often:.2f} s with one fifty times a second")
    assert often < 1.5 * without


def measure_shortest(
    action: Callable[[], object], rounds: int = 20, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the shortest of several times that an action takes, in seconds."""
    times = []
    for _ in range(rounds):
        began = clock()
        action()
        times.append(clock() - began)
    return min(times)


def test_what_a_run_writes_beside_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints, grids, frames and measurements of diversity in a run of n and of 10 n images; rows are the floor."""
    monkeypatch.chdir(tmp_path)
    counts: dict[int, dict[str, int]] = {}
    for images in (400, 4_000):
        lengths = [f"schedule.fade_images = {images // 5}", f"schedule.stable_images = {images * 2 // 5}"]
        bindings = ["schedule.sizes = (4, 8)", *lengths, "train.tick = 4", f"train.keep = {images}"]
        bindings += ["train.observers = [@observers.Samples(), @observers.Growth()]", "observers.Samples.count = 4"]
        Path("tiny.gin").write_text(TINY)
        run = train("tiny.gin", bindings, run_dir=f"{images}", plugins=[str(STUB)])
        with Image.open(f"{images}/growth.gif") as animation:
            frames = animation.n_frames
        counts[images] = {
            "rows": len(run.stats),
            "checkpoints": len(RunDirectory(Path(f"{images}")).checkpoints().read_entries()),
            "grids": len(list(Path(f"{images}/samples").iterdir())),
            "frames": frames,
            "diversity": sum(row.get("Progress/diversity") is not None for row in run.stats),
        }
    few, many = counts.values()
    print("\n" + "\n".join(f"{images:,} images: {each}" for images, each in counts.items()))
    assert many.pop("rows") > 9 * few.pop("rows")
    for name, count in few.items():
        assert count >= 90 and many[name] <= 1.1 * count, f"{name} grow with the run"


@pytest.mark.parametrize(
    ("name", "with_metrics"),
    [
        ("mnist", True),
        ("stacked_mnist", True),
        ("stylegan2_mnist", True),
        ("resnet_mnist", True),
        ("r3gan_mnist", True),
        ("curves", True),
        ("coherence", True),
        ("transition_shock", False),  # it is for what its metric measures
    ],
)
def test_the_time_outside_updates(name: str, with_metrics: bool) -> None:
    """The parts that `plan` measures: less than a fiftieth of the time of each small recipe."""
    rows = planning.plan(ROOT / "experiments" / f"{name}.gin", ["train.device = 'cpu'"], with_metrics=with_metrics)
    hours = sum(row["hours"] for row in rows)
    parts: dict[str, float] = {}
    for row in rows:
        for part, share in row["outside"].items():
            parts[part] = parts.get(part, 0.0) + share * row["hours"] / hours
    listed = ", ".join(f"{part} {share:.2%}" for part, share in parts.items())
    print(f"\n{name}: {sum(parts.values()):.2%} of {60 * hours:.1f} min ({listed})")
    assert sum(parts.values()) < 0.02


@pytest.mark.parametrize("times", [1, 200])
def test_a_report_of_many_runs(times: int, tmp_path: Path) -> None:
    """Reports of 20 and of 200 runs in two groups: CPU time, memory, and the size of the page."""
    train_pair(tmp_path)
    folders: dict[str, list[Path]] = {}
    for name, shift in (("soft", 0.0), ("hard", 0.3)):
        run = tmp_path / name
        lengthen_stats(run, times)
        folders[name] = [copy_with_seed(run, tmp_path / f"{name}-{seed}", seed, shift) for seed in range(100)]

    # Each report has a process of its own, since what a process took at most never becomes less.
    measured = {}
    for count in (10, 100):
        chosen = [folder for own in folders.values() for folder in own[:count]]
        page = tmp_path / f"{count}.html"
        seconds, mebibytes = measure_fork(lambda runs=chosen, out=page: write_report(runs, out, say=print), tmp_path)
        measured[count] = (seconds, mebibytes, page.stat().st_size)
        print(
            f"\n{2 * count} runs of {5 * times} ticks: {seconds:.1f} CPU s, {mebibytes:.0f} MiB, "
            f"{page.stat().st_size / 1e6:.2f} MB of HTML"
        )
    few, many = measured[10], measured[100]
    assert many[0] < 5 * few[0], "what is drawn does not grow"
    assert many[1] - few[1] < 300, "little is kept of a run"
    assert many[2] < 2 * few[2], "a run more is a row more"
    assert many[1] < 600 and many[2] < 5e6, "a page that can be mailed, made on a laptop"


def measure_fork(action: Callable[[], object], folder: Path) -> tuple[float, float]:
    """Return the CPU seconds that an action takes in a fork of this process, and the MiB that it takes at most."""
    result = folder / "measured.json"

    def measure() -> None:
        began = time.process_time()
        action()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        result.write_text(json_text([time.process_time() - began, peak]))

    fork = Fork(measure)
    assert fork.wait(PATIENCE_SECONDS) == 0, fork.read_errors()
    seconds, mebibytes = json.loads(result.read_text())
    return float(seconds), float(mebibytes)
