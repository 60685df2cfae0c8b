"""The commands that list and remove resized copies."""

from __future__ import annotations

import gc
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from helpers.datasets import ArrayDataset, make_random_dataset
from helpers.forks import Fork, wait_until
from helpers.paths import ROOT
from PIL import Image

from pggan_kit.data.cached_copies import list_copies, remove_copies
from pggan_kit.data.sampler import open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.system import locks

Cli = Callable[..., Result]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the cache folder."""
    monkeypatch.setenv("PGGAN_KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build(name: str, *sizes: int, filter: str = "area") -> None:
    """Make copies of a data set, which nobody uses then."""
    source = make_random_dataset(10, name=name)
    source.location = f"/data/{name}"  # type: ignore[attr-defined]
    open_data(source, DataSettings(workers=1, filter=filter), [(size, size) for size in sizes], 0)
    gc.collect()


def set_last_use(name: str, days: float) -> None:
    """Set the times of the files of a data set's copies to so many days ago."""
    then = time.time() - days * 86_400
    (one,) = (copies for copies in list_copies(Path(os.environ["PGGAN_KIT_CACHE"])) if name in copies.dataset)
    for path in Path(os.environ["PGGAN_KIT_CACHE"], "pyramids").glob(f"{one.name}-*"):
        os.utime(path, (then, then))


