"""Observers: the files and lines they write, against a run whose images are known."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pluggy
import pytest
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from pggan_kit.errors import ConfigError
from pggan_kit.pictures import gif
from pggan_kit.pictures.channels import PictureSettings
from pggan_kit.pictures.frames import Caption, choose_cell_size, draw_caption, draw_frame
from pggan_kit.pictures.grid import BACKGROUND, GAP, arrange_grid, crop_grid, image_grid, tile, to_uint8
from pggan_kit.plugin_host.manager import make_manager, register_hooks
from pggan_kit.runs.run import Run
from pggan_kit.schedule import ScheduleSettings
from pggan_kit.system.json_lines import JsonLines
from pggan_kit.system.plain_data import describe_foreign_value
from pggan_kit.ticks import Tick, list_planned_ticks
from pggan_plugins import observers
from pggan_plugins.observers import (
    Coherence,
    Growth,
    Progress,
    Samples,
    Spectra,
    TensorBoard,
    TransitionShock,
    progress,
)
from pggan_plugins.observers.sample_grid import choose_latents

STATS = {"Loss/generator": 0.5, "Scores/real": 1.25, "Progress/alpha": 0.5, "Timing/seconds": 2.0, "Metrics/fid": 9.0}


class FakeRun:
    """A run of known images, at 7x7 until 400, then fading to 14x14 until 800, then stable until 1000."""

    def __init__(self, directory: Path, channels: int = 1, classes: int = 0, sizes=(7, 14)) -> None:
        self.directory = directory
        self.schedule = ScheduleSettings(sizes, 400, 400, 4, 1000).resolve(100, channels, classes)
        self.experiment = SimpleNamespace(tick=200, observers=[], pictures=PictureSettings())
        self.alpha: dict[str, float] = {}
        self.resumed = False
        self.is_new_branch = False
        self.files = SimpleNamespace(warn=pytest.fail)
        self.stats: list[dict[str, float]] = []
        self.state = SimpleNamespace(ended=False)
        self.move(0)

    def move(self, images: int) -> FakeRun:
        starts = [0] if images <= 400 else [0, 400]
        position = self.schedule.at(images, starts)
        fading = position.phase == "fade"
        self.alpha["generator"] = position.progress if fading else 1.0
        self.state.__dict__.update(
            images=images,
            starts=starts,
            stage=position.stage,
            phase=position.phase,
            fading=fading,
            last_tick=images,
            is_over=self.state.ended or images >= self.schedule.total,
        )
        return self

    def fixed_latents(self, count: int) -> torch.Tensor:
        return torch.arange(float(count))[:, None]

    def fixed_labels(self, count: int) -> torch.Tensor | None:
        classes = self.state.stage.classes
        return torch.arange(count) % classes if classes else None

    def draw_reals(self, count: int) -> None:
        """Its data are not open."""

    show = Run.show

    def generate(self, latents: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        stage = self.state.stage
        shape = (stage.image_channels, stage.height, stage.width)
        drawn = [
            torch.rand(shape, generator=torch.Generator().manual_seed(int(latent) + self.state.images)) * 2 - 1
            for latent in latents[:, 0]
        ]
        return torch.stack(drawn)


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    return FakeRun(tmp_path)


def register_observer(observer: object) -> pluggy.PluginManager:
    """Return a manager that calls the observer's hooks as a run calls them."""
    manager = make_manager()
    register_hooks(manager, observer, "observer", "the test")
    return manager


def run_tick(observer: object, run: FakeRun, images: int, before: int = 0, **about: bool) -> None:
    """Run a tick, at which everything of the interval None is due unless it is said to follow another one closely."""
    run.move(images)
    call_tick(observer, run, before, **about)


def call_tick(observer: object, run: FakeRun, before: int = 0, **about: bool) -> None:
    """Call the hook of a tick where the run stands."""
    stage = run.state.stage
    tick = Tick(run.state.images, before, run.schedule.total, stage, **about)
    register_observer(observer).hook.after_tick(run=run, stage=stage, state=run.state, stats=STATS, tick=tick)


def begin_run(observer: object, run: FakeRun, images: int | None = None) -> None:
    """Start a run, or resume it at a checkpoint of `images`."""
    run.resumed = images is not None
    run.move(images or 0)
    register_observer(observer).hook.before_run(run=run)
    register_observer(observer).hook.before_stage(
        run=run, stage=run.state.stage, state=run.state, continues=images is not None
    )


