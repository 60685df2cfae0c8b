"""`datasets.ImageFolder` of ZIP files, and of labels in a `dataset.json`, as StyleGAN's tools write both."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pggan_kit.data.sampler import open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError
from pggan_kit.testing import DatasetSuite
from pggan_plugins.datasets import ImageFolder, picture_sources

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 12, 3), np.uint8)
NAMES = [f"0000{i % 2}/img{i:08d}.png" for i in range(6)]
"""Names in which images 0, 2 and 4, and 1, 3 and 5 lie in one folder."""

ORDER = [0, 2, 4, 1, 3, 5]
"""Numbers of the images in the order of their paths."""

LABELS = [2, 0, 2, 4, 0, 2]


def encode(pixels: np.ndarray, form: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form)
    return content.getvalue()


def write_json(labels: Any) -> bytes:
    return json.dumps({"labels": labels}).encode()


def make_files(labels: Any = "all") -> dict[str, bytes]:
    """Return the contents of a data set by path; `labels` None has none, other labels are written as they are."""
    if labels == "all":
        labels = [[name, label] for name, label in zip(NAMES, LABELS, strict=True)]
    files = {name: encode(pixels) for name, pixels in zip(NAMES, PIXELS, strict=True)}
    return {**files, "dataset.json": write_json(labels)}


def make_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> str:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return str(path)


def make_folder(path: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return str(path)


MAKERS = {
    "stored": make_zip,
    "deflated": lambda path, files: make_zip(path, files, zipfile.ZIP_DEFLATED),
    "folder": make_folder,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_zip(tmp_path_factory.mktemp("zips") / "a.zip", make_files())


class TestZip(DatasetSuite):
    @pytest.fixture(autouse=True)
    def _use_shared(self, shared: str) -> None:
        self.path = shared

    def make(self, **options: Any) -> ImageFolder:
        return ImageFolder(self.path, **{"labels": True, **options})


@pytest.mark.parametrize("kind", MAKERS)
def test_images_and_labels_are_read_as_they_are(tmp_path: Path, kind: str) -> None:
    files = {
        "dataset.json": make_files()["dataset.json"],
        "notes.txt": b"no picture",
        "__MACOSX/._img.png": b"no picture",
        **make_files(),
    }
    dataset = ImageFolder(MAKERS[kind](tmp_path / "data", files), labels=True)
    assert len(dataset) == 6
    for i, number in enumerate(ORDER):
        np.testing.assert_array_equal(dataset.image(i), PIXELS[number])
        assert dataset.label(i) == LABELS[number]
    assert (dataset.classes, dataset.class_names) == (5, []), "one more than the largest, as StyleGAN counts"
    assert dataset.left_out == {".txt": 1, "hidden": 1}
    assert ImageFolder(str(tmp_path / "data")).label(3) == 0, "not asked for"


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("labels", [True, False])
def test_a_zip_has_the_fingerprint_of_its_folder(tmp_path: Path, kind: str, labels: bool) -> None:
    """So resized copies are shared, and a run goes on with either."""
    stated = ImageFolder(make_folder(tmp_path / "wanted", make_files()), labels=labels).fingerprint()
    path = MAKERS[kind](tmp_path / "data", make_files())
    for _ in range(2):
        assert ImageFolder(path, labels=labels).fingerprint() == stated
    assert ImageFolder(path, labels=labels, size=4).fingerprint() != stated

    others = [make_files([[name, 4 - label] for name, label in zip(NAMES, LABELS, strict=True)]), make_files()]
    others[1][NAMES[0]] = encode(255 - PIXELS[0])
    prints = [ImageFolder(MAKERS[kind](tmp_path / f"{i}", files), labels=labels) for i, files in enumerate(others)]
    assert (prints[0].fingerprint() == stated) is not labels, "other labels"
    assert prints[1].fingerprint() != stated, "another image"


def test_the_contents_of_a_zip_are_hashed_once(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stated = ImageFolder(shared).fingerprint()
    reads: list[str] = []
    monkeypatch.setattr(picture_sources.ZipSource, "_read_picture", lambda self, name: reads.append(name))
    assert ImageFolder(shared).fingerprint() == stated
    assert not reads


def test_sub_folders_of_a_zip_may_be_classes(tmp_path: Path) -> None:
    files = {name: content for name, content in make_files().items() if name != "dataset.json"}
    path = make_zip(tmp_path / "a.zip", {**files, "00000/": b""})
    dataset = ImageFolder(path, labels=True)
    assert dataset.class_names == ["00000", "00001"]
    assert [dataset.label(i) for i in range(6)] == [0, 0, 0, 1, 1, 1]


def test_each_thread_opens_the_zip_for_itself(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that are in the middle of a read at the same time read different files."""
    readers: dict[int, set[int]] = {}
    together = threading.Barrier(3)
    read = zipfile.ZipFile.read

    def read_together(self: zipfile.ZipFile, name: str) -> bytes:
        readers.setdefault(id(self), set()).add(threading.get_ident())
        together.wait(timeout=60)
        return read(self, name)

    dataset = ImageFolder(shared)
    monkeypatch.setattr(zipfile.ZipFile, "read", read_together)
    with ThreadPoolExecutor(3) as pool:
        images = list(pool.map(dataset.image, range(6)))
    assert len(readers) == 3 and all(len(threads) == 1 for threads in readers.values())
    for image, number in zip(images, ORDER, strict=True):
        np.testing.assert_array_equal(image, PIXELS[number])


