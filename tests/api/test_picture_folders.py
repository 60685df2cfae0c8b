"""Train from folders of pictures: what is left out is said, what is there can be looked at, and a copy is as good."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from click.testing import Result
from helpers.forks import fork_ranks
from helpers.killing import assert_same_run
from PIL import Image

from pggan_kit import Component, hookimpl, torch_generator
from pggan_kit.api.generator import load_generator
from pggan_kit.api.prepare import prepare
from pggan_kit.api.train import resume
from pggan_kit.data.contents import describe_left_out
from pggan_kit.errors import DataError, Interrupted, PluginError, RunError
from pggan_kit.pictures import to_uint8
from pggan_kit.pictures.grid import BACKGROUND, split_sheet
from pggan_kit.system import content_hashes, distributed
from pggan_plugins.datasets import ImageFolder

FOLDER = (
    "train.dataset = @datasets.ImageFolder()",
    "datasets.ImageFolder.folder = 'images'",
    "datasets.ImageFolder.channels = 1",
)


def write_pictures(folder: Path, names: list[str], side: int = 16) -> None:
    """Write gray pictures, each of one value of its own."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, side), 40 + 10 * number, np.uint8)).save(path)


def read_sheet(path: Path, side: int) -> list[int]:
    """Return the value of each image in a sheet of images of one value."""
    sheet = np.asarray(Image.open(path))
    images = split_sheet(sheet.reshape(*sheet.shape[:2], -1), side, side)
    assert images is not None
    assert (images == images[:, :1, :1]).all()
    return [int(image[0, 0, 0]) for image in images]


