"""Arbitrary and mutated input to everything that reads files: only the documented errors are raised.

A few hundred inputs each by default, thousands with `-m slow`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import io
import json
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import STUB, TINY
from helpers.gin_text import bind_again
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pggan_kit.api.prepare import prepare
from pggan_kit.api.train import train
from pggan_kit.config.builder import build_from_config
from pggan_kit.config.gin_files import read_config
from pggan_kit.errors import DataError, UserError
from pggan_kit.plugin_host.loading import Plugins, load_plugins
from pggan_kit.runs.checkpoint_identity import require_same
from pggan_kit.runs.checkpoints import MANIFEST, Checkpoints
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.system.json_text import json_text
from pggan_plugins.datasets import ImageFolder

Checks = Callable[..., None]


def fuzz(few: int, many: int, **strategies: st.SearchStrategy[Any]) -> Callable[[Checks], Checks]:
    """Run a test with a few inputs, and with many where slow tests are asked for."""
    counts = [pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.slow)]

    def decorate(test: Checks) -> Checks:
        @pytest.mark.parametrize("count", counts)
        def run_examples(count: int) -> None:
            options = settings(
                max_examples=count,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                derandomize=count == few,
                database=None,
            )
            options(given(**strategies)(test))()

        run_examples.__doc__ = test.__doc__
        return run_examples

    return decorate


@contextlib.contextmanager
def allow_documented_errors() -> Iterator[None]:
    """Ignore warnings, and the errors that users may see."""
    with warnings.catch_warnings(), contextlib.suppress(UserError):
        warnings.simplefilter("ignore")
        yield


def mutate(content: bytes, changes: list[tuple[float, bytes, int]]) -> bytes:
    """Return content with changes: (place in [0, 1], new bytes, number of bytes that they replace)."""
    for where, new, removed in changes:
        start = int(where * len(content))
        content = content[:start] + new + content[start + removed :]
    return content


CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.binary(max_size=8), st.sampled_from([0, 1, 2, 4, 8, 100, 10**6])), max_size=4
)

# The gin front end

MEANING = """
    train schedule data seed sizes fade_images stable_images batch_size loss architectures.PGGAN losses.Hinge
    architecture update optimizers.Adam lr @ % / . , = ( ) [ ] { } : ' " \\ # include import from as gin.singleton None
    True False 0 1 -1 1e999 0x1f 10**9 '3 steps' @losses.Hinge() %SIZE SIZE a/b @g/optimizers.Adam é ... 1j b'' f''
    9999999999999999999999 lambda not in __import__('os')