def test_resized_copies_of_a_zip(tmp_path: Path, shared: str) -> None:
    dataset = ImageFolder(shared, labels=True)
    settings = DataSettings(cache=str(tmp_path), workers=3)
    images, labels = open_data(dataset, settings, [(9, 12), (3, 4)], 0).level((9, 12))
    np.testing.assert_array_equal(images, PIXELS[ORDER].transpose(0, 3, 1, 2))
    assert labels is not None and labels.tolist() == [LABELS[number] for number in ORDER]


def spoil(files: dict[str, bytes], content: Callable[[bytes], bytes], name: str = NAMES[2]) -> dict[str, bytes]:
    return {**files, name: content(files[name])}


def flip_byte_of(path: str, name: str) -> None:
    """Change a byte of a stored file within a ZIP, so that its checksum is wrong."""
    content = bytearray(Path(path).read_bytes())
    with zipfile.ZipFile(path) as file:
        start = file.getinfo(name).header_offset + 30 + len(name)
    content[start + 50] ^= 1
    Path(path).write_bytes(content)


def test_corrupt_images_are_named_or_skipped(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", spoil(make_files(), lambda _: b"no image", NAMES[4]))
    flip_byte_of(path, NAMES[2])
    dataset = ImageFolder(path)
    for i, message in ((1, r"cannot be unpacked \(Bad CRC-32"), (2, "cannot be read as an image")):
        with pytest.raises(DataError, match=rf"a\.zip/{NAMES[ORDER[i]]}: {message}.*set on_error = 'skip'"):
            dataset.image(i)
    assert dataset.fingerprint() == ImageFolder(path).fingerprint()
    with pytest.warns(UserWarning, match="2 of 6 images are left out"):
        data = open_data(ImageFolder(path, on_error="skip"), DataSettings(cache=str(tmp_path)), [(3, 4)], 0)
    assert len(data) == 4


def test_no_more_is_unpacked_than_a_picture_may_have(tmp_path: Path) -> None:
    """A small ZIP may unpack to a file that fills the memory."""
    path = make_zip(tmp_path / "a.zip", spoil(make_files(), lambda _: bytes(3 << 20)), zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"has 3145728 bytes, above the limit of 1049376"):
        ImageFolder(path, max_pixels=100).image(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a ZIP file"),
        (b"PK\x03\x04junk", r"cannot be read as a ZIP file \(File is not a zip file\): copy or make it again"),
        (None, "cannot be read as a ZIP file"),
    ],
)
def test_files_that_are_no_zip(tmp_path: Path, shared: str, content: bytes | None, message: str) -> None:
    """Among them a ZIP that is cut short: its list of files is at the end."""
    path = tmp_path / "a.zip"
    path.write_bytes(Path(shared).read_bytes()[:-40] if content is None else content)
    with pytest.raises(DataError, match=rf"^{path} {message}"):
        ImageFolder(str(path))


