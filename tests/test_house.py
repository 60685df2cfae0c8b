"""The structure of the code: a room imports from lower floors only, gin is in one room, plugins use the front door.

HOUSE is the plan: the rooms, from the ground floor up. A room is a folder of `pggan_kit/`, or one of its flat files.
"""

import ast
import functools
import importlib
import importlib.util
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
    ("ticks",),
    ("components", "system"),
    ("growth", "data", "evaluation", "hookspecs", "pictures"),
    ("experiment", "plugin_host"),
    ("runs", "config"),
    ("training",),
    ("api", "testing"),
    ("__init__", "benchmarking", "report"),
    ("trials", "scaffold"),
    ("sweeps",),
    ("ablation",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(HOUSE, 1) for room in rooms}

FRONT_DOOR = {"pggan_kit", "pggan_kit.components", "pggan_kit.testing", "pggan_kit.pictures"}
"""Modules that plugins may import."""

FOR_ANNOTATIONS = {("hookspecs", "runs")}
"""Pairs of rooms of which the first imports classes of the second, on a higher floor, for type checkers alone: the
signatures of hooks have the types of a run and its state."""

CORE = Path(pggan_kit.__file__).parent
PLUGINS = Path(pggan_plugins.__file__).parent
MAX_FLAT_FILES = 9
"""Maximum number of modules that are directly in `pggan_kit/`."""