def list_with(cli: Cli) -> list[dict[str, object]]:
    """Return what `data list --json` prints."""
    result = cli("data", "list", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_copies_are_listed_with_whose_they_are(cli: Cli, cache: Path) -> None:
    assert "no resized copies in" in cli("data", "list").output
    build("faces", 6, 3)
    build("faces", 3, filter="nearest")
    set_last_use("faces", 20)
    build("digits", 12)
    digits, faces = list_with(cli)
    assert (digits["dataset"], digits["images"], digits["sizes"]) == ("ArrayDataset /data/digits", 10, ["12x12"])
    assert (faces["dataset"], faces["sizes"]) == ("ArrayDataset /data/faces", ["3x3", "3x3 nearest", "6x6"])
    assert not (digits["in_use"] or digits["unfinished"] or faces["in_use"] or faces["unfinished"])
    stored = sum(path.stat().st_size for path in (cache / "pyramids").glob("*-*"))
    assert int(str(digits["bytes"])) + int(str(faces["bytes"])) == stored > 10 * (144 + 36 + 9)
    assert time.time() - float(str(faces["last_used"])) == pytest.approx(20 * 86_400, abs=3600)

    text = cli("data", "list").output
    assert re.search(r"ArrayDataset /data/faces .* 3x3, 3x3 nearest, 6x6 .* KiB", text), text
    (heads,) = (line for line in text.splitlines() if "last used" in line)
    assert all(re.search(r"\w", head) for head in re.split("[┃│|]", heads)[1:-1]), "a column has no name"

    # Using them counts.
    build("faces", 6)
    assert time.time() - float(str(list_with(cli)[0]["last_used"])) < 3600
    assert "faces" in str(list_with(cli)[0]["dataset"])


def test_copies_are_removed_by_name_by_age_and_all(cli: Cli, cache: Path) -> None:
    for name in ("faces", "digits", "cats"):
        build(name, 3, 6)
    set_last_use("cats", 31)
    result = cli("data", "prune", "--older-than", "30")
    assert result.exit_code == 0 and result.output.count("removed") == 1 and "/data/cats" in result.output
    assert sorted(str(one["dataset"])[-6:] for one in list_with(cli)) == ["/faces", "digits"]
    assert "nothing to remove" in cli("data", "prune", "--older-than", "30").output

    (faces,) = (one for one in list_with(cli) if "faces" in str(one["dataset"]))
    assert "nothing to remove" in cli("data", "prune", faces["name"], "--older-than", "1").output, "both must hold"
    answer = json.loads(cli("data", "prune", faces["name"], "--json").stdout)
    assert ([one["name"] for one in answer["removed"]], answer["kept"]) == ([faces["name"]], [])
    assert cli("data", "prune", "--all").output.count("removed") == 1
    assert list_with(cli) == []
    assert {path.suffix for path in (cache / "pyramids").iterdir()} == {".lock"}


def test_sheets_are_counted_and_removed_with_the_copies(cli: Cli, cache: Path, tmp_path: Path) -> None:
    """They show the user's pictures; sheets of a folder that the user named stay."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), 60 * number, np.uint8)).save(pictures / f"{number}.png")
    (pictures / "broken.png").write_bytes(b"none")
    override = (
        "-b",
        f"FOLDER = {str(pictures)!r}",
        "-b",
        "schedule.sizes = (4, 8)",
        "-b",
        "architectures.PGGAN.channels = 4",
    )
    config = ROOT / "experiments/my_images.gin"
    for words in ((), ("--out", tmp_path / "own")):
        result = cli("data", "build", config, *override, *words)
        assert result.exit_code == 0, result.stderr
    assert len(list((cache / "sheets").rglob("*.png"))) == len(list((tmp_path / "own").iterdir())) == 2

    (one,) = list_with(cli)
    assert one["images"] == 4, "the broken one is left out"
    stored = [path for part in ("pyramids", "sheets") for path in (cache / part).rglob("*.*") if path.suffix != ".lock"]
    assert one["bytes"] == sum(path.stat().st_size for path in stored if path.is_file())
    gc.collect()
    assert cli("data", "prune", "--all").exit_code == 0
    assert list((cache / "sheets").iterdir()) == list_with(cli) == []
    assert len(list((tmp_path / "own").iterdir())) == 2


def test_copies_that_are_used_stay(cli: Cli, cache: Path) -> None:
    source = make_random_dataset(10)
    data = open_data(source, DataSettings(workers=1), [(3, 3), (6, 6)], 0)
    assert [one["in_use"] for one in list_with(cli)] == [True]
    result = cli("data", "prune", "--all")
    assert result.exit_code == 0 and "kept, as it is in use: " in result.output
    images = data.level((3, 3)).images
    del data
    gc.collect()
    assert [one["in_use"] for one in list_with(cli)] == [True], "one level is enough"
    np.testing.assert_array_equal(images.shape, (10, 1, 3, 3))
    del images
    gc.collect()
    assert "removed" in cli("data", "prune", "--all").output

    # They are made again where they are needed.
    assert len(open_data(source, DataSettings(workers=1), [(3, 3), (6, 6)], 0)) == 10


def test_copies_that_another_process_makes_stay(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_slowly() -> None:
        source = ArrayDataset([np.zeros((8, 8, 1), np.uint8)] * 2, name="slow")
        read = source.image

        def image(i: int) -> np.ndarray:
            if i:
                (tmp_path / "reading").touch()
                time.sleep(600)
            return read(i)

        source.image = image  # type: ignore[method-assign]
        open_data(source, DataSettings(workers=1), [(4, 4)], 0)

    process = Fork(build_slowly)
    try:
        wait_until((tmp_path / "reading").exists, process)
        (slow,) = list_with(cli)
        assert (slow["in_use"], slow["unfinished"]) == (True, True)
        assert "kept, as it is in use" in cli("data", "prune", "--all").output
    finally:
        process.send_signal(9)
        process.wait()
    assert "removed" in cli("data", "prune", "--all").output
    assert list_with(cli) == []


def test_what_was_stopped_is_listed_and_removed(cli: Cli, cache: Path) -> None:
    source = make_random_dataset(200, name="stopped")
    read = source.image

    def image(i: int) -> np.ndarray:
        if i == 150:
            raise KeyboardInterrupt
        return read(i)

    source.image = image  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="stopped"):
        open_data(source, DataSettings(workers=1), [(3, 3)], 0)
    (one,) = list_with(cli)
    assert (one["dataset"], one["images"], one["sizes"]) == ("ArrayDataset", 200, [])
    assert (one["unfinished"], one["in_use"]) == (True, False)
    assert cli("data", "prune", "--all").exit_code == 0
    assert list_with(cli) == []


def test_nothing_is_removed_where_nobody_can_tell_whether_it_is_used(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("faces", 3)
    (one,) = list_copies(cache)
    monkeypatch.setattr(locks, "acquire", lambda path: None)
    assert not remove_copies(cache, one.name)
    assert [again.in_use for again in list_copies(cache)] == [True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what to remove: names that `pggan-kit data list` shows, --older-than DAYS, or --all"),
        (["--all", "x"], "--all removes all resized copies: leave it out"),
        (["--all", "--older-than", "3"], "--all removes all resized copies: leave it out"),
        (["0123"], r"there are no resized copies 0123: `pggan-kit data list` shows all"),
        (["../x"], r"there are no resized copies \.\./x"),
        (["--all", "--cache", ""], "--cache is empty"),
    ],
)
def test_wrong_words_remove_nothing(
    cli: Cli, refused: Callable[[Result, str], str], words: list[str], message: str
) -> None:
    build("faces", 3)
    refused(cli("data", "prune", *words), message)
    assert len(list_with(cli)) == 1


def test_a_cache_that_is_a_file_has_no_copies(cli: Cli, cache: Path) -> None:
    cache.write_text("no folder")
    assert list_with(cli) == []
    result = cli("data", "prune", "--all")
    assert result.exit_code == 0 and result.exception is None


@pytest.mark.parametrize("days", ["-1", "1.5", "soon", "9" * 400])
def test_a_wrong_number_of_days_removes_nothing(cli: Cli, days: str) -> None:
    build("faces", 3)
    result = cli("data", "prune", "--older-than", days)
    assert result.exit_code == 2 and "--older-than" in result.output
    assert len(list_with(cli)) == 1
