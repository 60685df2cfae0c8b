"""Curve endpoints: areas and images to a quality, from made-up ticks and from rows of runs."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pggan_kit.ablation import endpoints as ends
from pggan_kit.ablation.endpoints import Tick
from pggan_kit.errors import RunError
from pggan_kit.runs.directory import RunDirectory

FID = {"FID": {"direction": "lower", "scale": "log"}}


def make_ticks(*stages: dict[int, float | None]) -> list[Tick]:
    """Return the ticks of stages, each with its values by the clock."""
    ticks = []
    begin = 0
    for number, values in enumerate(stages):
        ticks += [Tick(images, number, begin, value) for images, value in values.items()]
        begin = max(values)
    return ticks


def average_finely(values: dict[int, float], begin: int, end: int) -> float:
    """Return the geometric mean over images by a million-fold sum of the interpolated logarithm."""
    grid = begin + (np.arange(200_000) + 0.5) * (end - begin) / 200_000
    logs = np.interp(grid, list(values), np.log(list(values.values())))
    return float(np.exp(logs.mean()))


def test_an_area_is_a_geometric_mean_over_images_stage_by_stage() -> None:
    first = {40: 60.0, 100: 20.0}
    second = {150: 80.0, 250: 9.0, 300: 5.0}
    areas = ends.compute_areas(make_ticks(first, second), "log")
    assert areas[0] == pytest.approx(average_finely(first, 0, 100), rel=1e-6)
    assert areas[1] == pytest.approx(average_finely(second, 100, 300), rel=1e-6)
    assert areas[0] is not None and areas[1] is not None
    wanted = math.exp((100 * math.log(areas[0]) + 200 * math.log(areas[1])) / 300)
    assert areas[None] == pytest.approx(wanted), "no line joins two sizes"
    # By hand: 1 holds for 2 images, then a line from 1 to 3 over 2 images.
    assert ends.compute_areas(make_ticks({2: 1.0, 4: 3.0}), "plain") == {0: 1.5, None: 1.5}


def test_equal_variants_have_equal_areas_whatever_their_scale() -> None:
    """Ten per cent better at each tick is ten per cent better in the area: the margin means the same."""
    curve = {10: 50.0, 20: 30.0, 40: 12.0}
    one = ends.compute_areas(make_ticks(curve), "log")[None]
    other = ends.compute_areas(make_ticks({images: 0.9 * value for images, value in curve.items()}), "log")[None]
    assert one is not None and other == pytest.approx(0.9 * one)


def test_ticks_without_a_finite_value_are_left_out() -> None:
    whole = ends.compute_areas(make_ticks({10: 5.0, 30: 7.0}), "plain")
    assert ends.compute_areas(make_ticks({10: 5.0, 20: None, 30: 7.0}), "plain") == whole
    assert ends.compute_areas(make_ticks({10: None}, {20: 4.0}), "plain") == {0: None, 1: 4.0, None: None}
    assert ends.compute_areas(make_ticks({10: 5.0, 20: 0.0}), "log") == {0: 0.0, None: 0.0}, "0 is perfect"


def test_a_curve_that_ends_without_a_finite_value_has_no_area_and_is_not_censored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last value before the end would be that of a run that works: it has failed, unless it was good before."""
    assert ends.compute_areas(make_ticks({10: 5.0, 20: None}), "plain") == {0: None, None: None}
    assert ends.compute_areas(make_ticks({10: 5.0, 20: None}, {30: 4.0}), "plain") == {0: None, 1: 4.0, None: None}

    monkeypatch.chdir(tmp_path)
    quantities = ends.list_endpoint_quantities(["FID"], {"FID": 4.0}, FID, ["4x4"])
    curves = {"never": [9.0, 5.0, None], "before": [9.0, 4.0, None], "censored": [9.0, None, 5.0]}
    rows = {}
    for name, values in curves.items():
        run = write_run(name, [make_row(10 * (place + 1), 0, value) for place, value in enumerate(values)])
        rows[name] = {
            row["metric"]: row for row in ends.measure_endpoints(run, ["FID"], {"FID": 4.0}, quantities, ["4x4"])
        }
    reached = {
        name: (own["images_to_FID_4"]["value"], own["images_to_FID_4"]["censored"]) for name, own in rows.items()
    }
    assert reached == {"never": (None, None), "before": (20.0, None), "censored": (None, 30)}
    assert [name for name, own in rows.items() if own["FID_area"]["value"] is None] == ["never", "before"]


def find(*stages: dict[int, float | None], quality: float, direction: str = "lower", scale: str = "log") -> Any:
    return ends.find_images_to_quality(make_ticks(*stages), quality, direction, scale, len(stages) - 1)


def test_images_to_a_quality_lie_between_two_ticks() -> None:
    first = {100: 2.0}
    last = {200: 100.0, 300: 10.0, 400: 1.0}
    assert find(first, last, quality=10.0) == 300, "values at another size count for nothing"
    assert find(first, last, quality=math.sqrt(10)) == pytest.approx(350)
    assert find(first, last, quality=100.0) == 200 and find(first, last, quality=0.5) is None
    assert find({1: 0.2, 2: 0.4, 3: 0.9}, quality=0.5, direction="higher", scale="plain") == pytest.approx(2.2)
    assert find({1: None, 2: 8.0, 3: None, 4: 2.0}, quality=4.0) == pytest.approx(3.0)
    assert find({10: 8.0, 20: 0.0}, quality=4.0) == 20, "0 has no logarithm to interpolate"
    assert find({10: 0.0, 20: 5.0}, quality=2.0, direction="higher") == 20, "nor has one before"
    assert find({10: 8.0, 20: 3.0, 30: 9.0}, quality=8.5) == 10, "the first time counts"


