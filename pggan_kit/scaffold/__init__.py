"""Write new plugins: an installable package, or one file, that works from the first minute.

The templates are plugins themselves, whose component is called `Mine` and whose module is `mine`; the experiment beside
them is a user's file, and so names components that come with pggan_kit.
"""

from __future__ import annotations

import ast
import importlib.util
import keyword
import re
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template

from pggan_kit.components import KINDS
from pggan_kit.errors import PluginError, did_you_mean, quote_path, suggest
from pggan_kit.plugin_host.loading import find_installed_plugins, load_plugins
from pggan_kit.system.files import make_whole_folder

RESERVED = ("setup", "conftest", "tests", "pytest")
"""Names of modules that setuptools or pytest take for something else than a package's own."""

HOOKS = "hooks"
"""Kind of a plugin without components."""

KINDS_TO_WRITE = (*KINDS, HOOKS)
"""Kinds of which a plugin can be written."""

USES = {
    "architectures": ["train.architecture = @architectures.Mine()"],
    "resampling": ["train.resampling = @resampling.Mine()"],
    "losses": ["train.loss = @losses.Mine()"],
    "penalties": ["losses.Hinge.penalties = [@penalties.Mine()]"],
    "generator_penalties": ["train.generator_penalties = [@generator_penalties.Mine()]"],
    "updates": ["train.update = @updates.Mine()"],
    "augmentations": ["train.augmentation = @augmentations.Mine()"],
    "averages": ["train.averages = [@averages.Mine()]"],
    "curves": ["optimizers.Adam.lr = @curves.Mine()"],
    "optimizers": [
        "train.generator_optimizer = @optimizers.Mine()",
        "train.discriminator_optimizer = @optimizers.Mine()",
    ],
    "datasets": ["train.dataset = @datasets.Mine()"],
    "switches": ["train.switch = @switches.Mine()"],
    "growth": ["train.growth = @growth.Mine()"],
    "metrics": ["train.metrics = [@metrics.Mine()]", "evaluation.count = 500"],
    "features": [
        "train.metrics = [@metrics.FrechetDistance()]",
        "metrics.FrechetDistance.features = @features.Mine()",
        "evaluation.count = 500",
    ],
    "observers": ["train.observers = [@observers.Progress(), @observers.Mine()]"],
    "launchers": ["ablate.launcher = @launchers.Mine()"],
    HOOKS: [],
}
"""Bindings that use a component of each kind."""

MEASUREMENT = [
    "train.metrics = [@metrics.FrechetDistance()]",
    "metrics.FrechetDistance.features = @features.Digits()",
    "evaluation.count = 500",
]
"""Bindings that a launcher's trials need as well: a metric by which they are compared."""


def write_plugin(name: str, kind: str, folder: Path, single_file: bool = False) -> tuple[list[Path], list[str]]:
    """Write a new plugin.

    Args:
        name: Name of the distribution and its folder: letters, digits, - and _, beginning with a letter.
        kind: Kind of the component, a key of `components.KINDS`; or `hooks`.
        folder: Folder to write to.
        single_file: Whether to write one file for `--plugin` with an experiment, instead of a package.

    Returns:
        The files, and the commands that try the plugin.

    Raises:
        PluginError: The name or kind cannot be used, or files exist already; then nothing was written.
    """
    if kind not in KINDS_TO_WRITE:
        raise PluginError(
            f"--kind {kind}: no such kind{suggest(did_you_mean(kind, KINDS_TO_WRITE))}; "
            f"kinds are {', '.join(KINDS_TO_WRITE)}"
        )
    module, component = _derive_names(name)
    _require_free(module, f"{kind}.{component}")

    # The templates' names become the plugin's own.
    if single_file:
        root = folder
        files = _fill_single_file(module, kind)
    else:
        root = folder / name
        files = _fill_package(name, module, component, kind)
    _require_other_names(files, component)
    texts = {}
    for path, text in files.items():
        # Other files have the names already; one of them, as `mine-too`, may hold that of a template.
        texts[path] = _rename_template(text, module, component) if path.endswith((".py", ".gin")) else text
    targets = [root / path for path in texts]

    # A package needs a folder of its own; a single file stands among others.
    must_be_new = targets if single_file else [root]
    existing = [path for path in must_be_new if path.exists()]
    if existing:
        raise PluginError(f"{existing[0]} exists already; choose another name, or another folder with --into")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if single_file:
            _write_files(folder, texts)
        else:
            with make_whole_folder(root) as aside:
                _write_files(aside, texts)
    except OSError as error:
        raise PluginError(f"cannot write {root}: {error.strerror}") from error
    return targets, _list_commands(root, module, kind, single_file)


def _write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Write new files, by their paths within a folder; if one cannot be written, remove those that were.

    Raises:
        OSError: A file cannot be written.
    """
    written = []
    try:
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            written.append(path)
            path.write_text(text, encoding="utf-8")
    except OSError:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _derive_names(name: str) -> tuple[str, str]:
    """Return the names of the module and the component: `my-loss` -> `my_loss`, `MyLoss`.

    Raises:
        PluginError: The name has other characters, or is one of Python's own.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*", name):
        raise PluginError(f"NAME {name}: use letters, digits, - and _, beginning with a letter, as my-loss")
    module = name.lower().replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names:
        raise PluginError(f"NAME {name}: Python itself has something called {module}; choose another name")
    if module in RESERVED:
        raise PluginError(
            f"NAME {name}: setuptools or pytest would take {module}.py for a file of their own; choose another name"
        )
    words = re.split("[-_]", name)
    return module, "".join(word[0].upper() + word[1:] for word in words)


