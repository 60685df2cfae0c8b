"""Activities report themselves to whoever receives them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pggan_kit.system.activities import Activity, receive_activities, report_activity, track_items


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The descriptions of all reports of a test; `over` after that of an end."""
    lines: list[str] = []

    def receive(activity: Activity) -> None:
        lines.append(f"{activity.describe()}{' over' if activity.over else ''}")

    with receive_activities(receiver=receive):
        yield lines


def test_items_are_reported_as_they_are_done(said: list[str]) -> None:
    items = track_items("ab", "copying", 1200, "files")
    assert next(items) == "a"
    assert said == ["copying: 0 of 1,200 files"]
    assert list(items) == ["b"]
    assert said[1:] == ["copying: 1 of 1,200 files", "copying: 2 of 1,200 files", "copying: 2 of 1,200 files over"]


def test_what_cannot_be_counted_is_only_named(said: list[str]) -> None:
    with report_activity("compressing"):
        pass
    assert said == ["compressing", "compressing over"]


def test_an_activity_that_fails_is_over(said: list[str]) -> None:
    numbers = map(int, ["1", "two"])
    with pytest.raises(ValueError, match="two"):
        list(track_items(numbers, "failing", 2))
    assert said[-1] == "failing: 1 of 2 images over"


def test_without_a_receiver_nothing_is_reported(said: list[str]) -> None:
    with receive_activities(lambda activity: None):
        assert list(track_items([1], "silently", 1)) == [1]
    assert said == []
