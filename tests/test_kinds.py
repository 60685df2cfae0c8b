"""Each kind of component stands in every place that CONTRIBUTING.md lists, which is the list for a new kind."""

from __future__ import annotations

import configparser
import dataclasses
import functools
import inspect
import re
from collections.abc import Callable

import pytest
from helpers.paths import ROOT

from pggan_kit import components, testing
from pggan_kit.ablation.settings import Ablation
from pggan_kit.components import KINDS
from pggan_kit.experiment import Experiment
from pggan_kit.plugin_host.loading import load_plugins
from pggan_kit.scaffold import USES

OF_OTHER_PARTS = {"penalties": "losses", "features": "metrics", "curves": "optimizers"}
"""Kinds that no setting of an experiment holds: a part of the other kind takes them."""

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


@functools.cache
def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def suites_of(kind: str) -> list[str]:
    """Return the names of the suites for a kind that `pggan_kit.testing` exports."""
    return [name for name in testing.__all__ if getattr(getattr(testing, name), "kind", None) == kind]


@functools.cache
def list_shipped(kind: str) -> list[str]:
    return [
        selector
        for selector, row in load_plugins().rows.items()
        if row.component.kind == kind and row.plugin.origin.startswith("pggan_kit ")
    ]


def has_a_protocol(kind: str) -> None:
    protocol = KINDS[kind]
    assert getattr(components, protocol.__name__) is protocol and getattr(protocol, "_is_protocol", False)
    assert inspect.getdoc(protocol), f"the contract of {kind} stands in the docstring of {protocol.__name__}"


def has_a_setting(kind: str) -> None:
    owner = Ablation if kind == "launchers" else Experiment
    annotations = {field.name: str(field.type) for field in dataclasses.fields(owner)}
    names = [name for name, text in annotations.items() if re.search(rf"\b{KINDS[kind].__name__}\b", text)]
    assert bool(names) != (kind in OF_OTHER_PARTS), f"{owner.__name__} has no field for {kind}"
    for name in names:
        assert re.search(rf"^ +(\w+, )*{name}(, \w+)*: ", owner.__doc__ or "", re.MULTILINE), (
            f"{name} is not in `Args:`"
        )


def has_a_template(kind: str) -> None:
    text = read(f"pggan_kit/scaffold/templates/{kind}.py")
    assert "class Mine" in text and re.search(rf'Component\(\s*"{kind}", "Mine"', text)


def has_a_template_of_its_test(kind: str) -> None:
    text = read(f"pggan_kit/scaffold/templates/tests/{kind}.py")
    assert any(f"class TestMine({suite})" in text for suite in suites_of(kind))


def has_lines_that_use_it(kind: str) -> None:
    assert any(f"@{kind}.Mine()" in line for line in USES[kind])
    if kind in OF_OTHER_PARTS:
        assert any(line.startswith(f"{OF_OTHER_PARTS[kind]}.") for line in USES[kind])


def has_a_suite(kind: str) -> None:
    suites = suites_of(kind)
    assert {getattr(testing, suite).__module__ for suite in suites} == {f"pggan_kit.testing.{kind}"}


def has_shipped_parts(kind: str) -> None:
    assert (ROOT / f"plugins/{kind}/__init__.py").is_file()
    assert list_shipped(kind)


def is_installed(kind: str) -> None:
    assert f"pggan_plugins.{kind}" in SETUP["options"]["packages"].split()
    assert f"{kind} = pggan_plugins.{kind}" in SETUP["options.entry_points"]["pggan_kit"].splitlines()


def has_tests(kind: str) -> None:
    assert list((ROOT / f"tests/plugins/{kind}").glob("test_*.py"))


def has_a_guide(kind: str) -> None:
    text = read(f"docs/guides/{kind}.md")
    assert f":pyobject: {KINDS[kind].__name__}\n" in text, "the contract"
    for file in (f"templates/{kind}.py", f"templates/tests/{kind}.py"):
        assert f"{{literalinclude}} ../../pggan_kit/scaffold/{file}\n" in text


def is_in_the_contents(kind: str) -> None:
    suites = ", ".join(f"`pggan_kit.testing.{suite}`" for suite in suites_of(kind))
    row = rf"^\| \[.+\]\({kind}\.md\) \| `pggan_kit.components.{KINDS[kind].__name__}` \| {suites} \|$"
    assert re.search(row, read("docs/guides/index.md"), re.MULTILINE)
    assert f"\nguides/{kind}\n" in read("docs/index.md")


def is_in_the_list_of_parts(kind: str) -> None:
    assert [selector for selector in list_shipped(kind) if f"| `{selector}` |" not in read("docs/parts.md")] == []


PLACES: dict[str, Callable[[str], None]] = {
    "`pggan_kit/components.py`": has_a_protocol,
    "`pggan_kit/experiment.py`": has_a_setting,
    "`pggan_kit/scaffold/templates/samplers.py`": has_a_template,
    "`pggan_kit/scaffold/templates/tests/samplers.py`": has_a_template_of_its_test,
    "`pggan_kit/scaffold/__init__.py`": has_lines_that_use_it,
    "`pggan_kit/testing/samplers.py`": has_a_suite,
    "`plugins/samplers/__init__.py`": has_shipped_parts,
    "`setup.cfg`": is_installed,
    "`tests/plugins/samplers/`": has_tests,
    "`docs/guides/samplers.md`": has_a_guide,
    "`docs/guides/index.md` and `docs/index.md`": is_in_the_contents,
    "`docs/parts.md`": is_in_the_list_of_parts,
}
"""The places of CONTRIBUTING.md, as it names them, and what must be there."""


@pytest.mark.parametrize("place", PLACES)
def test_each_kind_is_in_its_place(place: str) -> None:
    for kind in KINDS:
        try:
            PLACES[place](kind)
        except Exception as error:
            raise AssertionError(f"{kind} is not in {place} as it should be") from error


def test_the_list_for_a_new_kind_is_the_one_that_is_walked() -> None:
    section = read("CONTRIBUTING.md").split("## A new kind of component\n")[1].split("\n## ")[0]
    assert re.findall(r"^\d+\. (.+?): ", section, re.MULTILINE) == list(PLACES)
