"""The house keeps its floors: a room imports from lower floors only, and each rule of the house has one place.

HOUSE is the plan: rooms from the ground floor up. A room is a folder of `pggan_kit/`, or one of its flat files.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pggan_kit
import pggan_plugins

HOUSE = (
    ("errors", "version"),
    ("schedule", "layers"),
    ("components", "system", "pictures"),
    ("growth", "data", "evaluation", "hookspecs"),
    ("experiment", "plugin_host"),
    ("runs", "config"),
    ("training",),
    ("api", "testing"),
    ("__init__", "benchmarking", "report"),
    ("ablation", "scaffold"),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(HOUSE, 1) for room in rooms}

FRONT_DOOR = {"pggan_kit", "pggan_kit.components", "pggan_kit.testing", "pggan_kit.pictures"}
"""Modules that plugins may import, besides names that these export."""

FOR_ANNOTATIONS = {("hookspecs", "runs")}
"""Rooms of which the first names a class of the second, which stands higher, for type checkers alone: the signatures
of hooks say what a run and its state are."""

CORE = Path(pggan_kit.__file__).parent
PLUGINS = Path(pggan_plugins.__file__).parent
FLAT_FILES_AT_MOST = 9


def modules_of(folder: Path, package: str) -> dict[str, Path]:
    """Return the files of a package by module name, without the templates of `plugins new`."""
    modules = {}
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder).with_suffix("").parts
        if "templates" in parts:
            continue
        if parts[-1] == "__init__":
            parts = parts[:-1]
        modules[".".join((package, *parts))] = file
    return modules


CORE_MODULES = modules_of(CORE, "pggan_kit")
PLUGIN_MODULES = modules_of(PLUGINS, "pggan_plugins")


def imports_of(file: Path, known: dict[str, Path]) -> Iterator[tuple[str, bool]]:
    """Yield the modules among `known` that a file imports, anywhere in it, and whether for type checkers alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_checkers = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                for_checkers.update(ast.walk(statement))

    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` imports the module; `from module import name` the module that has it.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in names]
        for name in names:
            if name in known:
                yield name, node in for_checkers


def room_of(module: str) -> str:
    """Return the room that a module of the core stands in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(module) for module in CORE_MODULES}
    assert rooms == set(FLOOR), "HOUSE in this test is the plan of pggan_kit/"
    assert len(list(CORE.glob("*.py"))) <= FLAT_FILES_AT_MOST


@pytest.mark.parametrize("module", CORE_MODULES)
def test_a_room_imports_from_below(module: str) -> None:
    room = room_of(module)
    for imported, for_checkers in imports_of(CORE_MODULES[module], CORE_MODULES):
        other = room_of(imported)
        if other == room or (for_checkers and (room, other) in FOR_ANNOTATIONS):
            continue
        assert FLOOR[other] < FLOOR[room], f"{module} (floor {FLOOR[room]}) imports {imported} (floor {FLOOR[other]})"


def test_no_imports_in_a_circle() -> None:
    arrows = {
        module: {
            imported
            for imported, for_checkers in imports_of(file, CORE_MODULES)
            if imported != module and not (for_checkers and (room_of(module), room_of(imported)) in FOR_ANNOTATIONS)
        }
        for module, file in CORE_MODULES.items()
    }
    # Take away what imports nothing that is left, until nothing changes: what stays stands in circles.
    while leaves := {module for module, imported in arrows.items() if not imported & arrows.keys()}:
        for module in leaves:
            del arrows[module]
    assert not arrows, f"modules that import each other: {', '.join(sorted(arrows))}"


@pytest.mark.parametrize("module", {**CORE_MODULES, **PLUGIN_MODULES})
def test_gin_stands_in_one_room(module: str) -> None:
    file = {**CORE_MODULES, **PLUGIN_MODULES}[module]
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    if any(name.split(".")[0] == "gin" for name in names):
        assert module.startswith("pggan_kit.config."), "gin is imported in pggan_kit/config/ alone"


@pytest.mark.parametrize("module", CORE_MODULES)
def test_the_core_names_no_plugin(module: str) -> None:
    assert "pggan_plugins" not in CORE_MODULES[module].read_text(encoding="utf-8")


@pytest.mark.parametrize("module", PLUGIN_MODULES)
def test_plugins_come_through_the_front_door(module: str) -> None:
    imported = {name for name, _ in imports_of(PLUGIN_MODULES[module], CORE_MODULES)}
    assert imported <= FRONT_DOOR, f"{module} imports {', '.join(sorted(imported - FRONT_DOOR))}"
