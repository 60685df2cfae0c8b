"""`plugins list`, `plugins show`, `--no-plugin`, and two plugins of one name."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from conftest import STUB

from pggan_kit.api import prepare as api
from pggan_kit.errors import PluginError
from pggan_kit.plugin_host import catalogue
from pggan_kit.plugin_host.loading import load_plugins

HEAD = "from pggan_kit import Component, hookimpl\n"


@pytest.fixture
def twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install two distributions, each with a plugin named `extras` that saves state."""
    for name, part in (("acme-parts", "Acme"), ("zenith-parts", "Zenith")):
        module = name.replace("-", "_")
        monkeypatch.delitem(sys.modules, module, raising=False)  # an earlier test imported it
        source = HEAD + (
            f"class {part}:\n    @hookimpl\n    def fade_alpha(self, progress): return progress\n"
            f"@hookimpl\ndef components(): return [Component('switches', '{part}', {part})]\n"
            f"@hookimpl\ndef save_state(run): return {{'of': '{name}'}}\n"
        )
        info = tmp_path / "site" / f"{module}-2.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.1\n")
        (info / "entry_points.txt").write_text(f"[pggan_kit]\nextras = {module}\n")
        (tmp_path / "site" / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def list_plugins(cli: Callable[..., Result], *options: object) -> dict[str, dict[str, Any]]:
    result = cli("plugins", "list", "--json", *options)
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["plugins"]
    return {f"{row['distribution']}:{row['plugin']}" if row["distribution"] else row["plugin"]: row for row in rows}


def test_list_shows_plugin_distribution_version_components_hooks(cli: Callable[..., Result]) -> None:
    rows = list_plugins(cli, "--plugin", STUB)
    assert rows["stub_plugin.py"] == {
        "plugin": "stub_plugin.py",
        "distribution": None,
        "version": None,
        "origin": str(STUB),
        "folder": None,
        "parts": ["datasets.Stub", "augmentations.Noise", "observers.Meddler"],
        "hooks": {hook: ["observers.Meddler"] for hook in ("after_step", "after_tick", "before_stage")},
        "blocked": False,
        "broken": None,
    }
    switches = rows["pggan_kit:switches"]
    assert switches["version"] and "switches.Plateau" in switches["parts"]
    assert "switches.Hard" in switches["hooks"]["fade_alpha"]
    assert switches["hooks"]["should_advance"] == ["switches.Plateau"]
    table = cli("plugins", "list").stdout
    for word in ("plugin", "distribution", "version", "losses.Hinge", "should_advance (Plateau)"):
        assert word in table


def test_a_plugin_of_hooks_alone_is_listed_with_them(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "diary.py").write_text(HEAD + "@hookimpl\ndef after_run(run): ...\n")
    assert list_plugins(cli, "--plugin", "diary.py")["diary.py"]["hooks"] == {"after_run": ["diary.py"]}
    assert "hooks only" in cli("plugins", "list", "--plugin", "diary.py").stdout


def test_two_plugins_of_one_name_are_distinguished_by_their_distributions(
    twins: None, cli: Callable[..., Result], tiny: Callable[..., str]
) -> None:
    rows = list_plugins(cli)
    assert rows["acme-parts:extras"]["parts"] == ["switches.Acme"]
    assert rows["zenith-parts:extras"]["parts"] == ["switches.Zenith"]
    saved = api.prepare(tiny(), plugins=[STUB]).hooks().collect("save_state", run=None)
    assert saved["acme-parts:extras"] == {"of": "acme-parts"}
    assert saved["zenith-parts:extras"] == {"of": "zenith-parts"}


def test_one_of_two_is_blocked_by_its_distribution_and_both_by_their_name(
    twins: None, cli: Callable[..., Result]
) -> None:
    rows = list_plugins(cli, "--no-plugin", "acme-parts:extras")
    assert rows["acme-parts:extras"]["blocked"] and not rows["zenith-parts:extras"]["blocked"]
    rows = list_plugins(cli, "--no-plugin", "extras")
    assert rows["acme-parts:extras"]["blocked"] and rows["zenith-parts:extras"]["blocked"]
    assert "blocked" in cli("plugins", "list", "--no-plugin", "extras").stdout
    assert not list_plugins(cli)["acme-parts:extras"]["blocked"], "the block outlives its command"


def test_a_block_joins_the_environments_and_reaches_other_processes(
    twins: None, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGGAN_KIT_NO_PLUGINS", "metrics")
    noting = "import os\n" + HEAD + "open('seen', 'w').write(os.environ['PGGAN_KIT_NO_PLUGINS'])\n"
    (tmp_path / "noting.py").write_text(noting + "@hookimpl\ndef after_run(): ...\n")
    rows = list_plugins(cli, "--no-plugin", "features", "--no-plugin", "extras", "--plugin", "noting.py")
    assert Path("seen").read_text() == "metrics,features,extras"
    assert {row["plugin"] for row in rows.values() if row["blocked"]} == {"metrics", "features", "extras"}
    assert os.environ["PGGAN_KIT_NO_PLUGINS"] == "metrics"


def test_a_plugin_that_a_run_left_out_is_left_out_when_it_continues(
    twins: None, cli: Callable[..., Result], tiny: Callable[..., str]
) -> None:
    file = tiny("schedule.sizes = (4,)")
    result = cli("train", file, "--plugin", STUB, "--no-plugin", "acme-parts:extras", "--run-dir", "run")
    assert result.exit_code == 0, result.output
    about = json.loads(Path("run/run.json").read_text())
    assert about["blocked"] == ["acme-parts:extras"]
    assert {p["origin"] for p in about["plugins"] if p["name"] == "extras"} == {"zenith-parts 2.1"}
    prepared, _ = api.prepare_run("run", [])
    assert [plugin.key for plugin in prepared.plugins.blocked] == ["acme-parts:extras"]
    assert cli("sample", "run", "--count", 1, "--out", "x.png", "--no-plugin", "zenith-parts:extras").exit_code == 0


NO_SUCH_PLUGIN = {
    "lossess": r"--no-plugin lossess: no installed plugin has this name \(did you mean losses\?\)",
    "pggan_kit:loss": r"\(did you mean pggan_kit:losses\?\)",
    "stub_plugin.py": "no installed plugin has this name; a plugin file is left out by a command without --plugin$",
}


@pytest.mark.parametrize("name", NO_SUCH_PLUGIN)
@pytest.mark.parametrize("command", [("train", "x.gin"), ("resume", "x"), ("plugins", "list"), ("plan", "x.gin")])
def test_blocking_a_plugin_that_does_not_exist_is_refused(
    name: str, command: tuple[str, ...], cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    refused(cli(*command, "--no-plugin", name), NO_SUCH_PLUGIN[name])


def test_a_component_of_a_blocked_plugin_is_unknown(rejected: Callable[..., str]) -> None:
    rejected(r"unknown component losses\.Hinge", args=["--no-plugin", "losses"])


def test_show_has_signature_docstring_defaults_and_source(cli: Callable[..., Result]) -> None:
    shown = cli("plugins", "show", "losses.WGANGP").stdout
    description = json.loads(cli("plugins", "show", "losses.WGANGP", "--json").stdout)
    assert description["plugin"] == "losses" and description["origin"].startswith("pggan_kit ")
    assert description["signature"].startswith("losses.WGANGP(penalties: ")
    (penalties,) = description["parameters"]
    assert penalties["default_gin"] == "[@penalties.GradientPenalty(), @penalties.Drift()]"
    assert Path(description["file"]).name == "wgan_gp.py"
    lines = Path(description["file"]).read_text().splitlines()
    assert lines[description["line"] - 1].startswith("class WGANGP") and description["source"].startswith(
        "class WGANGP"
    )
    for word in ("losses.WGANGP(", "of plugin losses", "D maximises", "[@penalties.GradientPenalty()", "wgan_gp.py:"):
        assert word in shown, word


def test_show_of_a_component_with_plain_defaults_and_hooks(cli: Callable[..., Result]) -> None:
    description = json.loads(cli("plugins", "show", "switches.Staircase", "--json").stdout)
    assert description["hooks"] == ["fade_alpha"]
    defaults = {row["name"]: (row["type"], row["default"]) for row in description["parameters"]}
    assert all(type_ is not None for type_, _ in defaults.values())


NO_SUCH_COMPONENT = {
    "losses.Hinges": r"there is no \w+ losses\.Hinges \(did you mean losses\.Hinge\?\); the losses are WGANGP, ",
    "loses.Hinge": r"there is no \w+ loses\.Hinge \(did you mean losses\.Hinge\?\); name it KIND\.NAME",
    "hinge": r"there is no \w+ hinge \(did you mean losses\.Hinge\?\)",
    "losses": r"there is no \w+ losses; the losses are ",
    "": r"there is no \w+ ; name it KIND",
}


@pytest.mark.parametrize("selector", NO_SUCH_COMPONENT)
def test_a_component_that_does_not_exist_is_refused(
    selector: str, cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    refused(cli("plugins", "show", selector), NO_SUCH_COMPONENT[selector])


def test_a_blocked_component_is_not_shown_and_its_plugin_is_named(
    cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    refused(cli("plugins", "show", "losses.Hinge", "--no-plugin", "losses"), "blocked plugins: pggan_kit:losses")


def test_a_component_without_a_source_is_shown(tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text(HEAD + "@hookimpl\ndef components(): return [Component('observers', 'D', dict)]\n")
    description = catalogue.describe_component(load_plugins([tmp_path / "c.py"]), "observers.D")
    assert description["source"] is None and description["parameters"] == []


def test_two_components_of_one_name_are_refused_with_the_remedy(twins: None, tmp_path: Path) -> None:
    (tmp_path / "site" / "acme_parts.py").write_text(
        HEAD + "@hookimpl\ndef components(): return [Component('observers', 'Z', object)]\n"
    )
    (tmp_path / "site" / "zenith_parts.py").write_text((tmp_path / "site" / "acme_parts.py").read_text())
    with pytest.raises(PluginError, match=r"observers\.Z, .*block one: --no-plugin (acme|zenith)-parts:extras"):
        load_plugins()