def test_a_zip_without_images_and_no_zip(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.txt": b"", ".hidden/a.png": b""})
    with pytest.raises(DataError, match=r"a\.zip and the folders in it hold no images \(\.png"):
        ImageFolder(path)
    with pytest.raises(DataError, match=r"no folder .*b\.zip: set datasets\.ImageFolder\.folder to .* a ZIP file"):
        ImageFolder(str(tmp_path / "b.zip"))


@pytest.mark.parametrize("kind", ["stored", "folder"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"cannot be read as JSON \(.*\): it must hold"),
        (b"\xff\xff", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"{}", "has no 'labels': it must hold"),
        (b"[]", "has no 'labels'"),
        (write_json(None), r"says that there are no labels \('labels' is null\): set labels = False"),
        (write_json({"a.png": 1}), "'labels' must be a list of pairs"),
        (write_json([["a.png"]]), r"entry 0, must be a pair of a path and a class number, .* not \['a\.png'\]"),
        (write_json([[1, "a.png"]]), "entry 0, must be a pair"),
        (write_json([["a.png", [0.0] * 99]]), r"entry 0, gives a\.png the vector \[0\.0, .*\.\.\., and labels must be"),
        (write_json([["a.png", 1.0]]), r"entry 0, gives a\.png the label 1\.0: it must be a whole number from 0 up"),
        (write_json([["a.png", 1], ["b.png", True]]), r"entry 1, gives b\.png the label True"),
        (write_json([["a.png", -1]]), r"entry 0, gives a\.png the label -1"),
        (write_json([["a.png", 1], ["a.png", 2]]), r"gives a\.png the labels 1 and 2: leave one of them"),
        (
            write_json([[name, 1] for name in NAMES[:4]]),
            rf"has no label for {NAMES[4]} \(2 of 6 images have none\): add them to it, or set labels = False",
        ),
        (write_json([[name, 3] for name in NAMES]), "gives all images the one label 3: set labels = False"),
    ],
)
def test_wrong_label_files(tmp_path: Path, kind: str, content: bytes, message: str) -> None:
    path = MAKERS[kind](tmp_path / "data", {**make_files(), "dataset.json": content})
    with pytest.raises(DataError, match=rf"data/dataset\.json[,:]? {message}") as caught:
        ImageFolder(path, labels=True)
    assert len(str(caught.value)) < 500
    assert ImageFolder(path).classes == 0, "labels that are not asked for do no harm"


def test_labels_without_an_image_are_counted(tmp_path: Path) -> None:
    """As where a broken image was taken out; and paths that Windows' tools wrote are read."""
    labels = [[name.replace("/", "\\"), label] for name, label in zip([*NAMES, "x/y.png"], [*LABELS, 9], strict=True)]
    dataset = ImageFolder(make_folder(tmp_path, make_files(labels)), labels=True)
    assert dataset.left_out == {"labels without an image": 1}
    assert dataset.classes == 5
    assert [dataset.label(i) for i in range(6)] == [LABELS[number] for number in ORDER]


def test_paths_of_one_file_are_one(tmp_path: Path) -> None:
    labels = [[f"./{name}", label] for name, label in zip(NAMES, LABELS, strict=True)]
    dataset = ImageFolder(make_folder(tmp_path, make_files(labels)), labels=True)
    assert [dataset.label(i) for i in range(6)] == [LABELS[number] for number in ORDER]
    with pytest.raises(DataError, match=r"the labels 2 and 3: leave one of them"):
        ImageFolder(make_folder(tmp_path, make_files([*labels, [NAMES[0], 3]])), labels=True)
