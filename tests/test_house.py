"""The house keeps its floors: a room imports from lower floors only, and each rule of the house has one place.

HOUSE is the plan: rooms from the ground floor up. A room is a folder of `pggan_kit/`, or one of its flat files.
"""

import ast
import importlib
import json
import re
from collections.abc import Container, Iterator
from pathlib import Path

import pytest
from helpers.paths import ROOT

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

PAGES = [*sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/guides/*.md"))]
"""Pages that people write: `docs/reference/` is made from the code, where the documentation was built."""


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
    yield from imports_in(file.read_text(encoding="utf-8"), known)


def imports_in(code: str, known: Container[str]) -> Iterator[tuple[str, bool]]:
    """Yield the same of a piece of code."""
    tree = ast.parse(code)
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


@pytest.mark.parametrize("module", [module for module in CORE_MODULES if module != "pggan_kit"])
def test_nobody_inside_uses_the_front_door(module: str) -> None:
    imported = {name for name, _ in imports_of(CORE_MODULES[module], CORE_MODULES)}
    assert "pggan_kit" not in imported, f"{module} imports pggan_kit itself: name the module that has what it needs"


def code_of_authors() -> dict[str, str]:
    """Return code that authors write or are shown, by where it stands: plugins, templates, examples and docs."""
    folders = (PLUGINS, CORE / "scaffold" / "templates", ROOT / "examples")
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    code = {f"{file.parent.name}/{file.name}": file.read_text(encoding="utf-8") for file in files}
    assert len(code) == len(files)

    for page in [ROOT / "README.md", *PAGES]:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        code |= {f"{page.name} {number}": block for number, block in enumerate(blocks, 1)}
    notebook = json.loads((ROOT / "examples/notebook.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return code | {f"notebook {number}": cell for number, cell in enumerate(cells, 1)}


CODE_OF_AUTHORS = code_of_authors()


def test_code_of_authors_is_found_everywhere() -> None:
    places = ("losses/", "templates/", "tests/", "adaptive/", "README.md ", "tutorial.md ", "cookbook.md ", "notebook ")
    assert all(any(place.startswith(start) for place in CODE_OF_AUTHORS) for start in places)


@pytest.mark.parametrize("place", CODE_OF_AUTHORS)
def test_plugins_come_through_the_front_door(place: str) -> None:
    lines = [line for line in CODE_OF_AUTHORS[place].splitlines() if not line.startswith(("%", "!"))]
    code = "\n".join(lines)
    imported = {name for name, _ in imports_in(code, CORE_MODULES)}
    # A module that has moved is none of the core's any more.
    modules = {node.module or "" for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)}
    imported |= {module for module in modules if module.startswith("pggan_kit.")}
    assert imported <= FRONT_DOOR, f"{place} imports {', '.join(sorted(imported - FRONT_DOOR))}"


@pytest.mark.parametrize("module", sorted(FRONT_DOOR))
def test_prose_names_what_the_front_door_gives(module: str) -> None:
    """Docs, and docstrings of contracts, that say `pggan_kit.image_gradients` name something that is there."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES, CORE / "components.py"]
    gives = importlib.import_module(module)
    for page in pages:
        for name in re.findall(rf"`{re.escape(module)}\.([A-Za-z_]\w*)", page.read_text(encoding="utf-8")):
            assert hasattr(gives, name), f"{page.name} names {module}.{name}"


def test_the_front_door_gives_what_it_says() -> None:
    """Type checkers, `from pggan_kit import *` and Python itself see the same names, each from where it is defined."""
    for_checkers: dict[str, str] = {}
    for node in ast.walk(ast.parse(CORE_MODULES["pggan_kit"].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pggan_kit."):
            for_checkers |= {alias.name: node.module for alias in node.names}

    assert sorted(for_checkers) == sorted(pggan_kit.__all__)
    for name, module in for_checkers.items():
        assert getattr(pggan_kit, name) is getattr(importlib.import_module(module), name), f"{name} of {module}"
        assert name in dir(pggan_kit)
    assert not set(for_checkers) & {room for room in FLOOR}, "a name must not hide a module of the core"


def test_the_front_door_stays_open_when_modules_are_imported_first() -> None:
    """`import pggan_kit.api.train` sets attributes on packages; the verbs must stay functions, the modules modules."""
    for module in CORE_MODULES:
        if not module.endswith("__main__"):
            importlib.import_module(module)
    assert pggan_kit.train is importlib.import_module("pggan_kit.api.train").train
    assert pggan_kit.evaluate is importlib.import_module("pggan_kit.api.evaluate").evaluate
    assert pggan_kit.testing.LossSuite and pggan_kit.pictures.to_uint8 and pggan_kit.components.Loss


def test_a_name_that_is_not_there_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'pggan_kit' has no attribute 'Dragon'"):
        _ = pggan_kit.Dragon
    with pytest.raises(ImportError):
        exec("from pggan_kit import Dragon")
