"""Test a checkpoint's content: its entries in the file, their valid values, and the one module that knows them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.snapshots import snapshot_at

import pggan_kit
from pggan_kit.errors import RunError
from pggan_kit.runs.checkpoint_identity import SECTIONS
from pggan_kit.runs.snapshot import SavedMeans, Snapshot
from pggan_kit.testing.support import are_equal

KEYS = [
    "format", "images", "steps", "starts", "discriminator_updates", "generator_updates", "last_tick", "phase",
    "bridged", "generator",
    "discriminator", "encoder", "averages", "optimizers", "optimizer_classes", "scalers", "means", "dropped",
    "rewinds", "warned_stage", "identity", "stage_over", "ended", "components", "compiled", "component_classes",
    "alpha", "calibration_labels", "best", "changes", "forever", "between_ticks", "return_point", "holds",
]  # fmt: skip
"""Entries of the file, in the order in which they are written."""

OF_THE_RUN = {
    "encoder", "scalers", "identity", "stage_over", "ended", "components", "compiled", "component_classes", "alpha",
    "calibration_labels", "best", "changes", "forever", "between_ticks", "return_point", "holds",
}  # fmt: skip
"""Entries that a file may lack: the state of the networks is whole without them."""

CORE = Path(pggan_kit.__file__).parent
SHARED = {
    "images", "steps", "phase", "generator", "discriminator", "averages", "components", "compiled", "format", "changes",
    "forever", "between_ticks", "ended", "best", "holds",
}  # fmt: skip
"""Keys that other dicts have too: rows of statistics and of the manifest, networks by name, `run.json`, the catalogue,
`pggan-kit plan`, kept averages, kinds of component."""


def test_the_file_has_the_form_of_format_6() -> None:
    content = snapshot_at(8, starts=(0, 8), means=SavedMeans({"a": torch.ones(())}, {"a": 2})).content()
    assert list(content) == KEYS
    assert content["format"] == 6 and content["starts"] == [0, 8]
    assert are_equal(content["means"], {"sums": {"a": torch.ones(())}, "counts": {"a": 2}})


def test_a_snapshot_comes_back_from_its_content() -> None:
    identity: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    identity |= {"architecture": {"a": "1"}, "schedule": {"sizes": "4x4, 8x8"}, "dataset": {"content": "abc"}}
    changes: dict[str, Any] = {
        "starts": (0, 8), "phase": "fade", "bridged": {"generator": True}, "scalers": {"generator": {"scale": 2.0}},
        "means": SavedMeans({"a": torch.ones(())}, {"a": 2}), "dropped": 1, "rewinds": 2, "warned_stage": 0,
        "identity": identity, "stage_over": True, "ended": True, "components": {"x": [1, None]},
        "compiled": {"generator": "eager"}, "component_classes": {"x": "X"}, "alpha": 0.5,
        "calibration_labels": torch.arange(3), "forever": True,
        "best": {"metric": "FID", "value": 2.0, "images": 8, "stage": 1, "size": "8x8"},
        "changes": [{"images": 8, "bindings": {"train.seed": ["0", None]}}], "holds": "weights",
    }  # fmt: skip
    snapshot = snapshot_at(9, steps=3, discriminator_updates=5, generator_updates=2, last_tick=7, **changes)
    read = Snapshot.from_content(snapshot.content())
    assert are_equal(read.content(), snapshot.content())
    for entry in set(KEYS) - {"format", "means", "return_point"}:
        assert are_equal(getattr(read, entry), getattr(snapshot, entry)), entry
    nested = Snapshot.from_content(snapshot_at(10, return_point=snapshot).content()).copy_to_cpu()
    assert nested.return_point is not None and are_equal(nested.return_point.content(), snapshot.content())
    with pytest.raises(RunError, match="its entry 'steps' has an impossible value"):
        Snapshot.from_content({**nested.content(), "return_point": {**snapshot.content(), "steps": -1}})
    assert read.starts == (0, 8) and (read.stage, read.size, read.sizes) == (1, "8x8", ["4x4", "8x8"])


@pytest.mark.parametrize("name", KEYS)
def test_an_entry_that_is_missing_is_named_or_has_a_default(name: str) -> None:
    content = snapshot_at(8).content()
    del content[name]
    if name in OF_THE_RUN:
        assert are_equal(Snapshot.from_content(content).content(), snapshot_at(8).content())
    else:
        wanted = "has no format number" if name == "format" else f"is corrupt: it has no entry '{name}'"
        with pytest.raises(RunError, match=wanted):
            Snapshot.from_content(content)


IMPOSSIBLE: list[tuple[str, Any]] = [
    ("images", -1), ("images", True), ("images", 8.0), ("steps", "8"), ("starts", []), ("starts", [4]),
    ("starts", [0, True]), ("starts", (0,)), ("discriminator_updates", -1), ("last_tick", None), ("phase", "other"),
    ("generator_updates", 0.5), ("encoder", {"weight": 1}),
    ("phase", []), ("bridged", {"generator": 1}), ("generator", {"weight": "x"}),
    ("averages", {}), ("averages", {"a": {1: torch.ones(1)}}),
    ("discriminator", torch.ones(2)), ("optimizers", {"both": 3}), ("optimizer_classes", {"both": None}),
    ("scalers", []), ("means", {}), ("means", {"sums": {"a": torch.ones(())}, "counts": {}}), ("dropped", -1),
    ("rewinds", 0.5), ("warned_stage", -2), ("identity", None), ("identity", {"schedule": {}}),
    ("identity", {"architecture": {}, "schedule": {"sizes": 3}, "dataset": {}}), ("stage_over", 1), ("ended", 1),
    ("components", [1]), ("compiled", {"generator": 1}), ("component_classes", "x"), ("forever", 1),
    ("between_ticks", 1), ("return_point", 1), ("holds", "images"),
    ("best", None), ("best", {"metric": "FID", "value": "2", "images": 8, "stage": 1, "size": "8x8"}),
    ("best", {"metric": "FID"}), ("alpha", 1), ("alpha", 1.5), ("alpha", float("nan")), ("calibration_labels", [1]),
    ("calibration_labels", torch.ones(2)), ("calibration_labels", torch.ones(1, 1, dtype=torch.int64)),
    ("changes", {}), ("changes", [3]), ("changes", [{"images": 1.0, "bindings": {}}]),
    ("changes", [{"images": 1, "bindings": {"a": ["b"]}}]), ("changes", [{"images": 1, "bindings": {1: ["a", "b"]}}]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_an_entry_with_an_impossible_value_is_named(name: str, value: Any) -> None:
    with pytest.raises(RunError, match=rf"^the checkpoint is corrupt: its entry '{name}' has an impossible value$"):
        Snapshot.from_content({**snapshot_at(8).content(), name: value})


def test_each_entry_has_an_impossible_value_here() -> None:
    assert {name for name, _ in IMPOSSIBLE} == set(KEYS) - {"format"}


@pytest.mark.parametrize("starts", [[0, 9], [0, 6, 4]])
def test_a_clock_that_goes_back_is_refused(starts: list[int]) -> None:
    with pytest.raises(RunError, match="'images' and 'starts' contradict each other"):
        Snapshot.from_content({**snapshot_at(8).content(), "starts": starts})


def test_sizes_that_do_not_reach_the_stage_are_refused() -> None:
    identity: dict[str, dict[str, str]] = {"schedule": {"sizes": "4x4"}}
    with pytest.raises(RunError, match="is corrupt: it is in stage 1 of 1 stages"):
        _ = snapshot_at(8, starts=(0, 8), identity=identity).size
    with pytest.raises(RunError, match="written by an older version"):
        _ = snapshot_at(8).size


def test_a_copy_on_the_cpu_shares_nothing() -> None:
    weights = torch.zeros(2)
    remembered = [1]
    snapshot = snapshot_at(8, generator={"weight": weights}, components={"x": remembered})
    copy = snapshot.copy_to_cpu()
    weights += 1
    remembered.append(2)
    assert copy.generator["weight"].tolist() == [0, 0] and copy.components == {"x": [1]}
    assert are_equal(copy.copy_to_cpu().content(), copy.content())


def list_looked_up_keys(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the constant text that a node looks up (`x["a"]`, `x.get("a")`, `"a" in x`), and its line."""
    looked_up: list[ast.expr] = []
    if isinstance(node, ast.Subscript):
        looked_up = [node.slice]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop"):
        looked_up = node.args[:1]
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
        looked_up = [node.left]
    for key in looked_up:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value, key.lineno


@pytest.fixture(scope="module")
def nodes() -> list[tuple[str, ast.AST]]:
    """Return all nodes of the core's modules, each with its module."""
    found = []
    for path in sorted(CORE.rglob("*.py")):
        if "templates" not in path.parts:
            name = path.relative_to(CORE).as_posix()
            found += [(name, node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    return found


def test_no_other_module_of_the_core_looks_into_the_content(nodes: list[tuple[str, ast.AST]]) -> None:
    own = set(KEYS) - SHARED
    looked_up = {
        f"{name}:{line} {key!r}"
        for name, node in nodes
        for key, line in list_looked_up_keys(node)
        if key in own and name != "runs/snapshot.py"
    }
    assert not looked_up, "they read a field of Snapshot"


def test_the_folder_of_checkpoints_has_one_place(nodes: list[tuple[str, ast.AST]]) -> None:
    naming_modules = {
        name
        for name, node in nodes
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and ast.unparse(node.right).strip("'\"").startswith("checkpoints")
    }
    assert naming_modules == {"runs/directory.py"}, "they ask RunDirectory.checkpoints()"
