"""The settings `data.*`, their wrong values, and where resized images are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from pggan_kit.data.settings import DataSettings, parse_value_range
from pggan_kit.errors import SettingError
from pggan_kit.system.cache import cache_folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filter": "bicubic"}, r"^filter must be 'area', 'lanczos' or 'nearest', not 'bicubic'$"),
        ({"filter": "lanczoss"}, r"^filter must be .* not 'lanczoss' \(did you mean 'lanczos'\?\)$"),
        ({"filter": 3}, r"^filter must be .* not 3"),
        ({"mirror": "yes"}, r"^mirror must be True or False, not 'yes'"),
        ({"seed": -1}, r"^seed must be a whole number from 0 to 9223372036854775807, and is -1"),
        ({"cache": ""}, r"^cache must name a folder, or be None, not ''"),
        ({"cache": 3}, r"^cache must name a folder, or be None, not 3"),
        ({"workers": 0}, r"^workers must be a whole number of at least 1, or None for one per core, and is 0"),
        ({"workers": 1.5}, r"^workers must be a whole number .* and is 1\.5"),
        ({"device_memory": -1}, r"^device_memory must be at least 0, and is -1"),
    ],
)
def test_a_wrong_setting_names_itself_and_says_why(options: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        DataSettings(**options)  # type: ignore[arg-type]


def test_threads_are_the_workers_or_one_per_core() -> None:
    assert DataSettings(workers=3).count_threads() == 3
    assert DataSettings().count_threads() >= 1


def test_the_cache_folder_is_the_chosen_one_or_that_of_the_environment_or_of_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGGAN_KIT_CACHE", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "pggan_kit"
    monkeypatch.setenv("PGGAN_KIT_CACHE", "~/there")
    assert cache_folder() == tmp_path / "there"
    assert cache_folder("here") == Path("here")


@pytest.mark.parametrize(
    "value",
    [
        *("minmax", 3, (1, 0), (0, 0), (0, float("inf")), (0, "1"), (True, 2), (), (0, 1, 2), ((0, 1), 2)),
        *(("percentile",), ("percentile", 5), ("percentile", -1, 50), ("percentile", 50, 101), ("percentile", 90, 10)),
        [(0, 1), (3, 2)],
        (0, 10**400),
    ],
)
def test_wrong_value_ranges(value: object) -> None:
    with pytest.raises(SettingError, match=r"^value_range must be \(low, high\), such as \(0, 4095\), a list of such"):
        DataSettings(value_range=value)


def test_value_ranges_in_one_form() -> None:
    assert parse_value_range(None) is None
    assert parse_value_range("min_max") == ("min_max",)
    assert parse_value_range(["percentile", 1, 99]) == ("percentile", 1.0, 99.0)
    assert parse_value_range((0, 4095)) == ((0.0, 4095.0),)
    assert parse_value_range([[0, 1], (-1, 1)]) == ((0.0, 1.0), (-1.0, 1.0))
