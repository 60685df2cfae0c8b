"""Broken plugins: each is refused by name, with what to do, and leaves nothing behind."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from pggan_kit import Component, hookimpl
from pggan_kit.errors import PluginError
from pggan_kit.plugin_host.loading import Plugin, Plugins, load_plugins

HEAD = "from pggan_kit import Component, hookimpl\n"


def write_components(*rows: str) -> str:
    """Return the source of a hook `components` that returns these rows."""
    return f"@hookimpl\ndef components():\n    return [{', '.join(rows)}]\n"


def write_switch(method: str, marked: bool = True) -> str:
    """Return the source of a plugin with a switch that has this method."""
    mark = "    @hookimpl\n" if marked else ""
    return f"class Mine:\n{mark}    {method}\n" + write_components("Component('switches', 'Mine', Mine)")


LOADING = {
    "import fails": (
        "import no_such_module_at_all",
        r"plugin bad\.py cannot be imported: ModuleNotFoundError: .*no_such",
    ),
    "import exits": ("raise SystemExit(0)", r"plugin bad\.py cannot be imported: SystemExit"),
    "syntax": ("def (", r"plugin bad\.py cannot be imported: SyntaxError"),
    "zero bytes": ("\0\0", r"plugin bad\.py cannot be imported: (SyntaxError|ValueError)"),
    "no hook": ("x = 1", r"plugin bad\.py .* implements no hook; mark one with @pggan_kit\.hookimpl"),
    "unmarked components": (
        write_components().replace("@hookimpl\n", ""),
        r"components\(\) is named like a hook, so mark it",
    ),
    "misspelt hook": ("@hookimpl\ndef befor_run(run): ...", r"befor_run is not a hook \(did you mean before_run\?\)"),
    "argument that the hook does not have": (
        "@hookimpl\ndef before_run(runn): ...",
        r"before_run\(\) requires runn, which is not an argument of this hook \(did you mean run\?\); it has run",
    ),
    "wrapper": ("@hookimpl(wrapper=True)\ndef before_run(run):\n    yield", r"before_run is a wrapper"),
    "old wrapper": ("@hookimpl(hookwrapper=True)\ndef before_run(run):\n    yield", r"before_run is a wrapper"),
    "asks for a place": ("@hookimpl(tryfirst=True)\ndef before_run(run): ...", r"before_run has tryfirst or trylast"),
    "coroutine": ("@hookimpl\nasync def before_run(run): ...", r"before_run\(\) is an `async def`, .*: write `def`$"),
    "generator": (
        "@hookimpl\ndef before_run(run):\n    yield",
        r"before_run\(\) has a `yield`, .*: return the result$",
    ),
    "asynchronous generator": ("@hookimpl\nasync def before_run(run):\n    yield", r"before_run\(\) is an `async def`"),
    "asynchronous components": ("@hookimpl\nasync def components():\n    yield", r"components\(\) is an `async def`"),
    "partial object": (
        "import functools\nbefore_run = hookimpl(functools.partial(print, 2))",
        r"before_run is marked with @pggan_kit\.hookimpl and is a partial, which is never called: mark a function",
    ),
    "cached hook": (
        "import functools\n@hookimpl\n@functools.lru_cache\ndef before_run(run): ...",
        r"before_run is marked .* and is a _lru_cache_wrapper, which is never called",
    ),
    "cached hook without a mark": (
        "import functools\n@functools.lru_cache\ndef before_run(run): ...",
        r"before_run\(\) is named like a hook, so mark it",
    ),
    "mark above staticmethod": (
        write_switch("@staticmethod\n    def fade_alpha(progress): ..."),
        r"switches\.Mine: fade_alpha is marked .* and is a staticmethod, .* below a @staticmethod or @classmethod$",
    ),
    "keyword-only argument": (
        "@hookimpl\ndef before_run(*, run): ...",
        r"before_run\(\) takes run keyword-only, and would not be given it: remove the \* or / from its signature$",
    ),
    "keyword-only argument with a default": (
        "@hookimpl\ndef before_run(*, run=None): ...",
        r"before_run\(\) takes run keyword-only",
    ),
    "positional-only argument": (
        write_switch("def fade_alpha(self, progress, /): ..."),
        r"fade_alpha\(\) takes progress positional-only, and would not be given it",
    ),
    "one hook twice": (
        write_switch("def save_state(self): ...\n    @hookimpl(specname='save_state')\n    def save_more(self): ..."),
        r"switches\.Mine: save_more\(\) and save_state\(\) are both save_state: make them one function$",
    ),
    "name taken": (
        write_components("Component('losses', 'Hinge', object)"),
        r"bad\.py \(.*\) registers losses\.Hinge, which losses \(pggan_kit .*\) already brings; rename one, or block "
        r"one: --no-plugin pggan_kit:losses$",
    ),
    "name twice": (
        write_components("*[Component('observers', 'A', object)] * 2"),
        r"registers observers\.A, which bad\.py .* already",
    ),
    "unknown kind": (
        write_components("Component('loses', 'A', object)"),
        r"A is of an unknown kind 'loses' \(did you mean losses\?\)",
    ),
    "no factory": (
        write_components("Component('losses', 'A', 3)"),
        r"needs an identifier of ASCII letters as its name and a class or function",
    ),
    "no name": (write_components("Component('losses', 'a b', object)"), r"losses\.a b needs an identifier of ASCII"),
    "components of None": ("@hookimpl\ndef components(): ...", r"components\(\) raised TypeError"),
    "components of text": (
        "@hookimpl\ndef components(): return 'ab'",
        r"components\(\) returns Component rows, not 'a'",
    ),
    "components of tuples": (write_components("('losses', 'A', object)"), r"returns Component rows, not \('losses'"),
    "components exits": ("@hookimpl\ndef components(): raise SystemExit(0)", r"components\(\) raised SystemExit\(0\)"),
    "components raises": ("@hookimpl\ndef components(): return 1 / 0", r"components\(\) raised ZeroDivisionError"),
    "missing method": (
        "class A:\n    def generator(self, fake, real): ...\n" + write_components("Component('losses', 'A', A)"),
        r"losses\.A is not a valid Loss: it has no discriminator\(\)",
    ),
    "missing call": (
        "class A: ...\n" + write_components("Component('penalties', 'A', A)"),
        r"is not a valid Penalty: it has no __call__\(\)",
    ),
    "method without arguments": (
        "class A:\n    def generator(self, fake, real): ...\n    def discriminator(self, real): ...\n"
        + write_components("Component('losses', 'A', A)"),
        r"losses\.A is not a valid Loss: discriminator\(\) must take real, fake$",
    ),
    "attribute instead of a method": (
        "class A:\n    build = 3\n" + write_components("Component('optimizers', 'A', A)"),
        r"optimizers\.A is not a valid Optimizer: build\(\) must take params, stage$",
    ),
    "unmarked hook": (
        write_switch("def fade_alpha(self, progress): return progress", marked=False),
        r"switches\.Mine: fade_alpha\(\) is named like a hook, so mark it with @pggan_kit\.hookimpl, or rename it",
    ),
    "override of a marked hook": (
        "from pggan_plugins.switches import Linear\n"
        "class Mine(Linear):\n    def fade_alpha(self, progress): return 1.0\n"
        + write_components("Component('switches', 'Mine', Mine)"),
        r"fade_alpha\(\) is named like a hook, so mark it",
    ),
    "misspelt hook of a component": (
        write_switch("def fade_alpha(self): ...\n    @hookimpl\n    def after_fad(self): ..."),
        r"switches\.Mine: after_fad is not a hook \(did you mean after_fade\?\)",
    ),
    "hook of a component with an unknown argument": (
        write_switch("def fade_alpha(self, progres): ..."),
        r"fade_alpha\(\) requires progres, which is not an argument of this hook \(did you mean progress\?\)",
    ),
    "default of unknown parameter": (
        write_components("Component('observers', 'A', object, {'x': '1'})"),
        r"plugin bad\.py: the defaults of observers\.A have x, which is no parameter of it; it has none$",
    ),
    "misspelt default": (
        "class A:\n    def __init__(self, digits=4): ...\n"
        + write_components("Component('observers', 'A', A, {'digit': '1'})"),
        r"the defaults of observers\.A have digit, which is no parameter of it \(did you mean digits\?\); it has ",
    ),
    "defaults of None": (
        write_components("Component('observers', 'A', object, None)"),
        r"plugin bad\.py: the defaults of observers\.A are a NoneType, and must be a dict of gin values by parameter$",
    ),
    "list of kinds": (
        write_components("Component(['observers'], 'A', object)"),
        r"plugin bad\.py: A is of an unknown kind \['observers'\]",
    ),
    "name that gin has not": (
        write_components("Component('observers', 'Äpfel', object)"),
        r"plugin bad\.py: observers\.Äpfel needs an identifier of ASCII letters as its name",
    ),
}


@pytest.mark.parametrize("case", LOADING)
def test_a_broken_plugin_file_is_refused(case: str, rejected: Callable[..., str], tmp_path: Path) -> None:
    source, pattern = LOADING[case]
    (tmp_path / "bad.py").write_text(HEAD + source)
    rejected(pattern, args=["--plugin", "bad.py"])


BUILDING = {
    "attribute missing": (
        "class Mine:\n    def generator(self, fake, real): ...\n    def discriminator(self, real, fake): ...\n",
        r"losses\.Mine is not a valid Loss: it has no attribute needs_real",
    ),
    "function that makes something else": (
        "def Mine(): return 3\n",
        r"losses\.Mine is not a valid Loss: it has no discriminator",
    ),
    "function that makes nothing": ("def Mine(): ...\n", r"losses\.Mine is not a valid Loss: it has no discriminator"),
    "constructor that exits": (
        "class Mine:\n    def __init__(self): raise SystemExit(0)\n"
        "    def generator(self, fake, real): ...\n    def discriminator(self, real, fake): ...\n"
        "    needs_real = False\n    penalties = ()\n",
        r"losses\.Mine of plugin bad\.py \(.*\) cannot be made: SystemExit\(0\)",
    ),
    "argument by its place alone": (
        "class Mine:\n    def __init__(self, scale, /): ...\n",
        r"losses\.Mine takes scale by its place alone, and configs bind parameters by their names: remove the / from",
    ),
    "default of gin": (
        "import gin\nclass Mine:\n    def __init__(self, scale=gin.REQUIRED): ...\n"
        "    def generator(self, fake, real): ...\n    def discriminator(self, real, fake): ...\n",
        r"losses\.Mine of plugin bad\.py \(.*\) has gin\.REQUIRED as the default of scale: leave the default out",
    ),
    "constructor with a bug": (
        "class Mine:\n    def __init__(self): {}['gone']\n"
        "    def generator(self, fake, real): ...\n    def discriminator(self, real, fake): ...\n",
        r"losses\.Mine of plugin bad\.py \(.*\) cannot be made: KeyError\('gone'\)",
    ),
}


@pytest.mark.parametrize("case", BUILDING)
def test_a_component_that_breaks_its_contract_when_made_is_refused(
    case: str, rejected: Callable[..., str], tmp_path: Path
) -> None:
    source, pattern = BUILDING[case]
    (tmp_path / "bad.py").write_text(HEAD + source + write_components("Component('losses', 'Mine', Mine)"))
    rejected(pattern, "train.loss = @losses.Mine()", args=["--plugin", "bad.py"])


def test_a_plugin_that_is_not_a_python_file_is_refused(rejected: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text(HEAD)
    (tmp_path / "folder.py").mkdir()
    rejected(r"--plugin bad\.txt: a plugin file is Python and ends in \.py", args=["--plugin", "bad.txt"])
    rejected(r"--plugin folder\.py: cannot be read", args=["--plugin", "folder.py"])
    rejected(r"--plugin nope\.py: no such file", args=["--plugin", "nope.py"])


def test_two_files_of_one_name_are_refused(rejected: Callable[..., str], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(HEAD + write_components())
    args = ["--plugin", "a/mine.py", "--plugin", "b/mine.py"]
    rejected(r"two plugins are named mine\.py: .*a/mine\.py and .*b/mine\.py; rename one$", args=args)
    rejected(r"two plugins are named mine\.py: .*; give it once$", args=[*args[:2], "--plugin", "a/../a/mine.py"])


def test_two_files_with_one_component_are_refused_without_an_option_that_would_be(
    rejected: Callable[..., str], tmp_path: Path
) -> None:
    for name in ("one.py", "other.py"):
        (tmp_path / name).write_text(HEAD + write_components("Component('observers', 'A', object)"))
    pattern = r"other\.py \(.*\) registers observers\.A, which one\.py \(.*\) already brings; rename one$"
    rejected(pattern, args=["--plugin", "one.py", "--plugin", "other.py"])


NEIGHBOURS = {
    "a file": ("import helper_beside", r"beside/helper_beside\.py lies beside it"),
    "a package": ("from package_beside.inner import x", r"beside/package_beside lies beside it"),
    "a relative import": ("from . import helper_beside", r"what it imports lies beside it"),
}


@pytest.mark.parametrize("case", NEIGHBOURS)
def test_a_plugin_file_that_imports_its_neighbour_is_refused_with_what_to_do(
    case: str, rejected: Callable[..., str], tmp_path: Path
) -> None:
    line, pattern = NEIGHBOURS[case]
    (tmp_path / "beside" / "package_beside").mkdir(parents=True)
    (tmp_path / "beside" / "helper_beside.py").write_text("x = 1\n")
    (tmp_path / "beside" / "mine.py").write_text(f"{line}\n{HEAD}{write_components()}")
    pattern = rf"mine\.py cannot be imported: \w+: .*; .*{pattern}, and a plugin file is loaded alone"
    message = rejected(pattern, args=["--plugin", "beside/mine.py"])
    assert "make a package of them and install it (`pggan-kit plugins new`" in message


def test_a_file_may_be_named_like_an_installed_plugin(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text(HEAD + "class A: ...\n" + write_components("Component('observers', 'A', A)"))
    result = cli("plugins", "list", "--plugin", "losses.py")
    assert result.exit_code == 0, result.output


INSTALLED = {
    "its code is gone": (
        "third = no_such_module_of_third_party",
        r"cannot be imported: ModuleNotFoundError: .*; its code is gone: install it again, or .* pip uninstall third_",
    ),
    "it needs what is missing": ("third = third_party_code", r"cannot be .*: ModuleNotFoundError: .*; fix it; or"),
    "it has no such object": ("third = third_party_class:plugin", r"cannot be .*: AttributeError: .*; fix it; or"),
    "its entry point names a class": (
        "third = third_party_class:Plugin",
        r"is a class: let the entry point name an instance of it, MODULE:plugin, where MODULE has `plugin = Plugin",
    ),
}


@pytest.mark.parametrize("case", INSTALLED)
def test_a_broken_installed_plugin_is_named_and_listed_and_can_be_left_out(
    case: str,
    cli: Callable[..., Result],
    rejected: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A distribution with an entry point, as pip installs it.
    entry, pattern = INSTALLED[case]
    site = tmp_path / "site"
    info = site / "third_party-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third_party\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[pggan_kit]\n{entry}\n")
    (site / "third_party_code.py").write_text("import no_such_module_at_all\n")
    source = f"{HEAD}class Plugin:\n    @hookimpl\n    def before_run(self, run): ...\n"
    (site / "third_party_class.py").write_text(source)
    monkeypatch.syspath_prepend(str(site))

    # Commands fail and name it; the list says why.
    message = rejected(rf"^error: plugin third \(third_party 1\.2 in {re.escape(str(site))}\) {pattern}")
    (row,) = [row for row in json.loads(cli("plugins", "list", "--json").stdout)["plugins"] if row["plugin"] == "third"]
    assert f"error: {row['broken']}" == message and row["folder"] == str(site) and not row["blocked"]
    listed = cli("plugins", "list")
    assert listed.exit_code == 0 and row["broken"] in listed.stdout
    assert [line for line in listed.stdout.splitlines() if "third" in line and "broken" in line]

    # Left out, it disturbs nothing.
    monkeypatch.setenv("PGGAN_KIT_NO_PLUGINS", "other, third")
    result = cli("plugins", "list")
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if "third" in line and "blocked" in line]


def test_what_a_broken_plugin_has_registered_is_taken_back() -> None:
    class Half:
        @hookimpl
        def components(self) -> list[Component]:
            return [Component("observers", "Good", object), Component("observers", "Bad name", object)]

    plugins = Plugins()
    with pytest.raises(PluginError, match="needs an identifier"):
        plugins.add(Plugin("half", "test", Half()))
    assert (plugins.rows, plugins.loaded) == ({}, [])


def test_components_may_be_yielded_and_a_mark_stands_below_other_decorators() -> None:
    class Both:
        @hookimpl
        def components(self) -> Iterator[Component]:
            yield Component("observers", "Yielded", object)

        @staticmethod
        @hookimpl
        def before_run(run: Any) -> None: ...

    plugins = Plugins()
    plugins.add(Plugin("both", "test", Both()))
    assert list(plugins.rows) == ["observers.Yielded"]


def test_an_object_without_hooks_and_a_class_are_refused() -> None:
    class Watcher:
        @hookimpl
        def before_run(self) -> None: ...

    with pytest.raises(PluginError, match=r"plugin Watcher .* is a class: give an instance of it, Watcher\(\)$"):
        load_plugins([Watcher])
    with pytest.raises(PluginError, match="implements no hook"):
        load_plugins([object()])
    first, second = Watcher(), Watcher()
    with pytest.raises(PluginError, match=r"two plugins are named Watcher: .*; give one of the objects another name"):
        load_plugins([first, second])
    with pytest.raises(PluginError, match=r"two plugins are named Watcher: .*; give it once$"):
        load_plugins([first, first])
    second.__name__ = "second"  # type: ignore[attr-defined]
    assert [plugin.key for plugin in load_plugins([first, second]).loaded[-2:]] == ["Watcher", "second"]
    with pytest.raises(PluginError, match=r"caller .* registers losses\.Hinge, which losses"):
        load_plugins([Component("losses", "Hinge", object)])