def _require_free(module: str, selector: str) -> None:
    """Check that no installed plugin, module or component has the name."""
    if importlib.util.find_spec(module) is not None:
        raise PluginError(f"NAME {module}: a module of this name is installed already; choose another name")
    for plugin, _ in find_installed_plugins():
        if plugin.name == module:
            raise PluginError(
                f"NAME {module}: a plugin of this name is installed ({plugin.origin}); choose another name"
            )
    row = load_plugins().rows.get(selector)
    if row is not None:
        raise PluginError(f"NAME: {selector} comes with {row.plugin.name} ({row.plugin.origin}); choose another name")


def _fill_package(name: str, module: str, component: str, kind: str) -> dict[str, str]:
    """Return the text of each file of a package, by its path."""
    if kind == HOOKS:
        brings = "hooks that take part in every run"
        use = "It needs no config: every run calls its hooks."
    else:
        brings = f"`{kind}.{component}`"
        bindings = _rename_template("\n".join(USES[kind]), module, component)
        use = f"In a config:\n\n```gin\n{bindings}\n```"

    # The first two files have placeholders; those of Python are plugins themselves, and are renamed later.
    values = {
        "name": name,
        "module": module,
        "brings": brings,
        "description": f"A plugin for pggan_kit: {brings.replace('`', '')}",
        "try": _choose_command(kind),
        "use": use,
    }
    return {
        "pyproject.toml": Template(_read_template("pyproject.toml.txt")).substitute(values),
        "README.md": Template(_read_template("README.md.txt")).substitute(values),
        ".github/workflows/test.yml": _read_template("test.yml.txt"),
        ".github/workflows/release.yml": _read_template("release.yml.txt"),
        f"{module}.py": _read_template(f"{kind}.py"),
        f"tests/test_{module}.py": _read_template(f"tests/{kind}.py"),
        **_fill_experiments("try.gin", kind),
    }


def _fill_single_file(module: str, kind: str) -> dict[str, str]:
    """Return the text of a plugin in one file and of its experiment, by path."""
    return {f"{module}.py": _read_template(f"{kind}.py"), **_fill_experiments(f"{module}.gin", kind)}


def _fill_experiments(file: str, kind: str) -> dict[str, str]:
    """Return an experiment that uses the component, by its path; for a launcher an ablation and its base."""
    if kind != "launchers":
        return {file: _fill_experiment("A small experiment with this plugin; raise the budgets for good images.", kind)}
    base = "base.gin" if file == "try.gin" else file.replace(".gin", "_base.gin")
    ablation = _read_template("ablation.gin").replace("base.gin", base)
    return {file: ablation, base: _fill_experiment("The experiment that the trials train.", kind)}


def _fill_experiment(head: str, kind: str) -> str:
    """Return the small experiment, in which the new component replaces the one of its kind."""
    new_bindings = MEASUREMENT if kind == "launchers" else USES[kind]
    replaced = {binding.partition(" =")[0] for binding in new_bindings}

    # The settings of the replaced component go with it; a loss takes its penalties along.
    replaced_kinds = [kind]
    if kind == "losses":
        replaced_kinds.append("penalties")

    lines = [f"# {head}"]
    for line in _read_template("experiment.gin").splitlines():
        target = line.partition(" =")[0]
        if target not in replaced and target.partition(".")[0] not in replaced_kinds:
            lines.append(line)
    if new_bindings:
        lines += ["", "# This plugin:", *new_bindings]
    return "\n".join([*lines, ""])


def _list_commands(root: Path, module: str, kind: str, single_file: bool) -> list[str]:
    """Return the commands that try a plugin: for a package install, run, test."""
    command = f"pggan-kit {_choose_command(kind)}"
    if single_file:
        return [f"{command} {quote_path(root / f'{module}.gin')} --plugin {quote_path(root / f'{module}.py')}"]
    here = quote_path(root)
    return [f"pip install -e {here}", f"{command} {quote_path(root / 'try.gin')}", f"pytest {here}"]


def _choose_command(kind: str) -> str:
    return "ablate" if kind == "launchers" else "train"


def _require_other_names(files: Mapping[str, str], component: str) -> None:
    """Check that the templates use the component's name for nothing else.

    Raises:
        PluginError: A class, function, import or variable has it.
    """
    for path, text in files.items():
        if not path.endswith(".py"):
            continue
        used: set[str] = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Name):
                used.add(node.id)
            elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                used.add(node.name)
            elif isinstance(node, ast.alias):
                used.add(node.asname or node.name)
        if component in used - {"Mine", "TestMine"}:
            raise PluginError(
                f"NAME: {component} has another meaning in the file that would be written; choose another name"
            )


def _rename_template(text: str, module: str, component: str) -> str:
    """Return a template with the names of the module, the component and its tests."""
    new_names = {"mine": module, "Mine": component, "TestMine": f"Test{component}"}
    return re.sub(r"\b(Mine|mine|TestMine)\b", lambda match: new_names[match[0]], text)


def _read_template(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")
