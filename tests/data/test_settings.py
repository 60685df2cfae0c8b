"""The settings `data.*`, their wrong values, and where resized images are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from pggan_kit.data.settings import DataSettings
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