"""
"""Words with a meaning in a config, or elsewhere in Python."""

WORDS = [*MEANING.split(), "\n", "\t", "\0", "\u2028", "\x0c", "\ufeff", "\r", "'''"]
STATEMENTS = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=5)), max_size=25).map(" ".join)
VALUES = st.recursive(
    st.one_of(
        st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=8), st.sampled_from(["4 steps", "x"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.integers(-1, 40), st.text(max_size=3)), inner, max_size=3),
    ),
    max_leaves=5,
)
BOUND = [line.split(" = ")[0] for line in TINY.splitlines()]
NAMES = st.sampled_from([*BOUND, "train.seed", "train.keep", "data.cache"])
BINDINGS = st.tuples(NAMES, VALUES).map(lambda pair: f"{pair[0]} = {pair[1]!r}")


@functools.cache
def load_plugins_once() -> Plugins:
    """Return the plugins, which builders only read."""
    return load_plugins([STUB])


def read_and_build(text: str) -> None:
    """Read and build a config of this text."""
    with allow_documented_errors(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fuzzed.gin")
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        build_from_config(read_config(path), load_plugins_once())


@fuzz(200, 5000, text=STATEMENTS)
def test_gin_statements_of_any_words(text: str) -> None:
    read_and_build(TINY + text)


@fuzz(60, 3000, lines=st.lists(BINDINGS, min_size=1, max_size=3))
def test_gin_values_of_any_kind(lines: list[str]) -> None:
    read_and_build(bind_again(TINY, lines))


@fuzz(100, 3000, changes=CHANGES)
def test_gin_files_of_any_bytes(changes: list[tuple[float, bytes, int]]) -> None:
    content = mutate(TINY.encode(), changes)
    read_and_build(content.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode())
    with allow_documented_errors(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fuzzed.gin")
        path.write_bytes(content)
        read_config(path)


@fuzz(100, 3000, text=STATEMENTS)
def test_overrides_of_any_words(text: str) -> None:
    with allow_documented_errors(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fuzzed.gin")
        path.write_text(TINY)
        read_config(path, [text])


# The checkpoint reader


class Trained:
    """The last checkpoint of a trained run, and new states to load it into; made when first needed.

    Attributes:
        content: Bytes of the checkpoint's file.
        saved: Entries of the checkpoint.
        prepared: The experiment.
        own: Identity of the run.
    """

    content: bytes = b""
    saved: dict[str, Any]
    prepared: Any
    own: Any

    @classmethod
    def get(cls) -> type[Trained]:
        """Train the run where it is not trained yet."""
        if cls.content:
            return cls
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "tiny.gin")
            path.write_text(TINY)
            run = train(path, run_dir=Path(folder, "run"), plugins=[STUB])
            last = run.checkpoints.find_last_file()
            assert last is not None
            cls.content = last.read_bytes()
            cls.saved = run.checkpoints.load_last().content()
            cls.own = run.identity
            cls.prepared = prepare(path, plugins=[STUB])
        return cls

    @classmethod
    def load(cls, saved: Snapshot) -> None:
        """Load a checkpoint into a new state, which must be valid afterwards."""
        require_same(saved.identity, cls.own)
        state = cls.prepared.state(cls.prepared.schedule())
        state.load_snapshot(saved)
        assert type(state.images) is int and 0 <= state.starts[-1] <= state.images
        assert state.phase in ("fade", "stable")


def read_checkpoint(content: bytes) -> None:
    """Read bytes as the last checkpoint of a run, under the SHA-256 that they should have."""
    trained = Trained.get()
    with allow_documented_errors(), tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        sha256 = hashlib.sha256(content).hexdigest()
        row = {"file": f"{1:012d}-{sha256[:8]}.pt", "images": 1, "sha256": sha256, "forever": False}
        (folder / row["file"]).write_bytes(content)
        (folder / MANIFEST).write_text(json.dumps([row]))
        trained.load(Checkpoints(folder).load_last())


@fuzz(200, 5000, content=st.binary(max_size=300))
def test_checkpoints_of_any_bytes(content: bytes) -> None:
    read_checkpoint(content)


@fuzz(200, 5000, changes=CHANGES)
def test_checkpoints_with_any_damage_that_the_sha256_hides(changes: list[tuple[float, bytes, int]]) -> None:
    read_checkpoint(mutate(Trained.get().content, changes))


@fuzz(200, 5000, changes=CHANGES)
def test_pickles_with_any_damage(changes: list[tuple[float, bytes, int]]) -> None:
    """In the older format the pickle is at the beginning of the file, and no checksum protects it."""
    buffer = io.BytesIO()
    torch.save({"format": 1, "images": 3, "x": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)
    read_checkpoint(mutate(buffer.getvalue(), changes))


LEAVES = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans(), st.just(torch.ones(2)),
    st.just([]), st.just({}), st.just([[0]]), st.just((1, 2)), st.just("fade"), st.just([0, 8, 16, 24, 32]),
)  # fmt: skip
PATHS = st.lists(st.integers(0, 50), min_size=1, max_size=4)


def replace_or_remove(tree: Any, path: list[int], value: Any, remove: bool) -> None:
    """Replace or remove an item in nested dicts and lists; the path's numbers choose among the keys that exist."""
    keys: list[Any] = []
    if isinstance(tree, dict):
        keys = list(tree)
    elif isinstance(tree, list):
        keys = list(range(len(tree)))
    if not keys:
        return
    key = keys[path[0] % len(keys)]
    inner = tree[key]
    if len(path) > 1 and isinstance(inner, (dict, list)) and inner:
        replace_or_remove(inner, path[1:], value, remove)
    elif remove:
        del tree[key]
    else:
        tree[key] = value


@fuzz(60, 3000, changes=st.lists(st.tuples(PATHS, LEAVES, st.booleans()), min_size=1, max_size=3))
def test_checkpoints_of_any_structure(changes: list[tuple[list[int], Any, bool]]) -> None:
    saved = copy.deepcopy(Trained.get().saved)
    for path, value, remove in changes:
        replace_or_remove(saved, path, value, remove)
    with allow_documented_errors():
        Trained.load(Snapshot.from_content(saved))


@fuzz(100, 3000, value=st.one_of(LEAVES, st.dictionaries(st.sampled_from(["schedule", "dataset", "x"]), LEAVES)))
def test_identities_of_any_structure(value: Any) -> None:
    with allow_documented_errors():
        require_same(Snapshot.from_content({**Trained.get().saved, "identity": value}).identity, Trained.get().own)


