"""The animation of two runs side by side, and the content of plots."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pggan_kit.pictures import gif
from pggan_kit.pictures.grid import image_grid, split_sheet, tile
from pggan_kit.report import film, plots
from pggan_kit.report.film import FADING_MS, LAST_MS, SWITCH_MS, USUAL_MS, choose_moments, make_film
from pggan_kit.report.run_pictures import ALPHAS, FadeStrip, RunPictures
from pggan_kit.report.run_record import RunRecord, Ticks, list_stages

OPERATIVE = "train.seed = {seed}\ntrain.latent_size = 8\nobservers.Samples.count = 9\nobservers.Samples.fresh = False\n"


def make_rows(fades: bool) -> list[dict[str, Any]]:
    """Return ticks, one each 10 images: 4 px until 40; 8 px until 120, fading until 80 or not at all."""
    rows = []
    for clock in range(10, 121, 10):
        alpha = 1.0
        if fades and 40 < clock < 80:
            alpha = (clock - 40) / 40
        row = {
            "images": clock,
            "Progress/stage": int(clock > 40),
            "Progress/size": 8 if clock > 40 else 4,
            "Progress/alpha": alpha,
        }
        rows.append(row)
    return rows


def make_record(
    folder: Path, name: str, fades: bool, seed: int = 0, samples: bool = True, channels: int = 1
) -> RunRecord:
    """Return a run of noise with its `samples/`: at each tick, and right after the growth."""
    rows = make_rows(fades)
    rng = np.random.default_rng(seed)
    run = RunRecord(
        name=name,
        folder=folder / name,
        trunk=None,
        about={},
        given="",
        operative=OPERATIVE.format(seed=seed),
        rows=Ticks(rows),
        transitions=[],
        stages=list_stages(rows, folder),
    )
    (run.folder / "samples").mkdir(parents=True)
    if not samples:
        return run

    # A grid at each tick, and one right after the growth.
    moments = [(row["images"], row["Progress/size"]) for row in rows]
    for clock, size in [*moments, (40, 8)]:
        images = rng.integers(0, 255, (9, size, size, channels), dtype=np.uint8)
        image_grid(images, 3).save(run.folder / f"samples/{clock:09d}-{size}x{size}.png")
    return run


def read_frames(content: bytes) -> list[tuple[np.ndarray, int]]:
    """Return the pixels and milliseconds of each frame."""
    frames = []
    with Image.open(io.BytesIO(content)) as picture:
        for number in range(picture.n_frames):
            picture.seek(number)
            frames.append((np.asarray(picture.convert("RGB")), picture.info["duration"]))
    return frames


@pytest.mark.parametrize("shape", [(9, 7, 7, 1), (5, 4, 6, 3), (1, 14, 14, 1), (3, 64, 32, 1)])
@pytest.mark.parametrize("scale", [1, 4])
def test_untiled_gives_back_what_was_tiled(shape: tuple[int, ...], scale: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    result = split_sheet(tile(images, 3, scale), *shape[1:3])
    assert result is not None
    assert (result == images).all()


def test_untiled_takes_nothing_else() -> None:
    sheet = tile(np.zeros((4, 8, 8, 1), np.uint8), 2)
    assert split_sheet(sheet[:-1], 8, 8) is None
    assert split_sheet(sheet, 7, 7) is None
    assert split_sheet(np.zeros((18, 18, 1), np.uint8), 8, 8) is None
    assert split_sheet(np.full_like(sheet, 34), 8, 8) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_a_film_of_samples_is_slow_across_the_switch(tmp_path: Path, channels: int) -> None:
    runs = [make_record(tmp_path, name, name == "soft", channels=channels) for name in ("soft", "hard")]
    made = make_film(runs, [RunPictures(), RunPictures()])
    assert made is not None and made.source == "samples"
    frames = read_frames(made.content)
    assert [shown for _, shown in frames] == [
        *[USUAL_MS] * 3,
        *[SWITCH_MS] * 2,  # the end of the small stage, and right after the growth
        *[FADING_MS] * 3,
        *[USUAL_MS] * 4,
        LAST_MS,
    ]
    assert made.frames == len(frames) == 13
    assert len({pixels.shape for pixels, _ in frames}) == 1

    # One frame within the fade, both halves.
    fading, _ = frames[6]
    width = fading.shape[1]
    left = fading[:, : width // 2 - 3]
    right = fading[:, width // 2 + 3 :]
    assert left.shape == right.shape
    assert (left[-50:] == right[-50:]).all(), "the same noise"
    assert (left[26:90] != right[26:90]).any(), "only one fades"


def test_a_film_shows_each_sample_exactly(tmp_path: Path) -> None:
    runs = [make_record(tmp_path, name, True) for name in ("one", "two")]
    stills = [sample.read() for sample in film.list_samples(runs[0])]
    assert [still and still[:3] for still in stills[3:7]] == [(40, 0, 1.0), (40, 1, 0.0), (50, 0, 0.25), (60, 0, 0.5)]
    with Image.open(tmp_path / "one/samples/000000060-8x8.png") as picture:
        sheet = np.asarray(picture)
    assert stills[6] is not None

    # The file's first image, and the still's.
    scale = (sheet.shape[0] - 2) // 3 // 8
    assert (sheet[2::1][: 8 * scale : scale, 2:][:, : 8 * scale : scale] == stills[6].images[0, ..., 0]).all()

    # The film's last row begins with the still's first image.
    made = make_film(runs, [RunPictures(), RunPictures()])
    assert made is not None
    pixels = read_frames(made.content)[6][0][..., 0]
    cell = 88
    corner = pixels[-3 * (cell + 2) : -3 * (cell + 2) + cell, 2 : 2 + cell]
    assert (corner[::11, ::11] == stills[6].images[0, ..., 0]).all()


def make_numbered_record(
    folder: Path, name: str, sizes: Sequence[int], count: int = 64, classes: int = 0, shown_classes: int = 0
) -> RunRecord:
    """Return a run with a tick, and a grid, for each size: the gray of latent i is 60 + 2 * i.

    Args:
        folder: Folder of the run's folder.
        name: The run's name.
        sizes: Heights, and widths, of the stages.
        count: Number of latents.
        classes: Number of classes of the data.
        shown_classes: Number of classes of the generator; 0 where it is unconditional.
    """
    rows = [
        {"images": 10 * (index + 1), "Progress/stage": index, "Progress/size": size, "Progress/alpha": 1.0}
        for index, size in enumerate(sizes)
    ]
    operative = OPERATIVE.format(seed=0).replace("count = 9", f"count = {count}")
    stages = list_stages(rows, folder)
    about = {"data": {"classes": classes, "channels": 1}}
    run = RunRecord(name, folder / name, None, about, "", operative, Ticks(rows), [], stages)
    (run.folder / "samples").mkdir(parents=True)
    for row in rows:
        size = row["Progress/size"]
        # What the observer draws: a square of rows, or a row for each class, and of large images what fits.
        columns = count // shown_classes if shown_classes else math.ceil(math.sqrt(count))
        numbers = np.arange(columns * (shown_classes or -(-count // columns)))
        grid = numbers.reshape(-1, columns)
        if shown_classes:
            grid = numbers.reshape(columns, shown_classes).T
        fits = max(1, 1022 // (-(-56 // size) * size + 2))
        shown = grid[:fits, :fits]
        images = np.full((shown.size, size, size, 1), 60, np.uint8) + 2 * shown.reshape(-1, 1, 1, 1).astype(np.uint8)
        image_grid(images, shown.shape[1]).save(run.folder / f"samples/{row['images']:09d}-{size}x{size}.png")
    return run


def list_latents(samples: Sequence[film.Sample]) -> list[list[int]]:
    """Return the numbers of the latents that samples show by their grays."""
    stills = [sample.read() for sample in samples]
    return [[(int(image[0, 0, 0]) - 60) // 2 for image in still.images] for still in stills if still is not None]


@pytest.mark.parametrize(
    ("sizes", "classes", "wanted"),
    [
        ((16, 128), 0, [0, 1, 2, 3, 4, 5, 6, 8, 9]),
        ((16, 128, 256), 0, [0, 1, 2, 8, 9, 10, 16, 17, 18]),
        ((16, 128, 256), 10, [0, 1, 2, 10, 11, 12, 20, 21, 22]),
        ((16, 512), 0, [0]),
        ((16, 512), 10, [0]),
    ],
)
def test_a_film_shows_the_latents_that_all_samples_have(
    tmp_path: Path, sizes: tuple[int, ...], classes: int, wanted: list[int]
) -> None:
    """Grids of large images are cropped, and those of conditional generators have their classes in rows."""
    runs = [
        make_numbered_record(tmp_path, "large", sizes, classes=10, shown_classes=classes),
        make_numbered_record(tmp_path, "small", (16, 32, 64), classes=10, shown_classes=classes),
    ]
    made = make_film(runs, [RunPictures(), RunPictures()])
    assert made is not None and made.source == "samples"
    frames = gif.disassemble_gif(made.content)
    assert len({frame.data[:9] for frame in frames}) == 1, "all frames have one size"

    samples = [film.list_samples(run) for run in runs]
    assert film.list_common_numbers(samples)[:9] == wanted
    for own in samples:
        assert list_latents([sample._replace(taken=tuple(wanted)) for sample in own]) == [wanted] * len(own)


def test_grids_that_show_unknown_latents_make_no_film(tmp_path: Path) -> None:
    run = make_numbered_record(tmp_path, "a", (16, 32), count=64)
    other = replace(run, operative=run.operative.replace("count = 64", "count = 50"))
    assert film.can_use_samples([run, run])
    assert film.list_samples(other) == [] and not film.can_use_samples([other, other])


def test_a_branch_shows_its_trunk_up_to_the_branch_alone(tmp_path: Path) -> None:
    """The trunk went on; the branch, from the end of the first stage, has fewer grids."""
    trunk = make_record(tmp_path, "trunk", True)
    own = make_record(tmp_path, "branch", False)
    branch = replace(own, trunk=trunk, about={"from": {"run": "trunk", "images": 40}})
    for path in (branch.folder / "samples").glob("*"):
        if path.name != "000000100-8x8.png":
            path.unlink()
    shown = [(sample.moment, sample.path.parts[-3]) for sample in film.list_samples(branch)]
    assert shown == [*[((clock, 0), "trunk") for clock in (10, 20, 30, 40)], ((100, 0), "branch")]

    # A trunk with other latents is of no use beside the branch.
    assert film.can_use_samples([branch, own])
    reseeded = replace(branch, trunk=replace(trunk, operative=OPERATIVE.format(seed=1)))
    assert not film.can_use_samples([reseeded, own])


def test_other_seeds_or_no_samples_take_checkpoints(tmp_path: Path) -> None:
    runs = [make_record(tmp_path, "a", True, seed=0), make_record(tmp_path, "b", False, seed=1)]
    assert make_film(runs, [RunPictures(), RunPictures()]) is None, "nothing was drawn"

    # What checkpoints draw, of a soft switch and of a hard one.
    rng = np.random.default_rng(0)

    def draw_images(size: int) -> np.ndarray:
        return rng.integers(0, 255, (9, size, size, 1), dtype=np.uint8)

    pictures = []
    for alpha in (0.0, 1.0):
        drawn = RunPictures(latent_size=8)
        drawn.ends = {0: draw_images(4), 1: draw_images(8)}
        drawn.sizes = {0: (4, 4), 1: (8, 8)}
        drawn.clocks = {0: 40, 1: 120}
        drawn.alphas = {0: 1.0, 1: 1.0}
        drawn.begins[1] = (alpha, draw_images(8))
        pictures.append(drawn)
    pictures[0].fades[1] = FadeStrip(list(ALPHAS), [draw_images(8) for _ in ALPHAS])

    # One film of both, as long as they have the same latents.
    made = make_film(runs, pictures)
    assert made is not None and made.source == "checkpoints"
    soft = film.take_checkpoints(runs[0], pictures[0])
    assert [still[:3] for still in soft[:4]] == [(40, 0, 1.0), (40, 1, 0.0), (44, 0, 0.125), (48, 0, 0.25)]
    assert soft[-1][:3] == (120, 0, 1.0)
    pictures[1].latent_size = 16
    assert make_film(runs, pictures) is None, "not the same latents"


def test_long_runs_lose_frames_outside_of_switches() -> None:
    every = [(clock, 0) for clock in range(1, 1001)] + [(500, 1)]
    stage = SimpleNamespace(start=500, fade_end=520)
    moments = choose_moments(every, [SimpleNamespace(stages=[SimpleNamespace(start=0, fade_end=None), stage])])  # type: ignore[list-item]
    assert len(moments) == film.MOST_FRAMES
    clocks = [moment[0] for moment, _ in moments]
    assert [clock for clock in clocks if 500 <= clock <= 520] == [500, 500, *range(501, 521)]
    assert (clocks[0], clocks[-1]) == (1, 1000)
    assert max(np.diff(clocks)) < 20


def test_long_fades_lose_frames_too() -> None:
    every = [(clock, 0) for clock in range(1, 2001)] + [(500, 1)]
    stage = SimpleNamespace(start=500, fade_end=1500)
    runs: Any = [SimpleNamespace(stages=[SimpleNamespace(start=0, fade_end=None), stage])]
    moments = choose_moments(every, runs)
    assert len(moments) == film.MOST_FRAMES
    shown = [milliseconds for _, milliseconds in moments]
    assert shown.count(SWITCH_MS) == 2 and shown.count(LAST_MS) == 1
    assert shown.count(FADING_MS) == round(film.FADING_SHARE * 87) == 52
    fading = [moment[0] for moment, milliseconds in moments if milliseconds == FADING_MS]
    assert max(np.diff(fading)) - min(np.diff(fading)) <= 1

    # Without other moments, fades get all frames.
    assert len(choose_moments(every[500:1500], runs)) == film.MOST_FRAMES


def test_a_film_that_is_too_large_has_fewer_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make_record(tmp_path, name, name == "soft") for name in ("soft", "hard")]
    whole = make_film(runs, [RunPictures(), RunPictures()])
    assert whole is not None
    monkeypatch.setattr(film, "MOST_BYTES", len(whole.content) // 2)
    monkeypatch.setattr(film, "LEAST_FRAMES", 3)
    made = make_film(runs, [RunPictures(), RunPictures()])
    assert made is not None and 4 <= made.frames < whole.frames
    assert len(made.content) <= len(whole.content) // 2
    shown = [milliseconds for _, milliseconds in read_frames(made.content)]
    assert shown.count(SWITCH_MS) == 2 and shown[-1] == LAST_MS

    monkeypatch.setattr(film, "MOST_BYTES", 1)
    least = make_film(runs, [RunPictures(), RunPictures()])
    assert least is not None and least.frames == 3


def test_only_samples_that_are_shown_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a run with thousands of ticks do not fit into memory."""
    runs = [make_record(tmp_path, name, True) for name in ("one", "two")]
    read: list[str] = []
    read_grid = film._read_grid

    def note_file(path: Path, height: int, width: int) -> np.ndarray | None:
        read.append(path.name)
        return read_grid(path, height, width)

    monkeypatch.setattr(film, "_read_grid", note_file)
    monkeypatch.setattr(film.choose_moments, "__defaults__", (5,))  # instead of `MOST_FRAMES`
    made = make_film(runs, [RunPictures(), RunPictures()])
    assert made is not None and made.frames == 5
    # One of each run says that there are some, and one of what mode they are.
    assert len(read) == 2 * (5 + 2)


