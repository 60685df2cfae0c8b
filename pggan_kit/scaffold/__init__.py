"""New plugins: an installable package, or one file, that works from the first minute.

The templates are plugins themselves, whose part is called `Mine` and whose module is `mine`; the experiment beside them
is a user's file, and so names parts that come with pggan_kit.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from importlib import resources
from pathlib import Path
from string import Template

from pggan_kit.components import KINDS
from pggan_kit.errors import PluginError, did_you_mean, suggest
from pggan_kit.plugin_host.loading import installed, load

HOOKS = "hooks"
"""The kind of a plugin that brings no part."""

KINDS_TO_WRITE = (*KINDS, HOOKS)

USES = {
    "architectures": ["train.architecture = @architectures.Mine()"],
    "resampling": ["train.resampling = @resampling.Mine()"],
    "losses": ["train.loss = @losses.Mine()"],
    "penalties": ["losses.Hinge.penalties = [@penalties.Mine()]"],
    "updates": ["train.update = @updates.Mine()"],
    "augmentations": ["train.augmentation = @augmentations.Mine()"],
    "optimizers": [
        "train.generator_optimizer = @optimizers.Mine()",
        "train.discriminator_optimizer = @optimizers.Mine()",
    ],
    "datasets": ["train.dataset = @datasets.Mine()"],
    "switches": ["train.switch = @switches.Mine()"],
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
"""Lines of a config that put a part of each kind to use."""

MEASURED = [
    "train.metrics = [@metrics.FrechetDistance()]",
    "metrics.FrechetDistance.features = @features.Digits()",
    "evaluation.count = 500",
]
"""What a launcher's trials need beside: a number to compare them by."""


def write(name: str, kind: str, folder: Path, single_file: bool = False) -> tuple[list[Path], list[str]]:
    """Write a new plugin.

    Args:
        name: of the distribution and its folder: letters, digits, - and _, beginning with a letter.
        kind: of the part, a key of `components.KINDS`; or `hooks`.
        folder: where to put it.
        single_file: one file for `--plugin`, and an experiment beside it.

    Returns:
        The files, and the commands that try it.

    Raises:
        PluginError: a name or kind that cannot be, or files that are there already; then nothing was written.
    """
    if kind not in KINDS_TO_WRITE:
        raise PluginError(
            f"--kind {kind}: no such kind{suggest(did_you_mean(kind, KINDS_TO_WRITE))}; "
            f"kinds are {', '.join(KINDS_TO_WRITE)}"
        )
    module, part = _names(name)
    _require_free(module, f"{kind}.{part}")
    renamed = {"Mine": part, "mine": module}
    files = _single_file(module, kind) if single_file else _package(name, module, part, kind)
    root = folder if single_file else folder / name
    targets = {root / path: _renamed(text, renamed) for path, text in files.items()}
    taken = [path for path in (targets if single_file else [root]) if path.exists()]
    if taken:
        raise PluginError(f"{taken[0]} is there already; choose another name, or another folder with --into")
    try:
        for path, text in targets.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PluginError(f"cannot write {path}: {error.strerror}") from error
    return list(targets), _commands(root, module, kind, single_file)


def _names(name: str) -> tuple[str, str]:
    """The module's and the part's: `my-loss` -> `my_loss`, `MyLoss`."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*", name):
        raise PluginError(f"NAME {name}: use letters, digits, - and _, beginning with a letter, as my-loss")
    module = name.lower().replace("-", "_")
    part = "".join(word[0].upper() + word[1:] for word in re.split("[-_]", name))
    if keyword.iskeyword(module) or module in sys.stdlib_module_names:
        raise PluginError(f"NAME {name}: Python itself has something called {module}; choose another")
    return module, part


def _require_free(module: str, selector: str) -> None:
    """Check that no installed plugin or module has the name, and no part."""
    if importlib.util.find_spec(module) is not None:
        raise PluginError(f"NAME {module}: a module of this name is installed already; choose another")
    for plugin, _ in installed():
        if plugin.name == module:
            raise PluginError(f"NAME {module}: a plugin of this name is installed ({plugin.origin}); choose another")
    row = load().rows.get(selector)
    if row is not None:
        raise PluginError(f"NAME: {selector} comes with {row.plugin.name} ({row.plugin.origin}); choose another")


def _package(name: str, module: str, part: str, kind: str) -> dict[str, str]:
    brings = "hooks that every run hears" if kind == HOOKS else f"`{kind}.{part}`"
    use = "It needs no config: every run hears its hooks." if kind == HOOKS else "In a config:\n\n```gin\n{}\n```"
    values = {
        "name": name,
        "module": module,
        "brings": brings,
        "description": f"A plugin for pggan_kit: {brings.replace('`', '')}",
        "try": _verb(kind),
        "use": use.format("\n".join(USES[kind])),
    }
    return {
        "pyproject.toml": Template(_template("pyproject.toml.txt")).substitute(values),
        "README.md": Template(_template("README.md.txt")).substitute(values),
        f"{module}.py": _template(f"{kind}.py"),
        f"tests/test_{module}.py": _template(f"tests/{kind}.py"),
        **_experiments("try.gin", kind),
    }


def _single_file(module: str, kind: str) -> dict[str, str]:
    return {f"{module}.py": _template(f"{kind}.py"), **_experiments(f"{module}.gin", kind)}


def _experiments(file: str, kind: str) -> dict[str, str]:
    """An experiment that uses the part; of a launcher, an ablation and the experiment that it varies."""
    if kind != "launchers":
        return {file: _experiment("A small experiment with this plugin; raise the budgets for pictures.", kind)}
    base = "base.gin" if file == "try.gin" else file.replace(".gin", "_base.gin")
    ablation = _template("ablation.gin").replace("base.gin", base)
    return {file: ablation, base: _experiment("What the trials train.", kind)}


def _experiment(head: str, kind: str) -> str:
    """The small experiment, in which the part takes the place of what would be there else."""
    new = MEASURED if kind == "launchers" else USES[kind]
    replaced = {line.partition(" =")[0] for line in new}
    # Settings of what gives way.
    replaced |= {f"{gone}." for gone in (kind, *(["penalties"] if kind == "losses" else []))}
    kept = [
        line
        for line in _template("experiment.gin").splitlines()
        if not any(line.startswith(f"{name} =" if name[-1] != "." else name) for name in replaced)
    ]
    return "\n".join([f"# {head}", *kept, *(["", "# This plugin's:", *new] if new else []), ""])


def _commands(root: Path, module: str, kind: str, single_file: bool) -> list[str]:
    if single_file:
        return [f"pggan-kit {_verb(kind)} {root / module}.gin --plugin {root / module}.py"]
    return [f"pip install -e {root}", f"pggan-kit {_verb(kind)} {root / 'try.gin'}", f"pytest {root}"]


def _verb(kind: str) -> str:
    return "ablate" if kind == "launchers" else "train"


def _renamed(text: str, renamed: dict[str, str]) -> str:
    return re.sub(r"\b(Mine|mine|TestMine)\b", lambda m: renamed.get(m[0], f"Test{renamed['Mine']}"), text)


def _template(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")