@fuzz(200, 5000, content=st.one_of(st.binary(max_size=100), st.text(max_size=50).map(str.encode)))
def test_manifests_of_any_bytes(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as parent, allow_documented_errors():
        (Path(parent) / MANIFEST).write_bytes(content)
        assert Checkpoints(Path(parent)).read_entries() == []


ROW = st.dictionaries(
    st.sampled_from(["file", "images", "sha256", "forever"]),
    st.one_of(st.none(), st.integers(), st.text(max_size=30), st.booleans(), st.just("a" * 64), st.just([])),
    max_size=4,
)


@fuzz(200, 5000, rows=st.one_of(st.lists(st.one_of(ROW, LEAVES.filter(lambda leaf: leaf is None)), max_size=3), ROW))
def test_manifests_of_any_structure(rows: Any) -> None:
    with tempfile.TemporaryDirectory() as parent, allow_documented_errors():
        (Path(parent) / MANIFEST).write_text(json.dumps(rows))
        entries = Checkpoints(Path(parent)).read_entries()
        assert all(entry.file.endswith(".pt") and "/" not in entry.file for entry in entries)


# The image reader


def encode_pictures() -> dict[str, bytes]:
    """Return a small picture in each format that is read, by suffix."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    pictures = {}
    for format, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("BMP", "bmp"), ("TIFF", "tif")):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format)
        pictures[suffix] = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0]).quantize(8).save(buffer, "PNG", transparency=0)
    pictures["palette.png"] = buffer.getvalue()
    return pictures


ENCODED = encode_pictures()


def read_picture(suffix: str, content: bytes) -> None:
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        Path(folder, f"a.{suffix}").write_bytes(content)
        for fit in ("crop", "pad"):
            with contextlib.suppress(DataError):
                image = ImageFolder(folder, fit=fit, max_pixels=10_000).image(0)
                assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@fuzz(300, 10_000, suffix=st.sampled_from(sorted(ENCODED)), changes=CHANGES)
def test_pictures_with_any_damage(suffix: str, changes: list[tuple[float, bytes, int]]) -> None:
    read_picture(suffix, mutate(ENCODED[suffix], changes))


@fuzz(100, 3000, suffix=st.sampled_from(sorted(ENCODED)), content=st.binary(max_size=200))
def test_pictures_of_any_bytes(suffix: str, content: bytes) -> None:
    read_picture(suffix, content)


CHUNK_NAMES = st.sampled_from(b"IDAT PLTE tRNS iCCP eXIf tEXt zTXt gAMA acTL fcTL IEND".split())
CHUNKS = st.lists(st.tuples(CHUNK_NAMES, st.binary(max_size=40), st.booleans()), max_size=5)


@fuzz(200, 5000, chunks=CHUNKS, depth=st.sampled_from([1, 2, 4, 8, 16, 3]), kind=st.sampled_from([0, 2, 3, 4, 6, 1]))
def test_png_chunks_of_any_content(chunks: list[tuple[bytes, bytes, bool]], depth: int, kind: int) -> None:
    """With correct checksums, so that the damage reaches the decoders."""
    header = struct.pack(">IIBBBBB", 3, 3, depth, kind, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for name, body, deflated in [(b"IHDR", header, False), *chunks]:
        if deflated:
            body = zlib.compress(body)
        content += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    read_picture("png", content)


# Records of a run


def write_run(folder: str, **files: bytes) -> RunDirectory:
    """Write files into a run folder: `stats_jsonl` is `stats.jsonl`."""
    for name, content in files.items():
        Path(folder, name.replace("_", ".")).write_bytes(content)
    return RunDirectory(Path(folder))


ROWS = b'{"images": 8, "Loss/a": 0.5}\n{"images": 16, "Loss/a": NaN}\n{"images": 24}\n'


@fuzz(100, 5000, changes=CHANGES)
def test_stats_with_any_damage(changes: list[tuple[float, bytes, int]]) -> None:
    """They never prevent a resume, and are valid afterwards."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        files = write_run(folder, stats_jsonl=mutate(ROWS, changes))
        before = files.stats()
        files.cut_stats(16)
        # What is written again has null in place of NaN and infinite numbers.
        wanted = json.loads(json_text([row for row in before if row["images"] <= 16]))
        assert files.stats() == wanted
        files.append_stats({"images": 32})
        assert files.stats()[-1] == {"images": 32}


@fuzz(200, 5000, changes=CHANGES)
def test_run_json_with_any_damage(changes: list[tuple[float, bytes, int]]) -> None:
    about = {"plugins": [{"name": "a", "origin": "a.py", "sha256": "0" * 64}], "environment": {}}
    with allow_documented_errors(), tempfile.TemporaryDirectory() as folder:
        read = write_run(folder, run_json=mutate(json.dumps(about).encode(), changes)).about()
        assert all(isinstance(row["origin"], str) for row in read["plugins"])


@pytest.mark.parametrize("length", range(1, 30))
def test_a_last_row_that_is_half_written_is_dropped_without_a_warning(tmp_path: Path, length: int) -> None:
    files = write_run(str(tmp_path), stats_jsonl=ROWS[:-1] + b"\n" + ROWS[:length])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files.cut_stats(24)
    wanted = [8, 16, 24]
    if length >= 28:  # the row is whole, with or without its line end
        wanted.append(8)
    assert [row["images"] for row in files.stats()] == wanted


def test_damaged_rows_are_counted(tmp_path: Path) -> None:
    files = write_run(str(tmp_path), stats_jsonl=b"x\n" + ROWS + b'{"images": "8"}\n[1]\n' + ROWS[:10])
    with pytest.warns(UserWarning, match=r"stats\.jsonl was damaged; dropped 3 of its lines: 1, 5, 6"):
        files.cut_stats(16)
    assert [row["images"] for row in files.stats()] == [8, 16]
    assert "dropped 3 of its lines" in (tmp_path / "log.txt").read_text()