def cut_cells(picture: Image.Image, size: tuple[int, int], scale: int) -> np.ndarray:
    """Cut the images (rows, columns, h, w, ...) out of a grid. Check that their enlargement is even, and undo it."""
    sheet = np.asarray(picture)
    assert (sheet[:GAP] == BACKGROUND).all()
    assert (sheet[:, :GAP] == BACKGROUND).all()
    steps = [scale * side + GAP for side in size]
    rows, columns = ((sheet.shape[axis] - GAP) // steps[axis] for axis in (0, 1))
    out = []
    for row in range(rows):
        for column in range(columns):
            top = row * steps[0] + GAP
            left = column * steps[1] + GAP
            cell = sheet[top : top + scale * size[0], left : left + scale * size[1]]
            small = cell[::scale, ::scale]
            assert (cell == small.repeat(scale, 0).repeat(scale, 1)).all()
            out.append(small)
    return np.stack(out).reshape(rows, columns, *out[0].shape)


def generate_uint8(run: FakeRun, count: int) -> np.ndarray:
    return to_uint8(run.generate(run.fixed_latents(count), run.fixed_labels(count)))


def read_frames(file: Path) -> list[np.ndarray]:
    with Image.open(file) as picture:
        frames = []
        for number in range(picture.n_frames):
            picture.seek(number)
            frames.append(np.asarray(picture.convert("RGB")))
        return frames


# Images


def test_to_uint8_rounds_and_clips() -> None:
    values = torch.tensor([-3.0, -1.0, -0.999, 0.0, 1.0, 2.0]).reshape(1, 1, 2, 3)
    made = to_uint8(values)
    assert made.dtype == np.uint8
    assert made.shape == (1, 2, 3, 1)
    assert made.ravel().tolist() == [0, 0, 0, 128, 255, 255]
    assert to_uint8(torch.tensor([0.02]).reshape(1, 1, 1, 1)).item() == 130  # 130.05


@pytest.mark.parametrize(("shape", "cell", "scale"), [((7, 7, 1), 56, 8), ((4, 6, 3), 10, 3), ((5, 5, 3), 5, 1)])
def test_image_grid_holds_each_image_enlarged(shape: tuple[int, int, int], cell: int, scale: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    picture = image_grid(images, 2, cell)
    assert picture.mode == ("L" if shape[2] == 1 else "RGB")
    actual = cut_cells(picture, shape[:2], scale).reshape(6, *shape)
    assert (actual[:5] == images).all()
    assert (actual[5] == BACKGROUND).all()


# Samples


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_show_generated_images(tmp_path: Path, channels: int) -> None:
    run = FakeRun(tmp_path, channels)
    observer = Samples(count=9)
    begin_run(observer, run)
    for images, name, scale in ((400, "000000400-7x7.png", 8), (600, "000000600-14x14.png", 4)):
        run_tick(observer, run, images)
        size = (run.state.stage.height, run.state.stage.width)
        with Image.open(tmp_path / "samples" / name) as picture:
            actual = cut_cells(picture, size, scale)
        assert (actual.reshape(9, *size, channels) == generate_uint8(run, 9)).all()


def test_samples_show_one_class_a_row(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, classes=3)
    observer = Samples(count=8)
    begin_run(observer, run)
    run_tick(observer, run, 400)
    with Image.open(tmp_path / "samples/000000400-7x7.png") as picture:
        actual = cut_cells(picture, (7, 7), 8)
    expected = generate_uint8(run, 8)[..., 0]
    assert actual.shape[:2] == (3, 2)
    for row in range(3):
        for column in range(2):
            latent = row + 3 * column
            assert run.fixed_labels(8)[latent] == row
            assert (actual[row, column] == expected[latent]).all()


def test_grids_arrange_few_latents_in_a_square_and_crop_large_images() -> None:
    assert arrange_grid(5, 0) == [[0, 1, 2], [3, 4]]
    assert arrange_grid(4, 10) == [[0, 1], [2, 3]]
    full = arrange_grid(64, 0)
    assert crop_grid(full, 64, 64) == full
    assert crop_grid(full, 256, 256) == [row[:3] for row in full[:3]]
    assert crop_grid(full, 256, 512) == [row[:1] for row in full[:3]]
    assert crop_grid(full, 4096, 4096) == [[0]]


def test_samples_show_the_effect_of_a_growth(run: FakeRun) -> None:
    """Right after it, beside the grid of the tick before it; not where a run goes on within the stage."""
    observer = Samples(count=1)
    begin_run(observer, run)
    run_tick(observer, run, 400)
    run.state.__dict__.update(starts=[0, 400], stage=run.schedule.stages[1], phase="fade", fading=True)
    register_observer(observer).hook.before_stage(run=run, stage=run.state.stage, state=run.state, continues=False)
    names = sorted(path.name for path in (run.directory / "samples").iterdir())
    assert names == ["000000400-14x14.png", "000000400-7x7.png"]
    begin_run(Samples(count=1), run, images=600)
    assert len(list((run.directory / "samples").iterdir())) == 2


def test_a_resume_removes_samples_past_the_checkpoint(run: FakeRun) -> None:
    observer = Samples(count=1)
    begin_run(observer, run)
    for images in (200, 400, 600):
        run_tick(observer, run, images)
    mine = {"mine.png", "2024-holiday.png", "2024-10x15.png", "000000600-7x7.txt", "2024-figures"}
    for name in mine - {"2024-figures"}:
        (run.directory / "samples" / name).touch()
    (run.directory / "samples/2024-figures").mkdir()
    begin_run(Samples(count=1), run, images=450)
    names = {path.name for path in (run.directory / "samples").iterdir()}
    assert names == {"000000200-7x7.png", "000000400-7x7.png"} | mine


# Growth


@pytest.mark.parametrize("channels", [1, 3])
def test_growth_has_a_frame_a_tick_of_one_size_and_holds_the_last(tmp_path: Path, channels: int) -> None:
    run = FakeRun(tmp_path, channels)
    observer = Growth(count=4, frame_ms=150, hold_ms=1500)
    begin_run(observer, run)
    for number, images in enumerate((200, 400, 600, 800, 1000), start=1):
        run_tick(observer, run, images)
        with Image.open(tmp_path / "growth.gif") as picture:
            assert picture.info["loop"] == 0
            assert picture.n_frames == number
            durations = []
            for frame in range(number):
                picture.seek(frame)
                durations.append(picture.info["duration"])
        assert durations == [150] * (number - 1) + [1500]
    assert len({frame.shape for frame in read_frames(tmp_path / "growth.gif")}) == 1


def test_growth_frames_show_the_images_exactly_in_gray(run: FakeRun) -> None:
    observer = Growth(count=4)
    begin_run(observer, run)
    run_tick(observer, run, 200)
    run_tick(observer, run, 600)
    frames = read_frames(run.directory / "growth.gif")
    cell, _ = choose_cell_size(run.schedule, 2)
    for frame, images, size in zip(frames, (200, 600), (7, 14), strict=True):
        sheet = tile(generate_uint8(run.move(images), 4), 2, cell // size)
        assert (frame[-len(sheet) :] == sheet).all()


def test_growth_frames_in_colour_are_close_to_the_images(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, channels=3)
    observer = Growth(count=1)
    begin_run(observer, run)
    run_tick(observer, run, 200)
    sheet = tile(generate_uint8(run, 1), 1, choose_cell_size(run.schedule, 1)[0] // 7)
    frame = read_frames(run.directory / "growth.gif")[0]
    # 49 colours fit a palette of 240, which Pillow looks up to a few levels.
    assert np.abs(frame[-len(sheet) :].astype(int) - sheet).max() <= 8
    assert frame[0, 0].tolist() == [BACKGROUND] * 3


def test_growth_captions_show_alpha_phase_size_and_clock() -> None:
    images = np.zeros((4, 14, 14, 1), np.uint8)
    first = Caption("14x14", "fade", 0.25, 600, 1000)
    pictures = {
        np.asarray(draw_frame(images, 2, (98, 98), caption)).tobytes()
        for caption in (
            first,
            first._replace(alpha=0.5),
            first._replace(phase="stable"),
            first._replace(size="28x28"),
            first._replace(images=601),
        )
    }
    assert len(pictures) == 5
    numbers = [
        np.asarray(draw_caption(first._replace(alpha=alpha), 200))[-20:, -30:].tobytes() for alpha in (0.25, 0.26)
    ]
    assert numbers[0] != numbers[1], "the bar moves and the number does not"


@pytest.mark.parametrize("channels", [1, 3])
def test_growth_alpha_bar_fills_in_proportion(channels: int) -> None:
    images = np.zeros((4, 14, 14, channels), np.uint8)

    def measure_bar(alpha: float) -> int:
        frame = np.asarray(draw_frame(images, 2, (252, 252), Caption("", "fade", alpha, 1, 1)).convert("L"))
        strip = frame[: -2 * 252 - 3 * GAP]
        return max(len(run) for row in strip for run in re.findall(rb"\xff+", row.tobytes()))

    whole = measure_bar(1.0)
    assert whole > 250
    assert measure_bar(0.5) == pytest.approx(whole / 2, abs=1)


def test_growth_is_named_stable_where_the_switch_is_hard(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "pggan_kit.pictures.frames.draw_caption",
        lambda caption, width: seen.append(caption) or Image.new("L", (width, 20)),
    )
    observer = Growth(count=1)
    begin_run(observer, run)
    seen.clear()  # of the frame that was measured
    run_tick(observer, run, 600)
    run.move(650).state.fading = False
    run.alpha["generator"] = 1.0
    call_tick(observer, run)
    assert seen == [Caption("14x14", "fade", 0.5, 600, 1000), Caption("14x14", "stable", 1.0, 650, 1000)]


@pytest.mark.parametrize(
    ("sizes", "cell"),
    [
        ((7, 14, 28), (112, 112)),
        (((4, 6), (8, 12)), (80, 120)),
        ((5, 15, 45), (90, 90)),
        ((64, 128, 256), (128, 128)),
        ((200,), (200, 200)),
    ],
)
def test_growth_cells_fit_all_stages(sizes: tuple, cell: tuple[int, int]) -> None:
    schedule = ScheduleSettings(sizes, 10, 10, 2).resolve(10, 1, 0)
    assert choose_cell_size(schedule, 4) == cell
    shapes = {
        draw_frame(np.zeros((3, s.height, s.width, 3), np.uint8), 4, cell, Caption("", "", 1, 1, 1)).size
        for s in schedule.stages
    }
    assert len(shapes) == 1


def test_growth_resumes_with_the_frames_up_to_the_checkpoint(run: FakeRun) -> None:
    observer = Growth(count=2)
    begin_run(observer, run)
    for images in (200, 400, 600, 800):
        run_tick(observer, run, images)
    before = read_frames(run.directory / "growth.gif")
    resumed = Growth(count=2)
    begin_run(resumed, run, images=450)
    run_tick(resumed, run, 700)
    after = read_frames(run.directory / "growth.gif")
    assert len(after) == 3
    assert (after[0] == before[0]).all()
    assert (after[1] == before[1]).all()
    assert [f.images for f in gif.disassemble_gif((run.directory / "growth.gif").read_bytes())] == [200, 400, 700]


@pytest.mark.parametrize("changed", ["count", "channels"])
def test_growth_begins_another_film_where_frames_have_another_size(run: FakeRun, changed: str) -> None:
    """The one so far stays beside it, and so do frames of that size that could not be written."""
    observer = Growth(count=4)
    begin_run(observer, run)
    run_tick(observer, run, 200)
    run_tick(observer, run, 400)
    file = run.directory / "growth.gif"
    before = file.read_bytes()
    frame = gif.disassemble_gif(before)[0]
    saved = {"unwritten": [(300, torch.frombuffer(bytearray(frame.data), dtype=torch.uint8))]}

    other = Growth(count=9 if changed == "count" else 4)
    if changed == "channels":
        run.schedule = ScheduleSettings((7, 14), 400, 400, 4, 1000).resolve(100, 5, 0)
    warnings: list[str] = []
    run.files.warn = warnings.append
    begin_run(other, run, images=400)
    other.load_state(run, saved)
    run_tick(other, run, 600)
    run_tick(other, run, 800)
    assert len(warnings) == 1 and "stays as growth-until-400.gif" in warnings[0]
    assert (run.directory / "growth-until-400.gif").read_bytes() == before
    frames = gif.disassemble_gif(file.read_bytes())
    assert [each.images for each in frames] == [600, 800]
    (size,) = {each.data[5:9] for each in frames}
    assert size != frame.data[5:9]


def test_frames_of_two_sizes_make_no_gif() -> None:
    frames = [gif.encode_frame(Image.new("L", (width, 8)), 0) for width in (8, 9)]
    assert [frame.size for frame in frames] == [(8, 8), (9, 8)]
    with pytest.raises(ValueError, match=r"frames differ in size \(\[\(8, 8\), \(9, 8\)\]\)"):
        gif.assemble_gif(frames, [100, 100])


def test_an_uninterrupted_growth_equals_a_resumed_one(run: FakeRun) -> None:
    whole = Growth(count=2)
    file = run.directory / "growth.gif"
    begin_run(whole, run)
    for images in (200, 400, 600):
        run_tick(whole, run, images)
    expected = file.read_bytes()
    resumed = Growth(count=2)
    begin_run(resumed, run, images=400)
    run_tick(resumed, run, 600)
    assert file.read_bytes() == expected


def test_a_damaged_growth_gif_keeps_its_whole_frames(run: FakeRun) -> None:
    observer = Growth(count=2)
    file = run.directory / "growth.gif"
    begin_run(observer, run)
    run_tick(observer, run, 200)
    run_tick(observer, run, 400)
    content = file.read_bytes()
    assert len(gif.disassemble_gif(content)) == 2
    assert len(gif.disassemble_gif(content[:-500])) == 1
    for other in (b"", b"not a GIF", content[:20]):
        assert gif.disassemble_gif(other) == []


def test_growth_is_rewritten_atomically(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    observer = Growth(count=2)
    file = run.directory / "growth.gif"
    begin_run(observer, run)
    run_tick(observer, run, 200)
    before = file.read_bytes()

    def fail_to_replace(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail_to_replace)
    with pytest.raises(Exception, match="No space left"):
        run_tick(observer, run, 400)
    assert file.read_bytes() == before
    assert [path.name for path in run.directory.iterdir()] == ["growth.gif"]


def test_growth_gets_its_missing_frames_back(run: FakeRun, tmp_path: Path) -> None:
    """At the next tick, and also where the run was resumed in between."""
    # What the file holds when nothing hinders it.
    whole = Growth(count=2)
    begin_run(whole, run)
    for images in (200, 400, 600, 800):
        run_tick(whole, run, images)
    file = run.directory / "growth.gif"
    expected = file.read_bytes()
    file.unlink()

    # Two ticks at which it cannot be written, and one at which it can.
    observer = Growth(count=2)
    begin_run(observer, run)
    run_tick(observer, run, 200)
    content = file.read_bytes()
    file.unlink()
    file.mkdir()
    for images in (400, 600):
        with pytest.raises(Exception, match=r"cannot write .*growth\.gif"):
            run_tick(observer, run, images)
    saved = observer.save_state()
    assert describe_foreign_value(saved, "state") is None
    file.rmdir()
    file.write_bytes(content)
    run_tick(observer, run, 800)
    assert file.read_bytes() == expected
    assert observer.save_state() == {"unwritten": []}

    file.write_bytes(content)
    # The same in another process.
    resumed = Growth(count=2)
    begin_run(resumed, run, images=600)
    resumed.load_state(run, saved)
    run_tick(resumed, run, 800)
    assert file.read_bytes() == expected


DUE = {
    # At 25 and 50 it is early; multiples of 300 are passed at 300, 600 and 900; at 400 a phase ends.
    "images": (300, [25, 50, 300, 400, 600, 900]),
    "phase": ("phase", [25, 50, 400]),
    "per stage": ({7: 100, 14: "phase"}, [25, 50, 100, 200, 300, 400]),
    "each tick": (1, [25, 50, *range(100, 1001, 100)]),
    "a hundredth of the run": (None, [25, 50, *range(100, 1001, 100)]),
}


def list_clocks(observer: object, folder: Path) -> list[int]:
    """Return the clocks at which an observer has drawn."""
    if isinstance(observer, Samples):
        return sorted(int(path.name.partition("-")[0]) for path in (folder / "samples").iterdir())
    if isinstance(observer, Growth):
        return [frame.images for frame in gif.disassemble_gif((folder / "growth.gif").read_bytes())]
    assert isinstance(observer, TensorBoard)
    return [event.step for event in read_events(folder).Images("Samples")]


@pytest.mark.parametrize("case", DUE)
@pytest.mark.parametrize("factory", [Samples, Growth, TensorBoard])
def test_what_takes_long_is_drawn_when_it_is_due(factory: type, case: str, run: FakeRun) -> None:
    every, clocks = DUE[case]
    observer = factory(count=1, every=every)
    begin_run(observer, run)
    before = 0
    for images in (25, 50, *range(100, 1001, 100)):
        run_tick(observer, run, images, before, is_early=images < 100, ends_phase=images == 400)
        before = images
    register_observer(observer).hook.on_error(run=run, error=KeyboardInterrupt())
    assert list_clocks(observer, run.directory) == clocks


def test_an_interval_without_a_value_for_the_first_stage_is_refused(run: FakeRun) -> None:
    for observer in (
        Samples(every={14: 5}),
        Growth(every={14: 5}),
        TensorBoard(every={14: 5}),
        Coherence(every={14: 5}),
    ):
        name = f"observers.{type(observer).__name__}.every"
        with pytest.raises(ConfigError, match=f"^{name} has no value for height 7"):
            begin_run(observer, run)


def test_a_film_that_would_be_written_too_often_is_refused(run: FakeRun) -> None:
    run.schedule = ScheduleSettings((7, 14), 400, 400, 4, 200_000).resolve(100, 1, 0)
    begin_run(Growth(count=1, every=200), run)
    run.experiment.tick = 100
    begin_run(Growth(count=1), run)
    with pytest.raises(ConfigError, match="every makes a film of 2000 frames, and the most are 1000: raise it"):
        begin_run(Growth(count=1, every=50), run)


def test_growth_stays_cheap(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, sizes=(14, 28))
    observer = Growth()
    begin_run(observer, run)
    started = time.process_time()
    for images in range(25, 1001, 25):
        run_tick(observer, run, images)
    assert (time.process_time() - started) / 40 < 0.03


# TensorBoard


def read_events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), {"scalars": 0, "images": 0, "tensors": 0}).Reload()


def test_tensorboard_has_every_number_the_grid_and_the_config(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    flush = SummaryWriter.flush
    monkeypatch.setattr(SummaryWriter, "flush", lambda writer: flushed.append(run.state.images) or flush(writer))
    (run.directory / "operative.gin").write_text("optimizers.Adam.lr = 0.5\n")
    observer = TensorBoard(count=4)
    begin_run(observer, run)
    for images in (200, 600):
        run_tick(observer, run, images)
    assert flushed == [0, 200, 600]
    actual = read_events(run.directory)
    for tag, value in STATS.items():
        assert [(e.step, e.value) for e in actual.Scalars(tag)] == [(200, value), (600, value)]
    assert [e.step for e in actual.Images("Samples")] == [200, 600]
    shown = actual.Images("Samples")[-1]
    assert (shown.width, shown.height) == image_grid(generate_uint8(run, 4), 2).size
    (text,) = [tag for tag in actual.Tags()["tensors"] if "operative" in tag]
    assert b"optimizers.Adam.lr = 0.5" in actual.Tensors(text)[0].tensor_proto.string_val[0]
    register_observer(observer).hook.after_run(run=run, result={})


def test_tensorboard_events_appear_once_after_a_resume(run: FakeRun) -> None:
    """Also where the clock of the machine before was a second ahead: readers take files in the order of names."""
    (run.directory / "operative.gin").write_text("a.b = 1\n")
    (run.directory / "config.gin").write_text("a.b = 1\n")
    transitions = JsonLines(run.directory / "transitions.jsonl")
    for images in (400, 600, 700):
        transitions.append({"images": images, "Transition/rms/ema": images / 1000})
    observer = TensorBoard(count=1)
    begin_run(observer, run)
    for images in (200, 400, 600, 800):
        run_tick(observer, run, images)
    register_observer(observer).hook.on_error(run=run, error=KeyboardInterrupt())
    (file,) = run.directory.glob("events.out.tfevents.*")
    file.rename(run.directory / f"events.out.tfevents.{int(time.time()) + 1:010}.host.1.0")
    resumed = TensorBoard(count=1)
    begin_run(resumed, run, images=400)
    for images in (600, 700):
        run_tick(resumed, run, images)
    register_observer(resumed).hook.after_run(run=run, result={})
    actual = read_events(run.directory)
    assert [e.step for e in actual.Scalars("Loss/generator")] == [200, 400, 600, 700]
    assert [e.step for e in actual.Images("Samples")] == [200, 400, 600, 700]
    jumps = [(e.step, e.value) for e in actual.Scalars("Transition/rms/ema")]
    assert jumps == [(step + 1, pytest.approx(step / 1000)) for step in (400, 600, 700)]
    assert {len(actual.Tensors(tag)) for tag in actual.Tags()["tensors"]} == {1}


def test_a_run_that_stops_between_ticks_logs_what_another_logs(run: FakeRun) -> None:
    """The rows of transitions of the tick before the stop are logged at the tick after it."""
    transitions = JsonLines(run.directory / "transitions.jsonl")
    transitions.append({"images": 400, "Transition/rms/ema": 0.5})
    first = TensorBoard(count=0)
    begin_run(first, run)
    run_tick(first, run, 400)
    saved = first.save_state()
    register_observer(first).hook.on_error(run=run, error=KeyboardInterrupt())

    # The stop's checkpoint is at 500. The next process is killed before that of the tick at 600, and begins again.
    for images in ((600,), (600, 700)):
        resumed = TensorBoard(count=0)
        run.resumed = True
        run.stats = [{"images": 400}]
        run.move(500).state.last_tick = 400
        register_observer(resumed).hook.before_run(run=run)
        resumed.load_state(run, saved)
        for image in images:
            run_tick(resumed, run, image)
        register_observer(resumed).hook.on_error(run=run, error=KeyboardInterrupt())
    actual = read_events(run.directory)
    assert [(e.step, e.value) for e in actual.Scalars("Transition/rms/ema")] == [(401, 0.5)]
    assert [e.step for e in actual.Scalars("Loss/generator")] == [400, 600, 700]


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_that_is_killed_before_its_first_step_has_charts_and_config_once(run: FakeRun, begun: bool) -> None:
    """Whether or not the killed process had logged them."""
    (run.directory / "operative.gin").write_text("a.b = 1\n")
    (run.directory / "config.gin").write_text("a.b = 1\n")
    if begun:
        begin_run(TensorBoard(count=0), run)
    resumed = TensorBoard(count=0)
    begin_run(resumed, run, images=0)
    run_tick(resumed, run, 200)
    register_observer(resumed).hook.after_run(run=run, result={})
    actual = read_events(run.directory)
    tags = actual.Tags()["tensors"]
    assert {tag.partition("/")[0] for tag in tags} >= {"custom_scalars__config__", "operative.gin"}
    assert {len(actual.Tensors(tag)) for tag in tags} == {1}


def test_a_branch_that_is_resumed_before_its_first_tick_logs_hyperparameters(run: FakeRun) -> None:
    """Its clock does not begin at 0, and it has no tick of its own yet."""
    (run.directory / "config.gin").write_text("a.b = 1\n")
    resumed = TensorBoard(count=0)
    begin_run(resumed, run, images=500)
    run_tick(resumed, run, 600)
    register_observer(resumed).hook.after_run(run=run, result={})
    assert "_hparams_/experiment" in read_events(run.directory).summary_metadata


def test_numbers_that_could_not_be_logged_are_logged_at_the_next_tick(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a writer that is opened again: one that has failed accepts nothing any more."""
    (run.directory / "config.gin").write_text("a.b = 1\n")
    observer = TensorBoard(count=1)
    begin_run(observer, run)
    run_tick(observer, run, 200)
    flush = SummaryWriter.flush

    def fail(writer: SummaryWriter) -> None:
        flush(writer)  # on the disk, and yet an error
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(SummaryWriter, "flush", fail)
        for images in (400, 600):
            with pytest.raises(Exception, match="No space left"):
                run_tick(observer, run, images)
    saved = observer.save_state()
    assert [images for images, _ in saved["unlogged"]] == [400, 600]
    run_tick(observer, run, 800)
    register_observer(observer).hook.after_run(run=run, result={})
    actual = read_events(run.directory)
    assert [e.step for e in actual.Scalars("Loss/generator")] == [200, 400, 600, 800]
    assert [e.step for e in actual.Images("Samples")] == [200, 800], "grids of those ticks are not drawn again"
    assert observer.save_state()["unlogged"] == []


def stop_and_resume(observer: TensorBoard, run: FakeRun, images: int, last_tick: int) -> TensorBoard:
    """End the process of an observer between two ticks, and return that of the process that resumes the run."""
    saved = observer.save_state()
    register_observer(observer).hook.on_error(run=run, error=KeyboardInterrupt())
    resumed = TensorBoard(count=observer.count)
    run.resumed = True
    run.stats = [{"images": last_tick}]
    run.move(images).state.last_tick = last_tick
    hooks = register_observer(resumed).hook
    hooks.before_run(run=run)
    hooks.before_stage(run=run, stage=run.state.stage, state=run.state, continues=True)
    hooks.load_state(run=run, saved=saved)
    return resumed


@pytest.mark.parametrize("stops", [(4, 0), (204, 200), (404, 400), (604, 600)])
def test_reals_are_there_once_for_each_stage_wherever_a_run_is_stopped(
    stops: tuple[int, int], run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "draw_reals", lambda count: Image.new("L", (4, 4)))
    observer = TensorBoard(count=1)
    begin_run(observer, run)
    for images in (200, 400, 600, 800):
        if images - 200 == stops[1]:
            observer = stop_and_resume(observer, run, *stops)
        run_tick(observer, run, images)
    register_observer(observer).hook.after_run(run=run, result={})
    actual = read_events(run.directory)
    assert [e.step for e in actual.Images("Reals")] == [1, 401]
    assert [e.step for e in actual.Images("Samples")] == [200, 400, 600, 800]


def test_a_run_that_goes_back_to_the_end_of_a_stage_has_the_reals_of_the_next_once(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins that stage again."""
    monkeypatch.setattr(run, "draw_reals", lambda count: Image.new("L", (4, 4)))
    observer = TensorBoard(count=1)
    begin_run(observer, run)
    for images in (200, 400):
        run_tick(observer, run, images)
    saved = observer.save_state()
    for _ in range(2):
        hooks = register_observer(observer).hook
        hooks.before_stage(run=run.move(404), stage=run.state.stage, state=run.state, continues=False)
        hooks.load_state(run=run, saved=saved)
    run_tick(observer, run, 600)
    hooks.after_run(run=run, result={})
    assert [e.step for e in read_events(run.directory).Images("Reals")] == [1, 401]


def test_tensorboard_that_is_added_as_a_run_is_resumed_has_all_but_the_ticks_before(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "draw_reals", lambda count: Image.new("L", (4, 4)))
    for name in ("config.gin", "operative.gin"):
        (run.directory / name).write_text("a.b = 1\n")
    run.stats = [{"images": 200}, {"images": 400}, {"images": 600}]
    observer = TensorBoard(count=1)
    begin_run(observer, run, images=600)
    # Its process is killed before it has ticked.
    observer = stop_and_resume(observer, run, 604, 600)
    run_tick(observer, run, 800)
    register_observer(observer).hook.after_run(run=run, result={})
    actual = read_events(run.directory)
    assert {"_hparams_/experiment", "custom_scalars__config__"} <= actual.summary_metadata.keys()
    assert [e.step for e in actual.Tensors("operative.gin/text_summary")] == [0]
    assert [e.step for e in actual.Images("Reals")] == [401]
    assert [e.step for e in actual.Scalars("Loss/generator")] == [800]


def test_the_config_is_logged_again_where_a_run_is_resumed_with_another(run: FakeRun) -> None:
    operative = run.directory / "operative.gin"
    operative.write_text("a.b = 1\n")
    observer = TensorBoard()
    begin_run(observer, run)
    run_tick(observer, run, 200)
    operative.write_text("a.b = 2\n")
    for images in (204, 208):
        observer = stop_and_resume(observer, run, images, 200)
    run_tick(observer, run, 400)
    observer = stop_and_resume(observer, run, 404, 400)
    run_tick(observer, run, 600)
    register_observer(observer).hook.after_run(run=run, result={})
    texts = read_events(run.directory).Tensors("operative.gin/text_summary")
    shown = [(event.step, event.tensor_proto.string_val[0].decode()) for event in texts]
    assert shown == [(0, "    a.b = 1\n"), (200, "    a.b = 2\n")]


def test_tensorboard_without_a_grid_generates_nothing(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "generate", None)
    observer = TensorBoard(count=0)
    begin_run(observer, run)
    run_tick(observer, run, 200)
    register_observer(observer).hook.after_run(run=run, result={})
    assert read_events(run.directory).Tags()["images"] == []


# Progress


def simulate_terminal(observer: Progress) -> None:
    observer._console = Console(
        stderr=True, force_terminal=True, force_interactive=True, width=100, legacy_windows=False
    )


def test_progress_prints_one_plain_line_a_tick(
    run: FakeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    clock = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    observer = Progress()
    begin_run(observer, run)
    for images in range(4, 1001, 4):
        clock[0] = images / 100
        register_observer(observer).hook.after_step(
            run=run.move(images), stage=run.state.stage, state=run.state, losses={}
        )
        if images % 200 == 0:
            run_tick(observer, run, images)
    for name in ("growth.gif", "events.out.tfevents.1"):
        (run.directory / name).touch()
    register_observer(observer).hook.after_run(run=run, result={"images": 1000})
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    first, plan, *ticks = err.splitlines()
    assert first == f"training {run.directory}"
    assert plan.startswith("  1,000 images at 7x7, 14x14. Ctrl-C saves and stops")
    assert ticks[2].startswith("stage 2/2 14x14  fade  alpha 0.50  600 of 1,000 images  ")
    # Two spells of 2 s for 200 images of 7 px, one for 200 of 14 px: 400 images of 14 px at the pace of the median.
    assert ticks[2].endswith("  100 images/s  elapsed 0:06  about 0:08 left  generator 0.500")
    assert [line.split()[1] for line in ticks[:5]] == ["1/2", "1/2", "2/2", "2/2", "2/2"]
    assert ticks[5].startswith("1,000 images, 0:10")
    assert ticks[6:] == [f"  {run.directory / 'growth.gif'}", f"  tensorboard --logdir {run.directory}"]


@pytest.mark.parametrize("every", [None, "phase", 100, 300, 1_700, {7: 100, 14: 300}])
def test_progress_finds_the_next_grid_that_samples_draw(every: int | str | dict[int, int] | None, run: FakeRun) -> None:
    run.experiment.tick = 100
    ticks = list(list_planned_ticks(run.schedule, 100))
    for images in (0, 60, 100, 350, 400, 500, 800, 850):
        drawn = next(tick.images for tick in ticks if tick.images > images and (tick.is_early or tick.is_due(every)))
        assert progress.find_next_grid(run.move(images), every) == drawn


def test_progress_says_where_to_look_at_the_start(run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run.experiment = SimpleNamespace(tick=800, observers=[Samples(), Growth()], pictures=PictureSettings())
    begin_run(Progress(), run)
    _, _, look, film = capsys.readouterr().err.splitlines()
    # A 16th of the tick.
    assert re.fullmatch(rf"  look now: {run.directory / 'samples'}  the next grid .* at 50 images", look)
    assert film.startswith(f"  the film: {run.directory / 'growth.gif'}")

    # For a run without grids.
    run.experiment.observers = []
    assert len(progress.describe_plan(run)) == 1


def test_progress_announces_no_stage_that_begins_after_the_end(run: FakeRun) -> None:
    planned = replace(run.schedule, total=run.schedule.stages[0].budget)
    run.experiment = SimpleNamespace(observers=[])
    run.schedule = planned
    (line,) = progress.describe_plan(run)
    assert line.startswith(f"{planned.total:,} images at {planned.stages[0].size}. Ctrl-C")


def test_progress_announces_no_training_of_a_complete_run(run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    begin_run(Progress(), run, images=run.schedule.total)
    assert capsys.readouterr().err == ""
    run.state.ended = True
    begin_run(Progress(), run, images=600)
    assert capsys.readouterr().err == ""


def test_progress_says_that_a_plugin_ended_the_run(run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    observer = Progress()
    begin_run(observer, run)
    capsys.readouterr()
    run.state.ended = True
    register_observer(observer).hook.after_run(run=run, result={"images": 600})
    said = capsys.readouterr().err
    assert said.startswith("600 images of 1,000, as a plugin ended the run (should_end), 0:")


@pytest.mark.parametrize("ending", ["after_run", "on_error"])
def test_progress_in_a_terminal_shows_and_leaves_it_clean(
    run: FakeRun, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    observer = Progress()
    simulate_terminal(observer)
    stderr = sys.stderr
    begin_run(observer, run)
    register_observer(observer).hook.after_step(run=run.move(600), stage=run.state.stage, state=run.state, losses={})
    run_tick(observer, run, 600)
    print("for machines")
    getattr(register_observer(observer).hook, ending)(run=run, result={"images": 600}, error=KeyboardInterrupt())
    assert sys.stderr is stderr
    out, err = capsys.readouterr()
    assert out == "for machines\n"
    assert "stage 2/2 14x14  fade  alpha 0.50" in err
    assert "alpha 0.50  600 of" not in err, "the plain line was printed too"
    assert "generator 0.500" in err
    assert err.count("\x1b[?25l") == err.count("\x1b[?25h") == 1, "the cursor was hidden and not shown again"
    assert err.rindex("\x1b[?25h") > err.rindex("stage 2/2")


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_says_that_it_compiles(
    run: FakeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    observer = Progress()
    if terminal:
        simulate_terminal(observer)
    begin_run(observer, run, 600)
    arguments = {"run": run, "stage": run.state.stage, "state": run.state, "net": "generator"}
    register_observer(observer).hook.before_compile(**arguments)
    register_observer(observer).hook.on_error(run=run, error=KeyboardInterrupt())
    err = capsys.readouterr().err
    assert "stage 2/2 14x14" in err and "compiling the generator's step" in err


def test_progress_renews_the_display_at_most_four_times_a_second(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    drawn = []
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(Progress, "_refresh", lambda self, run: drawn.append(clock[0]))
    observer = Progress()
    simulate_terminal(observer)
    begin_run(observer, run)
    for step in range(1000):
        clock[0] = step / 100
        observer.after_step(run, run.state)
    observer.on_error()
    assert 36 <= len(drawn) <= 41


def test_an_error_before_the_start_is_handled() -> None:
    for observer in (Progress(), TensorBoard()):
        assert register_observer(observer).hook.on_error(run=None, error=ValueError()) == []


def test_pace_is_measured_over_the_last_seconds() -> None:
    pace = progress.Pace()
    assert pace.images_per_second == 0
    for second in range(100):
        pace.mark(second, 10 * second if second < 50 else 500 + 30 * (second - 50), 1)
    assert pace.images_per_second == pytest.approx(30)
    slow = progress.Pace()
    slow.mark(0, 0, 1)
    slow.mark(60, 120, 1)
    assert slow.images_per_second == 2


def test_time_left_counts_images_by_their_height() -> None:
    schedule = ScheduleSettings((7, 14, 28), 100, 300, 4, 1500).resolve(10, 1, 0)
    assert progress.estimate_work_left(schedule, [0], 100) == 200 * 7 + 400 * 14 + 800 * 28
    assert progress.estimate_work_left(schedule, [0, 300], 500) == 200 * 14 + 800 * 28
    assert progress.estimate_work_left(schedule, [0, 300, 700], 1500) == 0
    cut = ScheduleSettings((7, 14, 28), 100, 300, 4, 400).resolve(10, 1, 0)
    assert progress.estimate_work_left(cut, [0], 0) == 300 * 7 + 100 * 14


def test_one_bad_tick_does_not_move_the_estimate() -> None:
    """Ticks of 100 images of 7 px take 4 s; the third takes 400 s. The stage that follows starts with what is known."""
    pace = progress.Pace()
    pace.begin_stage(0.0, 0)
    now = 0.0
    for tick in range(1, 7):
        now += 400.0 if tick == 3 else 4.0
        pace.mark(now, 100 * tick, 7)
        if tick < progress.LEAST_SPELLS:
            assert pace.usual_seconds is None
        else:
            assert pace.usual_seconds == pytest.approx(4.0 / 100 / 7)
    pace.begin_stage(now + 60.0, 600)
    assert pace.images_per_second == 0
    assert pace.usual_seconds == pytest.approx(4.0 / 100 / 7)


def test_a_lasting_change_of_speed_moves_the_estimate() -> None:
    pace = progress.Pace()
    pace.begin_stage(0.0, 0)
    images = 0
    for second in range(2, 200, 2):
        images += 60 if second < 100 else 20
        pace.mark(second, images, 1)
    assert pace.usual_seconds == pytest.approx(2 / 20)


def test_durations_are_formatted() -> None:
    assert [progress.format_duration(s) for s in (0, 7.4, 59.6, 750, 11_100)] == [
        "0:00",
        "0:07",
        "1:00",
        "12:30",
        "3:05:00",
    ]


# All of them


class Untouchable(torch.Tensor):
    """A tensor that must not be read."""

    @classmethod
    def __torch_function__(cls, function: object, *_: object, **__: object) -> None:
        raise AssertionError(f"{function} waits for the device")


@pytest.mark.parametrize("factory", [Samples, Growth, TensorBoard, Progress])
def test_no_observer_touches_tensors_between_ticks(
    factory: type, run: FakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    observer = factory()
    if factory is Progress:
        simulate_terminal(observer)
    begin_run(observer, run)
    secret = torch.zeros(()).as_subclass(Untouchable)
    run.state.generator = run.state.ema = run.state.means = secret
    monkeypatch.setattr(run, "generate", None)
    run.move(600)
    register_observer(observer).hook.after_step(
        run=run, stage=run.state.stage, state=run.state, losses={"Loss/generator": secret}
    )
    register_observer(observer).hook.on_error(run=run, error=ValueError())


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        (Samples, {"count": 0}, "count must be at least 1, and is 0"),
        (Growth, {"count": 0}, "count must be at least 1, and is 0"),
        (Growth, {"every": 0}, "every must be a whole number of at least 1, or .*, and is 0"),
        (Samples, {"every": "phases"}, "every must be a number of images, or 'phase', not 'phases'"),
        (TensorBoard, {"every": {7: None}}, "every must have images or 'phase' at each height, and has None"),
        (Coherence, {"every": 2.5}, "every must be a whole number of at least 1, or .*, and is 2.5"),
        (Growth, {"frame_ms": 10}, r"frame_ms must be in \[20, 60000\], and is 10"),
        (Growth, {"hold_ms": 60_001}, r"hold_ms must be in \[20, 60000\], and is 60001"),
        (TensorBoard, {"count": -1}, "count must be at least 0, and is -1"),
    ],
)
def test_wrong_arguments_name_themselves(factory: type, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        factory(**arguments)


def test_all_observers_are_registered() -> None:
    rows = {row.name: row.factory for row in observers.components()}
    assert rows == {
        "Samples": Samples,
        "Growth": Growth,
        "TensorBoard": TensorBoard,
        "Progress": Progress,
        "Coherence": Coherence,
        "Spectra": Spectra,
        "TransitionShock": TransitionShock,
        "WandB": observers.WandB,
        "MLflow": observers.MLflow,
        "Trackio": observers.Trackio,
    }
    assert {row.kind for row in observers.components()} == {"observers"}


def test_fresh_latents_differ_from_tick_to_tick_and_stay_the_same_at_one(run: FakeRun) -> None:
    run.experiment = SimpleNamespace(seed=0, latent_size=4, pictures=PictureSettings())
    first = choose_latents(run, 8, fresh=True)
    assert torch.equal(first, choose_latents(run, 8, fresh=True))
    run.state.images += 32
    assert not torch.equal(first, choose_latents(run, 8, fresh=True))
    assert torch.equal(choose_latents(run, 8, fresh=False), run.fixed_latents(8))