def test_censored_times_are_compared_by_the_log_rank_test() -> None:
    """By the sums over events of observed and expected counts (Mantel 1966), in float64."""
    own = [(300.0, True), (350.0, True), (420.0, True), (600.0, False), (600.0, False)]
    other = [(200.0, True), (300.0, True), (310.0, True), (400.0, True), (600.0, False)]
    observed = expected = variance = 0.0
    for time in sorted({time for time, reached in own + other if reached}):
        at_risk = [sum(t >= time for t, _ in runs) for runs in (own, other)]
        events = [sum(t == time and reached for t, reached in runs) for runs in (own, other)]
        n, d = sum(at_risk), sum(events)
        observed += events[0]
        expected += d * at_risk[0] / n
        if n > 1:
            variance += d * at_risk[0] * at_risk[1] * (n - d) / (n * n * (n - 1))
    wanted = 2 * stats.norm.sf(abs(observed - expected) / math.sqrt(variance))
    assert ends.compare_times(own, other) == pytest.approx(wanted)
    assert ends.compare_times(own[3:], other[4:]) is None and ends.compare_times(own, []) is None
    assert ends.compare_times(own, own) == pytest.approx(1.0)


def write_run(name: str, rows: list[dict[str, Any]], origin: dict[str, Any] | None = None) -> RunDirectory:
    """Write the files of a run that its ticks are read from."""
    folder = Path(name)
    folder.mkdir()
    about: dict[str, Any] = {"plugins": []}
    if origin is not None:
        about["from"] = origin
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "stats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunDirectory(folder)


def make_row(images: int, stage: int, value: Any = ...) -> dict[str, Any]:
    row = {"images": images, "Progress/stage": stage}
    return row if value is ... else {**row, "Metrics/FID": value}


def test_ticks_are_those_of_the_trunk_up_to_the_branch_and_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick that a resumed run wrote again counts once; one where nothing was measured is none."""
    monkeypatch.chdir(tmp_path)
    write_run("trunk", [make_row(10, 0, 9.0), make_row(20, 0, 7.0), make_row(28, 1, 99.0)])
    origin = {"run": str(tmp_path / "trunk"), "images": 20}
    rows = [make_row(25, 1, 50.0), make_row(30, 1), make_row(35, 1, None), make_row(25, 1, 6.0), make_row(40, 1, 5.0)]
    run = write_run("run", rows, origin)
    ticks = ends.read_ticks(run, "FID")
    assert ticks == [Tick(10, 0, 0, 9.0), Tick(20, 0, 0, 7.0), Tick(25, 1, 20, 6.0), Tick(35, 1, 20, None), ticks[-1]]
    assert ticks[-1] == Tick(40, 1, 20, 5.0)

    quantities = ends.list_endpoint_quantities(["FID"], {"FID": 2.0}, FID, ["4x4", "8x8"])
    found = ends.measure_endpoints(run, ["FID"], {"FID": 2.0}, quantities, ["4x4", "8x8"])
    values = {row["metric"]: row["value"] for row in found}
    areas = ends.compute_areas(ticks, "log")
    names = {"FID_area_4x4": areas[0], "FID_area_8x8": areas[1], "FID_area": areas[None], "images_to_FID_2": None}
    assert values == names and set(quantities) == set(names)
    assert found[-1]["censored"] == 40 and all("censored" not in row for row in found[:-1])
    places = {row["metric"]: (row["size"], row["stage"], row["images"]) for row in found}
    assert places.pop("FID_area_4x4") == ("4x4", 0, 20) and set(places.values()) == {("8x8", 1, 40)}
    reached = ends.measure_endpoints(run, ["FID"], {"FID": 6.0}, quantities, ["4x4", "8x8"])[-1]
    assert (reached["metric"], reached["value"], reached["censored"]) == ("images_to_FID_6", 25.0, None)


def test_a_stage_at_which_a_value_is_not_defined_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run("run", [make_row(10, 0), make_row(20, 1, 4.0), make_row(40, 1, 1.0)])
    areas = ends.compute_areas(ends.read_ticks(run, "FID"), "log")
    # Over the 30 images from 10: 4 holds for 10, then the geometric mean of 4 and 1 for 20.
    assert areas == {1: pytest.approx(4 ** (20 / 30)), None: pytest.approx(4 ** (20 / 30))}


def test_missing_ticks_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gone = write_run("gone", [make_row(25, 1, 6.0)], {"run": str(tmp_path / "trunk"), "images": 20})
    with pytest.raises(RunError, match=r"gone: the run that it began from is not there any more.*put that run back"):
        ends.read_ticks(gone, "FID")
    quantities = ends.list_endpoint_quantities(["FID"], {}, FID, ["4x4"])
    with pytest.raises(RunError, match=r"run measured no FID at its ticks: bind train\.metrics in ablate\.bindings"):
        ends.measure_endpoints(write_run("run", [make_row(10, 0)]), ["FID"], {}, quantities, ["4x4"])
    damaged = write_run("damaged", [{"images": 10}])
    with pytest.raises(RunError, match=r"stats\.jsonl is damaged: images 10 names no stage"):
        ends.read_ticks(damaged, "FID")


def test_a_log_rank_test_without_anything_to_compare_is_no_warning() -> None:
    """Whenever a run reached the quality, the other variant had none left."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ends.compare_times([(5.0, True)], [(5.0, True)]) == 1.0