def test_a_damaged_sample_leaves_the_one_before(tmp_path: Path) -> None:
    run = make_record(tmp_path, "a", True)
    samples = film.list_samples(run)
    samples[0].path.write_bytes(b"damaged")
    samples[5].path.write_bytes(b"damaged")
    moments = [sample.moment for sample in samples]
    shown = [still.clock for still in film.iterate_stills(samples, moments)]
    assert shown[:7] == [20, 20, 30, 40, 40, 40, 60]


def test_damaged_samples_are_passed_over(tmp_path: Path) -> None:
    run = make_record(tmp_path, "a", True)
    file = run.folder / "samples/000000060-8x8.png"
    file.write_bytes(file.read_bytes()[:100])
    (run.folder / "samples/notes.png").touch()
    (run.folder / "samples/000000070-9x9.png").write_bytes((run.folder / "samples/000000080-8x8.png").read_bytes())
    readable = [sample.clock for sample in film.list_samples(run) if sample.read() is not None]
    assert readable == [10, 20, 30, 40, 40, 50, 70, 80, 90, 100, 110, 120]


# Plots


def draw_axes(draw: plots.Draw) -> Any:
    """Return axes with a plot."""
    axes = Figure().add_subplot()
    draw(axes)
    return axes


def list_lines(axes: Any) -> list[tuple[list[float], list[float]]]:
    """Return x and y of all lines."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def find_extent(patch: Any) -> tuple[float, float]:
    """Return the smallest and largest x of a span: a polygon before Matplotlib 3.9, a rectangle since."""
    x = patch.get_patch_transform().transform(patch.get_path().vertices)[:, 0]
    return min(x), max(x)


def test_curves_mark_stages_fades_and_floors() -> None:
    stages = list_stages(make_rows(True), Path())
    curve = [(10, 1.0), (120, 2.0)]
    floor = [(10, 0.5), (120, 0.4)]
    axes = draw_axes(plots.plot_curves({"a": curve}, "FID", stages, {"a": floor}, log=True))
    assert axes.get_yscale() == "log"
    assert list_lines(axes) == [([0, 0], [0, 1]), ([40, 40], [0, 1]), ([10, 120], [1, 2]), ([10, 120], [0.5, 0.4])]
    assert axes.lines[3].get_linestyle() == "--"
    (fade,) = axes.patches
    assert find_extent(fade) == (40, 70)
    assert [text.get_text().strip() for text in axes.texts] == ["4 px", "8 px"]
    assert draw_axes(plots.plot_curves({"a": [(1, 0.0)]}, "x", log=True)).get_yscale() == "linear"


def test_numbers_on_axes_are_plain() -> None:
    """Names may hold a $, so that nothing on a plot is read as a formula."""
    for values in ([0.0017, 0.0023], [1e-5, 1e5]):
        axes = draw_axes(plots.plot_pairs({"a": dict(enumerate(values))}, "FID", log=True))
        axes.figure.canvas.draw()
        labels = [text.get_text() for text in axes.get_yticklabels(minor=False) + axes.get_yticklabels(minor=True)]
        numbers = [float(label) for label in labels if label]
        assert [value for value in numbers if values[0] * 0.7 <= value <= values[1] * 1.4], labels


def test_every_seed_is_a_thin_line_and_the_median_a_thick_one() -> None:
    members: Sequence[plots.Curve] = [[(1, 1.0), (2, 2.0)], [(1, 3.0), (2, 4.0)], [(1, 9.0), (2, 5.0), (3, 7.0)]]
    axes = draw_axes(plots.plot_seeds({"hard": members}, "FID"))
    assert list_lines(axes)[:3] == [([1, 2], [1, 2]), ([1, 2], [3, 4]), ([1, 2, 3], [9, 5, 7])]
    assert list_lines(axes)[3] == ([1, 2], [3, 4])
    widths = [line.get_linewidth() for line in axes.lines]
    assert max(widths[:3]) < widths[3]


def list_legend(axes: Any) -> list[str]:
    """Return the names in the legend, none without one."""
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def test_legends_list_what_has_a_line() -> None:
    """And a run has the colour of its place among all, also where others have no line."""
    curve = [(1, 1.0), (2, 2.0)]
    seeds = draw_axes(plots.plot_seeds({"hard": [curve], "soft": [], "apart": [[(1, 1.0)], [(2, 1.0)]]}, "FID"))
    assert list_legend(seeds) == ["hard", "apart"]
    curves = draw_axes(plots.plot_curves({"a": [], "b": curve, "c": curve}, "FID"))
    assert list_legend(curves) == ["b", "c"]
    assert [line.get_color() for line in curves.lines] == list(plots.COLOURS[1:3])
    assert list_legend(draw_axes(plots.plot_curves({"a": [], "b": curve}, "FID"))) == []
    assert list_legend(draw_axes(plots.plot_alphas({"a": [[]], "b": [curve, curve], "c": [curve]}, ()))) == ["b", "c"]


def test_names_with_an_underscore_are_in_legends() -> None:
    """Matplotlib leaves out labels that begin with one; the space before it has no width."""
    curve = [(1, 1.0), (2, 2.0)]
    summary = plots.summarize_curves([curve, curve])
    profile = {"share": [0.5], "low": [0.4], "high": [0.6]}
    drawn = [
        plots.plot_curves({"_a": curve, "b": curve}, "FID", floors={"_a": curve}),
        plots.plot_alphas({"_a": [curve], "b": [curve]}, ()),
        plots.plot_seeds({"_a": [curve, curve], "b": [curve]}, "FID"),
        plots.plot_bands({"_a": summary, "b": summary}, "FID"),
        plots.plot_profiles({"thresholds": [1.0], "variants": {"_a": profile, "b": profile}}, "FID", False),
        plots.plot_bars({"4": {"_a": 1.0, "b": 2.0}}, "pace"),
    ]
    for draw in drawn:
        names = [name.replace("\u200b", "") for name in list_legend(draw_axes(draw))]
        assert [name for name in names if "floor" not in name] == ["_a", "b"]


def test_pairs_are_joined_and_means_are_geometric() -> None:
    axes = draw_axes(plots.plot_pairs({"a": {0: 2.0, 1: 8.0}, "b": {0: 3.0}}, "FID", log=True))
    assert list_lines(axes)[:2] == [([0, 1], [2, 3]), ([0], [8])]
    assert list_lines(axes)[2][1] == pytest.approx([4, 4])


def test_without_logarithms_means_are_arithmetic() -> None:
    axes = draw_axes(plots.plot_pairs({"a": {0: -2.0, 1: 8.0}}, "KID", log=False))
    assert axes.get_yscale() == "linear" and list_lines(axes)[-1][1] == pytest.approx([3, 3])


def test_intervals_are_drawn_over_the_margin() -> None:
    axes = draw_axes(plots.plot_intervals({"a - b": (0.1, -0.2, 0.4), "c - b": (0.0, -0.1, 0.1)}, 0.05, "log FID"))
    assert ([-0.2, 0.4], [0, 0]) in list_lines(axes)
    (area,) = axes.patches
    assert find_extent(area) == pytest.approx((-0.05, 0.05))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a - b", "c - b"]


def test_long_curves_are_averaged() -> None:
    x, y = plots.thin_curve([(i, float(i % 2)) for i in range(4 * plots.MOST_POINTS)])
    assert len(x) == plots.MOST_POINTS
    assert x[:2] == [1.5, 5.5]
    assert set(y) == {0.5}


def test_alternative_texts_say_where_lines_begin_and_end() -> None:
    text = plots.describe_lines({"a": [(10, 1.0), (1200, 0.25)], "b": []}, "losses")
    assert text == "Line chart of losses over images: a goes from 1 at 10 images to 0.25 at 1,200."


def test_plots_are_the_same_bytes_each_time() -> None:
    draw = plots.plot_curves({"a $x$ <&>": [(1, 1.0), (2, 2.0)]}, "y")
    for form in ("svg", "pdf"):
        assert plots.render_plot(draw, form) == plots.render_plot(draw, form)