CONTENTS = "7 images; 1 could not be read; 3 of other kinds (.HEIC 2, .json 1) were not read"


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder of seven pictures, one broken, and others that are not read."""
    folder = tmp_path / "images"
    write_pictures(folder, [f"{letter}.png" for letter in "bcdefgh"])
    (folder / "a.png").write_bytes(b"the first one is broken")
    for name in ("x.HEIC", "y.HEIC", "dataset.json"):
        (folder / name).write_text("{}")
    return folder


def test_whatever_is_left_out_is_reported_at_each_start(
    mixed: Path,
    tiny: Callable[..., str],
    cli: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    no_memory_count: None,
) -> None:
    config = tiny(*FOLDER, "datasets.ImageFolder.on_error = 'skip'", "schedule.sizes = (4, 8)")
    result = cli("config", "check", config)
    assert "the data set has 8 images; 3 of other kinds (.HEIC 2, .json 1) were not read" in result.output
    result = cli("plan", config)
    assert "the data set has 8 images; 3 of other kinds (.HEIC 2, .json 1) were not read" in result.output
    result = cli("data", "build", config, "--out", "sheets")
    assert result.exit_code == 0, result.output
    assert f"{CONTENTS}; at 4x4, 8x8 in " in result.output
    assert "look at sheets/reals-8x8.png" in result.output
    assert sorted(read_sheet(Path("sheets/reals-8x8.png"), 8)) == [40, 50, 60, 70, 80, 90, 100]

    # Twice from the cache, in which nothing tells of the broken one any more but the number of images.
    result = cli("train", config, "--run-dir", "run")
    assert result.exit_code == 0, result.output
    assert f"the data set has {CONTENTS}" in result.output
    assert f"the data set has {CONTENTS}" in Path("run/log.txt").read_text()
    recorded = json.loads(Path("run/run.json").read_text())["data"]
    assert recorded == {
        "images": 8,
        "channels": 1,
        "classes": 0,
        "class_names": [],
        "skipped": 1,
        "left_out": {".HEIC": 2, ".json": 1},
    }
    assert f"the data set has {CONTENTS}" in cli("resume", "run").output


def test_a_picture_that_is_added_is_the_only_one_that_is_read(
    tmp_path: Path, tiny: Callable[..., str], cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other tests have made copies of pictures that are equal.
    monkeypatch.setenv("PGGAN_KIT_CACHE", str(tmp_path / "cache"))
    write_pictures(tmp_path / "images", ["a.png", "b.png", "c.png"])
    config = tiny(*FOLDER)
    assert cli("data", "build", config).exit_code == 0
    write_pictures(tmp_path / "new", ["u.png", "v.png", "w.png", "x.png"])
    (tmp_path / "new" / "x.png").rename(tmp_path / "images" / "0.png")
    (tmp_path / "images" / "b.png").rename(tmp_path / "images" / "d.png")
    result = cli("data", "build", config, "--out", "sheets")
    wanted = "resized copies of 3 of 4 images are taken from those of an earlier version of the data: only the other 1"
    assert wanted in result.output
    assert sorted(read_sheet(Path("sheets/reals-8x8.png"), 8)) == [40, 50, 60, 70]
    copies = json.loads(cli("data", "list", "--json").stdout)
    assert sorted(one["images"] for one in copies) == [3, 4]
    assert {one["dataset"] for one in copies} == {f"ImageFolder {tmp_path / 'images'}"}
    assert copies[0]["sizes"] == ["4x4", "8x8", "16x16"]


def test_sheets_are_in_the_cache_where_nothing_else_is_asked_for(
    tmp_path: Path, tiny: Callable[..., str], cli: Callable[..., Result]
) -> None:
    write_pictures(tmp_path / "images", ["a.png", "b.png"])
    result = cli("data", "build", tiny(*FOLDER, f"data.cache = '{tmp_path / 'cache'}'"))
    shown = [Path(line.partition("look at ")[2]) for line in result.output.splitlines() if "look at" in line]
    assert [path.name for path in shown] == ["reals-4x4.png", "reals-8x8.png", "reals-16x16.png"]
    assert all(path.is_relative_to(tmp_path / "cache") for path in shown)
    assert sorted(read_sheet(shown[0], 4)) == [40, 50]
    (tmp_path / "file").touch()
    result = cli("data", "build", "tiny.gin", "--out", "file/sheets")
    assert result.exit_code == 2
    assert "cannot write the sheets of real images to file/sheets" in result.output


def test_samples_show_reals_of_each_stage_in_rows_of_classes(tmp_path: Path, train: Callable[..., Any]) -> None:
    write_pictures(tmp_path / "images", ["dog/a.png", "cat/a.png", "cat/b.png", "cat/c.png"])
    lines = (
        "datasets.ImageFolder.labels = True",
        "train.observers = [@observers.Samples()]",
        "observers.Samples.count = 6",
    )
    run = train(*FOLDER, *lines, run_dir="run")
    for side in (4, 8, 16):
        values = read_sheet(tmp_path / "run" / "samples" / f"reals-{side}x{side}.png", side)
        cats, dogs = values[:3], values[3:]
        assert sorted(cats) == [50, 60, 70]
        assert dogs == [40], "empty cells come last, and are left out"
    assert json.loads(Path("run/run.json").read_text())["data"]["class_names"] == ["cat", "dog"]
    assert run.draw_reals(2).mode == "L"
    assert BACKGROUND not in (40, 50, 60, 70)


def test_a_class_can_be_sampled_by_name_or_number(
    tmp_path: Path, train: Callable[..., Any], cli: Callable[..., Result]
) -> None:
    write_pictures(tmp_path / "images", ["2/a.png", "10/a.png", "shoe/a.png", "shoe/b.png"])
    conditional = ("datasets.ImageFolder.labels = True", "architectures.PGGAN.conditioning = 'projection'")
    train(*FOLDER, *conditional, "schedule.sizes = (4,)", run_dir="run")
    generator = load_generator("run")
    latents = torch.randn(3, generator.latent_size, generator=torch_generator(5, "sample"))

    def draw(*args: str) -> np.ndarray:
        result = cli("sample", "run", "--count", "3", "--seed", "5", "--out", "a.npz", *args)
        assert result.exit_code == 0, result.output
        images: np.ndarray = np.load("a.npz")["images"]
        return images

    # The sub-folders' names, sorted as text, are the classes 0, 1, 2; a name comes before a number.
    for wanted, label in (("shoe", 2), ("2", 1), ("10", 0), ("0", 0), ("1", 1)):
        expected = to_uint8(generator(latents, torch.full((3,), label)))
        np.testing.assert_array_equal(draw("--class", wanted), expected, err_msg=wanted)
    assert not np.array_equal(draw("--class", "shoe"), draw("--class", "10"))
    np.testing.assert_array_equal(draw(), to_uint8(generator(latents, torch.arange(3))))

    for wanted in ("sho", "3", "-1", ""):
        result = cli("sample", "run", "--out", "b.npz", "--class", wanted)
        assert result.exit_code == 2
        message = " ".join(result.output.split())
        assert "there is no such class; give a number from 0 to 2, or one of 10, 2, shoe" in message
        assert ("did you mean shoe" in message) == (wanted == "sho")
    assert not Path("b.npz").exists()

    content = json.loads(Path("run/run.json").read_text())
    for damage in ({"class_names": 5}, {"class_names": [1]}, []):
        Path("run/run.json").write_text(json.dumps({**content, "data": damage}))
        result = cli("sample", "run", "--out", "b.npz", "--class", "shoe")
        assert "run.json is damaged" in result.output


def test_a_class_of_an_unconditional_generator_is_refused(
    train: Callable[..., Any], cli: Callable[..., Result]
) -> None:
    train(run_dir="run")
    result = cli("sample", "run", "--out", "b.npz", "--class", "0")
    assert result.exit_code == 2
    assert "--class 0: the generator is unconditional; leave --class out" in " ".join(result.output.split())


def test_a_copied_run_and_data_set_go_on_bit_for_bit(tmp_path: Path, train: Callable[..., Any]) -> None:
    class Stop:
        at: ClassVar[int] = 0

        @hookimpl
        def after_step(self, state: Any) -> None:
            if state.images == self.at:
                raise Interrupted(15, "stopped")

    write_pictures(tmp_path / "images", [f"{letter}.png" for letter in "abcdefgh"])
    row = Component("observers", "Stop", Stop)
    lines = (*FOLDER, "train.observers = [@observers.Stop()]")
    train(*lines, plugins=(row,), run_dir="whole")
    Stop.at = 20
    with pytest.raises(Interrupted):
        train(*lines, plugins=(row,), run_dir="stopped")
    Stop.at = 0

    # Copied as `tar c | tar x` does it, without the fractions of times, and worse: in another order and without times.
    (tmp_path / "copy").mkdir()
    for path in sorted((tmp_path / "images").iterdir(), reverse=True):
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "copy").rename(tmp_path / "images")
    (tmp_path / "images" / "notes.txt").write_text("no picture, and so no other data set")
    shutil.copytree("stopped", "elsewhere", copy_function=shutil.copyfile)
    resume("elsewhere", plugins=[row])
    assert_same_run(tmp_path / "whole", tmp_path / "elsewhere")

    # One pixel that differs is another data set.
    write_pictures(tmp_path / "images", ["a.png", "b.png"][::-1])
    with pytest.raises(RunError, match="another data set"):
        resume("stopped", plugins=[row])


def test_sixteen_bit_pictures_are_reported_when_copies_are_made(
    tmp_path: Path, tiny: Callable[..., str], cli: Any
) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)).save(tmp_path / "images" / "a.png")
    config = tiny(*FOLDER)
    expected = "16-bit pictures have values from 0 to 255 only, which become 1 of 256 levels"
    assert expected in " ".join(cli("data", "build", config).output.split())
    ranged = cli("data", "build", config, "-b", "datasets.ImageFolder.value_range = (0, 255)")
    assert "16-bit" not in ranged.output


def test_padding_that_a_stage_would_crop_is_refused(
    tmp_path: Path, tiny: Callable[..., str], cli: Any, train: Callable[..., Any]
) -> None:
    write_pictures(tmp_path / "images", ["a.png", "b.png"])
    oblong = ("schedule.sizes = ((4, 8), (8, 16))", "datasets.ImageFolder.fit = 'pad'")
    message = r"aspect ratio 1:1, and the stage 4x8 would .*ImageFolder\.size = \(4, 8\)"
    with pytest.raises(DataError, match=message):
        train(*FOLDER, *oblong, run_dir="run")
    assert not Path("run").exists()

    # By each command that looks at the stages; and of an evaluation's own data set as well.
    config = tiny(*FOLDER, *oblong)
    for command in (["plan"], ["data", "build"], ["config", "check"]):
        result = cli(*command, config)
        assert result.exit_code == 2 and re.search(message, result.stderr), result.output
    own = ("evaluation.dataset = @test/datasets.ImageFolder()", "test/datasets.ImageFolder.folder = 'images'")
    square = ("test/datasets.ImageFolder.fit = 'pad'", "schedule.sizes = ((4, 8), (8, 16))")
    result = cli("config", "check", tiny(*FOLDER, *own, *square))
    assert result.exit_code == 2 and re.search(message, result.stderr), result.output
    train(*FOLDER, *oblong, "datasets.ImageFolder.size = (4, 8)", run_dir="run")


def test_a_data_set_of_one_class_is_refused(rejected: Callable[..., str]) -> None:
    rejected("train.dataset has one class alone", "datasets.Stub.classes = 1")


def test_classes_without_images_are_said(train: Callable[..., Any]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16), np.uint8)
    np.savez("data.npz", images=images, labels=np.arange(12) % 2 + 1)
    arrays = ("train.dataset = @datasets.Arrays()", "datasets.Arrays.file = 'data.npz'", "schedule.sizes = (4, 8)")
    with pytest.warns(UserWarning, match="labels begin at 1, so that class 0 has no images"):
        train(*arrays, run_dir="run")
    assert "labels begin at 1" in Path("run/log.txt").read_text()


def test_class_names_that_do_not_fit_the_classes_are_refused(train: Callable[..., Any]) -> None:
    class Misnamed(ImageFolder):
        def __init__(self) -> None:
            super().__init__("images")
            self.class_names = ["cat"]
            self.classes = 2

    write_pictures(Path("images"), ["a.png"])
    with pytest.raises(PluginError, match=r"Misnamed.class_names has 1 names for 2 classes: give one for each"):
        train(
            "train.dataset = @datasets.Misnamed()",
            plugins=(Component("datasets", "Misnamed", Misnamed),),
            run_dir="run",
        )


def test_what_was_not_read_is_said_in_words() -> None:
    assert describe_left_out({".HEIC": 90}) == "90 of other kinds (.HEIC) were not read"
    assert describe_left_out({".a": 1}) == "1 of other kinds (.a) was not read"


def test_of_two_processes_the_first_alone_hashes_and_looks_at_files(tmp_path: Path, tiny: Callable[..., str]) -> None:
    write_pictures(tmp_path / "images", ["a.png", "b.png", "c.png"])
    settled = time.time() - 60
    for path in (tmp_path / "images").iterdir():
        os.utime(path, (settled, settled))
    time.sleep(content_hashes.SETTLED_NS / 1e9)  # the time of a file's last change of status cannot be set
    config = tiny(*FOLDER)
    hashed = content_hashes._hash
    looked_at = content_hashes._read_version

    def open_data_and_log() -> None:
        rank = os.environ["RANK"]

        def hash_and_log(path: str) -> str:
            with open(f"hashed{rank}", "a") as log:
                log.write("x")
            time.sleep(0.1)  # the other would hash meanwhile
            return hashed(path)

        def look_and_log(path: str) -> list[int]:
            with open(f"looked{rank}", "a") as log:
                log.write("x")
            return looked_at(path)

        content_hashes._hash = hash_and_log
        content_hashes._read_version = look_and_log
        distributed.join_group()
        prepared = prepare(config)
        prepared.data(prepared.schedule())

    for process in fork_ranks(2, open_data_and_log):
        assert process.wait() == 0
    assert Path("hashed0").read_text() == "xxx"
    assert not Path("hashed1").exists()

    # Either may have made the resized copies. Now they are there.
    for path in tmp_path.glob("looked*"):
        path.unlink()
    for process in fork_ranks(2, open_data_and_log):
        assert process.wait() == 0
    assert Path("looked0").read_text() == "xxx"
    assert not Path("looked1").exists()
    assert Path("hashed0").read_text() == "xxx"