PAGES = [*sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/guides/*.md"))]
"""Pages that people write. `docs/reference/` is made from the code when the documentation is built."""


def list_modules(folder: Path, package: str) -> dict[str, Path]:
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


CORE_MODULES = list_modules(CORE, "pggan_kit")
PLUGIN_MODULES = list_modules(PLUGINS, "pggan_plugins")
ALL_MODULES = {**CORE_MODULES, **PLUGIN_MODULES}


@functools.cache
def parse(code: str) -> tuple[ast.AST, ...]:
    """Return all nodes of code, which several tests look through."""
    return tuple(ast.walk(ast.parse(code)))


def parse_module(module: str) -> tuple[ast.AST, ...]:
    """Return all nodes of a module."""
    return parse(ALL_MODULES[module].read_text(encoding="utf-8"))


def find_imports_of_file(file: Path, known: dict[str, Path]) -> Iterator[tuple[str, bool]]:
    """Yield the imports of a file; see `find_imports`."""
    yield from find_imports(file.read_text(encoding="utf-8"), known)


def find_imports(code: str, known: Container[str]) -> Iterator[tuple[str, bool]]:
    """Yield the modules among `known` that code imports, anywhere in it, and whether for type checkers alone."""
    nodes = parse(code)

    # Imports under `if TYPE_CHECKING` do not happen at run time.
    for_checkers = set()
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                for_checkers.update(ast.walk(statement))

    for node in nodes:
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


def find_room(module: str) -> str:
    """Return the room of a module of the core."""
    if "." not in module:
        return "__init__"
    return module.split(".")[1]


def test_every_room_has_its_floor() -> None:
    rooms = {find_room(module) for module in CORE_MODULES}
    assert rooms == set(FLOOR), "HOUSE in this test is the plan of pggan_kit/"
    assert len(list(CORE.glob("*.py"))) <= MAX_FLAT_FILES


def test_a_room_imports_from_below() -> None:
    upward = []
    for module, file in CORE_MODULES.items():
        room = find_room(module)
        for imported, for_checkers in find_imports_of_file(file, CORE_MODULES):
            other = find_room(imported)
            is_allowed = for_checkers and (room, other) in FOR_ANNOTATIONS
            if other != room and not is_allowed and FLOOR[other] >= FLOOR[room]:
                upward.append(f"{module} (floor {FLOOR[room]}) imports {imported} (floor {FLOOR[other]})")
    assert upward == []


def test_no_imports_in_a_circle() -> None:
    imports: dict[str, set[str]] = {}
    for module, file in CORE_MODULES.items():
        imports[module] = set()
        for imported, for_checkers in find_imports_of_file(file, CORE_MODULES):
            is_allowed = for_checkers and (find_room(module), find_room(imported)) in FOR_ANNOTATIONS
            if imported != module and not is_allowed:
                imports[module].add(imported)

    # Remove the modules that import none of those left, until nothing changes: the rest import each other.
    while removable := [module for module, imported in imports.items() if not imported & imports.keys()]:
        for module in removable:
            del imports[module]
    assert not imports, f"modules that import each other: {', '.join(sorted(imports))}"


def test_one_room_imports_gin() -> None:
    importing = set()
    for module in ALL_MODULES:
        for node in parse_module(module):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] == "gin" for name in names):
                importing.add(module)
    assert importing
    outside = [module for module in importing if not module.startswith("pggan_kit.config.")]
    assert outside == [], "only pggan_kit/config/ may import gin"


def test_paths_in_commands_are_quoted() -> None:
    """A message such as f"pggan-kit resume {run}" is copied into a shell."""
    pattern = r"pggan-kit (?:resume|train|sample|report|evaluate) \{(?!quote_path\()[^}]*\}"
    unquoted = {module: re.findall(pattern, file.read_text(encoding="utf-8")) for module, file in CORE_MODULES.items()}
    assert [module for module, found in unquoted.items() if found] == [], "use quote_path"


def test_one_module_opens_pictures() -> None:
    """`Image.open` with any decoder, of a file of any size, is in nobody's reach: see `pictures/decoding.py`."""
    opening = set()
    for module in ALL_MODULES:
        for node in parse_module(module):
            names = []
            if isinstance(node, ast.Attribute) and node.attr == "open":
                names = [ast.unparse(node)]
            elif isinstance(node, ast.ImportFrom) and node.module == "PIL.Image":
                names = [f"Image.{alias.name}" for alias in node.names]
            if {"Image.open", "PIL.Image.open"} & set(names):
                opening.add(module)
    assert opening == {"pggan_kit.pictures.decoding"}, "use open_picture"


def test_the_core_names_no_plugin() -> None:
    texts = {module: file.read_text(encoding="utf-8") for module, file in CORE_MODULES.items()}
    assert [module for module, text in texts.items() if "pggan_plugins" in text] == []


def test_the_core_does_not_use_the_front_door() -> None:
    imported = {
        module: {name for name, _ in find_imports_of_file(file, CORE_MODULES)} for module, file in CORE_MODULES.items()
    }
    users = [module for module, names in imported.items() if "pggan_kit" in names and module != "pggan_kit"]
    assert users == [], "import from the module that defines the name"


def collect_code_of_authors() -> dict[str, str]:
    """Return the code that authors of plugins write or read, by place: plugins, templates, examples and docs."""
    # Python files
    folders = (PLUGINS, CORE / "scaffold" / "templates", ROOT / "examples")
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    code = {f"{file.parent.name}/{file.name}": file.read_text(encoding="utf-8") for file in files}
    assert len(code) == len(files)

    # Blocks in pages, and cells of the notebook
    for page in [ROOT / "README.md", *PAGES]:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        code |= {f"{page.name} {number}": block for number, block in enumerate(blocks, 1)}
    notebook = json.loads((ROOT / "examples/notebook.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return code | {f"notebook {number}": cell for number, cell in enumerate(cells, 1)}


CODE_OF_AUTHORS = collect_code_of_authors()


def test_code_of_authors_is_found_everywhere() -> None:
    places = ("losses/", "templates/", "tests/", "adaptive/", "README.md ", "tutorial.md ", "cookbook.md ", "notebook ")
    assert all(any(place.startswith(start) for place in CODE_OF_AUTHORS) for start in places)


def test_plugins_come_through_the_front_door() -> None:
    beside_it = []
    for place, text in CODE_OF_AUTHORS.items():
        # Commands of notebooks are no Python, and may be all that an `if` has.
        code = re.sub(r"^( *)[%!].*", r"\1pass", text, flags=re.MULTILINE)
        imported = {name for name, _ in find_imports(code, CORE_MODULES)}
        # Add modules that no longer exist, which `find_imports` does not know.
        modules = {node.module or "" for node in parse(code) if isinstance(node, ast.ImportFrom)}
        imported |= {module for module in modules if module.startswith("pggan_kit.")}
        beside_it += [f"{place} imports {name}" for name in sorted(imported - FRONT_DOOR)]
    assert beside_it == []


@pytest.mark.parametrize("module", sorted(FRONT_DOOR))
def test_prose_names_what_the_front_door_gives(module: str) -> None:
    """Names such as `pggan_kit.image_gradients`, in docs and in the docstrings of contracts, exist."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES, CORE / "components.py"]
    front_door = importlib.import_module(module)
    for page in pages:
        for name in re.findall(rf"`{re.escape(module)}\.([A-Za-z_]\w*)", page.read_text(encoding="utf-8")):
            # A module is an attribute of its package only once something has imported it.
            is_given = hasattr(front_door, name) or f"{module}.{name}" in CORE_MODULES
            assert is_given, f"{page.name} names {module}.{name}"


def test_the_front_door_gives_the_names_that_it_declares() -> None:
    """Type checkers, `from pggan_kit import *` and Python itself see the same names, each from the same module."""
    for_checkers: dict[str, str] = {}
    for node in ast.walk(ast.parse(CORE_MODULES["pggan_kit"].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pggan_kit."):
            for_checkers |= {alias.name: node.module for alias in node.names}

    assert sorted(for_checkers) == sorted(pggan_kit.__all__)
    for name, module in for_checkers.items():
        assert getattr(pggan_kit, name) is getattr(importlib.import_module(module), name), f"{name} of {module}"
        assert name in dir(pggan_kit)
    assert not set(for_checkers) & set(FLOOR), "a name must not hide a module of the core"


def test_the_front_door_stays_open_when_modules_are_imported_first() -> None:
    """`import pggan_kit.api.train` sets attributes on packages; `pggan_kit.train` must still be the function."""
    for module in CORE_MODULES:
        if not module.endswith("__main__"):
            importlib.import_module(module)
    assert pggan_kit.train is importlib.import_module("pggan_kit.api.train").train
    assert pggan_kit.evaluate is importlib.import_module("pggan_kit.api.evaluate").evaluate
    assert pggan_kit.testing.LossSuite and pggan_kit.pictures.to_uint8 and pggan_kit.components.Loss


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'pggan_kit' has no attribute 'Dragon'"):
        _ = pggan_kit.Dragon
    with pytest.raises(ImportError):
        exec("from pggan_kit import Dragon")
