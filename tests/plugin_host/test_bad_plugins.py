"""Plugins that are broken: each is refused with its own name and what to do, and nothing is left behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from pggan_kit import Component, hookimpl
from pggan_kit.errors import PluginError
from pggan_kit.plugin_host.loading import load

HEAD = "from pggan_kit import Component, hookimpl\n"


def rows(*text: str) -> str:
    """The source of a plugin that brings these rows."""
    return f"@hookimpl\ndef components():\n    return [{', '.join(text)}]\n"


def switch(body: str, marked: bool = True) -> str:
    """The source of a plugin with a switch of this body."""
    mark = "    @hookimpl\n" if marked else ""
    return f"class Mine:\n{mark}    {body}\n" + rows("Component('switches', 'Mine', Mine)")


LOADING = {
    "import fails": (
        "import no_such_module_at_all",
        r"plugin bad\.py cannot be imported: ModuleNotFoundError: .*no_such",
    ),
    "import exits": ("raise SystemExit(0)", r"plugin bad\.py cannot be imported: SystemExit"),
    "syntax": ("def (", r"plugin bad\.py cannot be imported: SyntaxError"),
    "zero bytes": ("\0\0", r"plugin bad\.py cannot be imported: (SyntaxError|ValueError)"),
    "no hook": ("x = 1", r"plugin bad\.py .* implements no hook; mark one with @pggan_kit\.hookimpl"),
    "unmarked components": (rows().replace("@hookimpl\n", ""), r"components\(\) is named like a hook, so mark it"),
    "misspelt hook": ("@hookimpl\ndef befor_run(run): ...", r"befor_run is no hook \(did you mean before_run\?\)"),
    "argument that is not given": (
        "@hookimpl\ndef before_run(runn): ...",
        r"before_run\(\) takes runn, which this hook does not give \(did you mean run\?\); it gives run",
    ),
    "wrapper": ("@hookimpl(wrapper=True)\ndef before_run(run):\n    yield", r"before_run is a wrapper"),
    "old wrapper": ("@hookimpl(hookwrapper=True)\ndef before_run(run):\n    yield", r"before_run is a wrapper"),
    "name taken": (
        rows("Component('losses', 'Hinge', object)"),
        r"bad\.py \(.*\) registers losses\.Hinge, which losses \(pggan_kit .*\) already brings; rename one, or block",
    ),
    "name twice": (
        rows("*[Component('observers', 'A', object)] * 2"),
        r"registers observers\.A, which bad\.py .* already",
    ),
    "unknown kind": (
        rows("Component('loses', 'A', object)"),
        r"A is of an unknown kind 'loses' \(did you mean losses\?\)",
    ),
    "no factory": (rows("Component('losses', 'A', 3)"), r"needs an identifier as its name and a class or function"),
    "no name": (rows("Component('losses', 'a b', object)"), r"losses\.a b needs an identifier as its name"),
    "components of None": ("@hookimpl\ndef components(): ...", r"components\(\) raised TypeError"),
    "components of text": (
        "@hookimpl\ndef components(): return 'ab'",
        r"components\(\) returns Component rows, not 'a'",
    ),
    "components of tuples": (rows("('losses', 'A', object)"), r"returns Component rows, not \('losses'"),
    "components raises": ("@hookimpl\ndef components(): return 1 / 0", r"components\(\) raised ZeroDivisionError"),
    "missing method": (
        "class A:\n    def generator(self, fake, real): ...\n" + rows("Component('losses', 'A', A)"),
        r"losses\.A is no Loss: it has no discriminator\(\)",
    ),
    "missing call": (
        "class A: ...\n" + rows("Component('penalties', 'A', A)"),
        r"is no Penalty: it has no __call__\(\)",
    ),
    "method without arguments": (
        "class A:\n    def generator(self, fake, real): ...\n    def discriminator(self, real): ...\n"
        + rows("Component('losses', 'A', A)"),
        r"losses\.A is no Loss: discriminator\(\) must take real, fake$",
    ),
    "method that is none": (
        "class A:\n    build = 3\n" + rows("Component('optimizers', 'A', A)"),
        r"optimizers\.A is no Optimizer: build\(\) must take params, stage$",
    ),
    "unmarked hook": (
        switch("def fade_alpha(self, progress): return progress", marked=False),
        r"switches\.Mine: fade_alpha\(\) is named like a hook, so mark it with @pggan_kit\.hookimpl, or rename it",
    ),
    "override of a marked hook": (
        "from pggan_plugins.switches import Linear\n"
        "class Mine(Linear):\n    def fade_alpha(self, progress): return 1.0\n"
        + rows("Component('switches', 'Mine', Mine)"),
        r"fade_alpha\(\) is named like a hook, so mark it",
    ),
    "misspelt hook of a part": (
        switch("def fade_alpha(self): ...\n    @hookimpl\n    def after_fad(self): ..."),
        r"switches\.Mine: after_fad is no hook \(did you mean after_fade\?\)",
    ),
    "hook of a part with a strange argument": (
        switch("def fade_alpha(self, progres): ..."),
        r"fade_alpha\(\) takes progres, which this hook does not give \(did you mean progress\?\)",
    ),
    "default of unknown parameter": (
        rows("Component('observers', 'A', object, {'x': '1'})"),
        r"defaults of observers\.A: observers\.A has no parameter x",
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
        r"losses\.Mine is no Loss: it has no attribute needs_real",
    ),
    "function that makes something else": (
        "def Mine(): return 3\n",
        r"losses\.Mine is no Loss: it has no discriminator",
    ),
    "function that makes nothing": ("def Mine(): ...\n", r"losses\.Mine is no Loss: it has no discriminator"),
    "constructor with a bug": (
        "class Mine:\n    def __init__(self): {}['gone']\n"
        "    def generator(self, fake, real): ...\n    def discriminator(self, real, fake): ...\n",
        r"losses\.Mine of plugin bad\.py \(.*\) cannot be made: KeyError\('gone'\)",
    ),
}


@pytest.mark.parametrize("case", BUILDING)
def test_a_part_that_breaks_its_contract_when_made_is_refused(
    case: str, rejected: Callable[..., str], tmp_path: Path
) -> None:
    source, pattern = BUILDING[case]
    (tmp_path / "bad.py").write_text(HEAD + source + rows("Component('losses', 'Mine', Mine)"))
    rejected(pattern, "train.loss = @losses.Mine()", args=["--plugin", "bad.py"])


def test_a_plugin_that_is_no_python_file_is_refused(rejected: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text(HEAD)
    (tmp_path / "folder.py").mkdir()
    rejected(r"--plugin bad\.txt: a plugin file is Python and ends in \.py", args=["--plugin", "bad.txt"])
    rejected(r"--plugin folder\.py: cannot be read", args=["--plugin", "folder.py"])
    rejected(r"--plugin nope\.py: no such file", args=["--plugin", "nope.py"])


def test_two_files_of_one_name_are_refused(rejected: Callable[..., str], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(HEAD + rows())
    args = ["--plugin", "a/mine.py", "--plugin", "b/mine.py"]
    rejected(r"two plugins are named mine\.py .*; rename one", args=args)


def test_a_file_may_be_named_like_an_installed_plugin(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text(HEAD + "class A: ...\n" + rows("Component('observers', 'A', A)"))
    result = cli("plugins", "list", "--plugin", "losses.py")
    assert result.exit_code == 0, result.output


def test_a_broken_installed_plugin_is_named_and_can_be_left_out(
    cli: Callable[..., Result], refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A distribution with an entry point to a module that cannot be imported, on the path of this process."""
    info = tmp_path / "site" / "third_party-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third_party\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[pggan_kit]\nthird = no_such_module_of_third_party\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    message = refused(cli("plugins", "list"), r"plugin third \(third_party 1\.2\) cannot be imported: ModuleNotFound")
    assert "PGGAN_KIT_NO_PLUGINS=third" in message
    monkeypatch.setenv("PGGAN_KIT_NO_PLUGINS", "other, third")
    result = cli("plugins", "list")
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if "third" in line and "blocked" in line]


def test_an_object_without_hooks_and_a_class_are_refused() -> None:
    class Listener:
        @hookimpl
        def before_run(self) -> None: ...

    with pytest.raises(PluginError, match=r"Listener is a class: give an instance of it, Listener\(\)"):
        load([Listener])
    with pytest.raises(PluginError, match="implements no hook"):
        load([object()])
    with pytest.raises(PluginError, match="two plugins are named Listener"):
        load([Listener(), Listener()])
    with pytest.raises(PluginError, match=r"caller .* registers losses\.Hinge, which losses"):
        load([Component("losses", "Hinge", object)])
