"""The animation of two runs side by side, and what plots are made of."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pggan_kit.pictures.grid import image_grid, tile, untiled
from pggan_kit.report import film, plots
from pggan_kit.report.film import FADING_MS, LAST_MS, SWITCH_MS, USUAL_MS, Still, chosen_moments, side_by_side
from pggan_kit.report.pictures import ALPHAS, Pictures
from pggan_kit.report.records import RunRecord, stages_of

OPERATIVE = "train.seed = {seed}\ntrain.latent_size = 8\nobservers.Samples.count = 9\nobservers.Samples.fresh = False\n"


def rows_of(fades: bool) -> list[dict[str, Any]]:
    """4 px until 40; 8 px until 120, fading until 80 or not at all. A tick each 10."""
    return [
        {
            "images": clock,
            "Progress/stage": int(clock > 40),
            "Progress/size": 8 if clock > 40 else 4,
            "Progress/alpha": (clock - 40) / 40 if fades and 40 < clock < 80 else 1.0,
        }
        for clock in range(10, 121, 10)
    ]


def record(folder: Path, name: str, fades: bool, seed: int = 0, samples: bool = True, channels: int = 1) -> RunRecord:
    """A run of noise with its `samples/`: at each tick, and right after the growth."""
    rows, rng = rows_of(fades), np.random.default_rng(seed)
    run = RunRecord(name, folder / name, None, {}, "", OPERATIVE.format(seed=seed), rows, [], stages_of(rows, folder))
    (run.folder / "samples").mkdir(parents=True)
    if samples:
        for clock, size in [*((row["images"], row["Progress/size"]) for row in rows), (40, 8)]:
            images = rng.integers(0, 255, (9, size, size, channels), dtype=np.uint8)
            image_grid(images, 3).save(run.folder / f"samples/{clock:09d}-{size}x{size}.png")
    return run


def frames(content: bytes) -> list[tuple[np.ndarray, int]]:
    """Pixels and milliseconds."""
    found = []
    with Image.open(io.BytesIO(content)) as picture:
        for number in range(picture.n_frames):
            picture.seek(number)
            found.append((np.asarray(picture.convert("RGB")), picture.info["duration"]))
    return found


@pytest.mark.parametrize("shape", [(9, 7, 7, 1), (5, 4, 6, 3), (1, 14, 14, 1), (3, 64, 32, 1)])
@pytest.mark.parametrize("scale", [1, 4])
def test_untiled_gives_back_what_was_tiled(shape: tuple[int, ...], scale: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = untiled(tile(images, 3, scale), *shape[1:3])
    assert found is not None
    assert (found == images).all()


def test_untiled_takes_nothing_else() -> None:
    sheet = tile(np.zeros((4, 8, 8, 1), np.uint8), 2)
    assert untiled(sheet[:-1], 8, 8) is None
    assert untiled(sheet, 7, 7) is None
    assert untiled(np.zeros((18, 18, 1), np.uint8), 8, 8) is None
    assert untiled(np.full_like(sheet, 34), 8, 8) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_a_film_of_samples_is_slow_across_the_switch(tmp_path: Path, channels: int) -> None:
    runs = [record(tmp_path, name, name == "soft", channels=channels) for name in ("soft", "hard")]
    made = side_by_side(runs, [Pictures(), Pictures()])
    assert made is not None and made.source == "samples"
    found = frames(made.content)
    assert [shown for _, shown in found] == [
        *[USUAL_MS] * 3,
        *[SWITCH_MS] * 2,  # the end of the small stage, and right after the growth
        *[FADING_MS] * 3,
        *[USUAL_MS] * 4,
        LAST_MS,
    ]
    assert made.frames == len(found) == 13
    assert len({pixels.shape for pixels, _ in found}) == 1
    width = found[0][0].shape[1]
    left, right = found[6][0][:, : width // 2 - 3], found[6][0][:, width // 2 + 3 :]
    assert left.shape == right.shape
    assert (left[-50:] == right[-50:]).all(), "the same noise"
    assert (left[26:90] != right[26:90]).any(), "one says that it fades"


def test_a_film_shows_each_sample_exactly(tmp_path: Path) -> None:
    runs = [record(tmp_path, name, True) for name in ("one", "two")]
    stills = film.from_samples(runs[0])
    assert [still[:3] for still in stills[3:7]] == [(40, 0, 1.0), (40, 1, 0.0), (50, 0, 0.25), (60, 0, 0.5)]
    with Image.open(tmp_path / "one/samples/000000060-8x8.png") as picture:
        sheet = np.asarray(picture)
    scale = (sheet.shape[0] - 2) // 3 // 8
    assert (sheet[2::1][: 8 * scale : scale, 2:][:, : 8 * scale : scale] == stills[6].images[0, ..., 0]).all()
    made = side_by_side(runs, [Pictures(), Pictures()])
    assert made is not None
    pixels = frames(made.content)[6][0][..., 0]
    cell = 88
    corner = pixels[-3 * (cell + 2) : -3 * (cell + 2) + cell, 2 : 2 + cell]
    assert (corner[::11, ::11] == stills[6].images[0, ..., 0]).all()


def test_other_seeds_or_no_samples_take_checkpoints(tmp_path: Path) -> None:
    runs = [record(tmp_path, "a", True, seed=0), record(tmp_path, "b", False, seed=1)]
    assert side_by_side(runs, [Pictures(), Pictures()]) is None, "nothing was drawn"
    rng = np.random.default_rng(0)

    def some(size: int) -> np.ndarray:
        return rng.integers(0, 255, (9, size, size, 1), dtype=np.uint8)

    pictures = [Pictures({0: some(4), 1: some(8)}, {0: 40, 1: 120}, {0: 1.0, 1: 1.0}, latent_size=8) for _ in runs]
    for drawn, alpha in zip(pictures, (0.0, 1.0), strict=True):
        drawn.begins[1] = alpha, some(8)
    pictures[0].fades[1] = [some(8) for _ in ALPHAS]
    made = side_by_side(runs, pictures)
    assert made is not None and made.source == "checkpoints"
    soft = film.from_checkpoints(runs[0], pictures[0])
    assert [still[:3] for still in soft[:4]] == [(40, 0, 1.0), (40, 1, 0.0), (44, 0, 0.125), (48, 0, 0.25)]
    assert soft[-1][:3] == (120, 0, 1.0)
    pictures[1].latent_size = 16
    assert side_by_side(runs, pictures) is None, "not the same latents"


def test_long_runs_are_thinned_outside_of_switches() -> None:
    still = np.zeros((1, 4, 4, 1), np.uint8)
    stills = [Still(clock, 0, 1.0, still) for clock in range(1, 1001)] + [Still(500, 1, 0.0, still)]
    stage = SimpleNamespace(start=500, fade_end=520)
    moments = chosen_moments([stills], [SimpleNamespace(stages=[SimpleNamespace(start=0, fade_end=None), stage])])  # type: ignore[list-item]
    assert len(moments) == film.MOST_FRAMES
    clocks = [moment[0] for moment, _ in moments]
    assert [clock for clock in clocks if 500 <= clock <= 520] == [500, 500, *range(501, 521)]
    assert (clocks[0], clocks[-1]) == (1, 1000)
    assert max(np.diff(clocks)) < 20


def test_damaged_samples_are_passed_over(tmp_path: Path) -> None:
    run = record(tmp_path, "a", True)
    file = run.folder / "samples/000000060-8x8.png"
    file.write_bytes(file.read_bytes()[:100])
    (run.folder / "samples/notes.png").touch()
    (run.folder / "samples/000000070-9x9.png").write_bytes((run.folder / "samples/000000080-8x8.png").read_bytes())
    assert [still.clock for still in film.from_samples(run)] == [10, 20, 30, 40, 40, 50, 70, 80, 90, 100, 110, 120]


# Plots


def axes_of(draw: plots.Draw) -> Any:
    axes = Figure().add_subplot()
    draw(axes)
    return axes


def lines_of(axes: Any) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def reach_of(patch: Any) -> tuple[float, float]:
    """Return the smallest and largest x of a span: a polygon before Matplotlib 3.9, a rectangle since."""
    x = patch.get_patch_transform().transform(patch.get_path().vertices)[:, 0]
    return min(x), max(x)


def test_curves_mark_stages_fades_and_floors() -> None:
    stages = stages_of(rows_of(True), Path())
    curve, floor = [(10, 1.0), (120, 2.0)], [(10, 0.5), (120, 0.4)]
    axes = axes_of(plots.curves({"a": curve}, "FID", stages, {"a": floor}, log=True))
    assert axes.get_yscale() == "log"
    assert lines_of(axes) == [([0, 0], [0, 1]), ([40, 40], [0, 1]), ([10, 120], [1, 2]), ([10, 120], [0.5, 0.4])]
    assert axes.lines[3].get_linestyle() == "--"
    (fade,) = axes.patches
    assert reach_of(fade) == (40, 70)
    assert [text.get_text().strip() for text in axes.texts] == ["4 px", "8 px"]
    assert axes_of(plots.curves({"a": [(1, 0.0)]}, "x", log=True)).get_yscale() == "linear"


def test_numbers_on_axes_are_plain() -> None:
    """Names may hold a $, so that nothing on a plot is read as a formula."""
    for values in ([0.0017, 0.0023], [1e-5, 1e5]):
        axes = axes_of(plots.paired({"a": dict(enumerate(values))}, "FID", log=True))
        axes.figure.canvas.draw()
        labels = [text.get_text() for text in axes.get_yticklabels(minor=False) + axes.get_yticklabels(minor=True)]
        told = [float(label) for label in labels if label]
        assert [value for value in told if values[0] * 0.7 <= value <= values[1] * 1.4], labels


def test_every_seed_is_a_thin_line_and_the_median_a_thick_one() -> None:
    members: Sequence[plots.Curve] = [[(1, 1.0), (2, 2.0)], [(1, 3.0), (2, 4.0)], [(1, 9.0), (2, 5.0), (3, 7.0)]]
    axes = axes_of(plots.seeds({"hard": members}, "FID"))
    assert lines_of(axes)[:3] == [([1, 2], [1, 2]), ([1, 2], [3, 4]), ([1, 2, 3], [9, 5, 7])]
    assert lines_of(axes)[3] == ([1, 2], [3, 4])
    widths = [line.get_linewidth() for line in axes.lines]
    assert max(widths[:3]) < widths[3]


def test_pairs_are_joined_and_means_are_geometric() -> None:
    axes = axes_of(plots.paired({"a": {0: 2.0, 1: 8.0}, "b": {0: 3.0}}, "FID", log=True))
    assert lines_of(axes)[:2] == [([0, 1], [2, 3]), ([0], [8])]
    assert lines_of(axes)[2][1] == pytest.approx([4, 4])


def test_without_logarithms_means_are_arithmetic() -> None:
    axes = axes_of(plots.paired({"a": {0: -2.0, 1: 8.0}}, "KID", log=False))
    assert axes.get_yscale() == "linear" and lines_of(axes)[-1][1] == pytest.approx([3, 3])


def test_intervals_stand_against_the_margin() -> None:
    axes = axes_of(plots.intervals({"a - b": (0.1, -0.2, 0.4), "c - b": (0.0, -0.1, 0.1)}, 0.05, "log FID"))
    assert ([-0.2, 0.4], [0, 0]) in lines_of(axes)
    (ground,) = axes.patches
    assert reach_of(ground) == pytest.approx((-0.05, 0.05))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a - b", "c - b"]


def test_long_curves_are_averaged() -> None:
    x, y = plots.thinned([(i, float(i % 2)) for i in range(4 * plots.MOST_POINTS)])
    assert len(x) == plots.MOST_POINTS
    assert x[:2] == [1.5, 5.5]
    assert set(y) == {0.5}


def test_alternative_texts_say_where_lines_go() -> None:
    text = plots.described({"a": [(10, 1.0), (1200, 0.25)], "b": []}, "losses")
    assert text == "Line chart of losses over images: a goes from 1 at 10 images to 0.25 at 1,200."


def test_plots_are_the_same_bytes_each_time() -> None:
    draw = plots.curves({"a $x$ <&>": [(1, 1.0), (2, 2.0)]}, "y")
    for form in ("svg", "pdf"):
        assert plots.rendered(draw, form) == plots.rendered(draw, form)
