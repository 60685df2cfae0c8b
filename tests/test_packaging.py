"""What is promised of Pythons and dependencies, and how the promise is tested."""

import configparser
import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.paths import ROOT

import pggan_kit

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
OLDEST = SETUP["options"]["python_requires"].removeprefix(">=")


def test_the_oldest_constraints_are_the_lower_bounds() -> None:
    requirements = [SETUP["options"]["install_requires"], *SETUP["options.extras_require"].values()]
    bounds = {line for text in requirements for line in text.split("\n") if line}
    wanted = {re.sub(r"^([\w-]+)>=([\d.]+)(,<[\d.]+)?$", r"\1==\2", bound) for bound in bounds}
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    constraints = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in wanted), wanted
    assert sorted(constraints) == sorted(wanted)


PIN = re.compile(r"^([\w.-]+)==([\w.+]+)(?: ?; ?([^\\\n]+?))? ?\\?$", re.MULTILINE)


def read_pins(name: str) -> dict[str, set[str]]:
    """Return the versions that a file pins, one for each range of Pythons, by the distribution's normalised name."""
    pins: dict[str, set[str]] = {}
    for distribution, version, _ in PIN.findall((ROOT / name).read_text()):
        pins.setdefault(normalise(distribution), set()).add(version)
    return pins


def normalise(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_what_is_tested_together_is_every_requirement_and_is_locked_with_hashes() -> None:
    requirements = "\n".join([SETUP["options"]["install_requires"], *SETUP["options.extras_require"].values()])
    required = {normalise(name) for name in re.findall(r"^([\w.-]+)", requirements, re.MULTILINE)}
    constraints = read_pins("constraints.txt")
    assert set(constraints) == required, "constraints.txt pins each distribution that setup.cfg names"
    locked = read_pins("requirements-locked.txt")
    # Optuna needs what mlflow needs beside itself, and so that is locked.
    unlocked = {"wandb", "mlflow-skinny", "trackio"}
    wanted = {name: versions for name, versions in constraints.items() if name not in unlocked}
    assert {name: locked.get(name) for name in wanted} == wanted, "constraints.txt has changed: make lock"
    assert not unlocked & set(locked), "trackers hold other packages back"

    # Nothing is installed without a hash, and nothing that is only on the machine that made the lock.
    text = (ROOT / "requirements-locked.txt").read_text()
    entries = re.split(r"^(?=[\w-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(entries) == sum(len(versions) for versions in locked.values())
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert not re.search(r"://|^--|[+]cpu", text, re.MULTILINE)


def test_every_file_of_the_packages_is_packaged() -> None:
    packages = SETUP["options"]["packages"].split()
    data = {name: re.split(r",\s*", globs) for name, globs in SETUP["options.package_data"].items()}
    left_out = []
    for root, package in (("pggan_kit", "pggan_kit"), ("plugins", "pggan_plugins")):
        for file in sorted((ROOT / root).rglob("*")):
            if not file.is_file() or "__pycache__" in file.parts:
                continue
            # Its package is the nearest folder above it that is one; what is no module has to be named as data there.
            folder = file.parent
            while folder != ROOT / root and not (folder / "__init__.py").exists():
                folder = folder.parent
            name = ".".join((package, *folder.relative_to(ROOT / root).parts))
            is_module = file.suffix == ".py" and file.parent == folder
            inside = file.relative_to(folder)
            globs = [glob for glob in data.get(name, ()) if len(Path(glob).parts) == len(inside.parts)]
            is_data = any(inside.match(glob) for glob in globs)
            if name not in packages or not (is_module or is_data):
                left_out.append(file.relative_to(ROOT).as_posix())
    assert left_out == [], "name its package, or its data, in setup.cfg"


def test_tools_are_pinned() -> None:
    lines = (ROOT / "constraints-tools.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[\w-]+==[\d.]+", line)] == []


def test_the_oldest_python_is_the_one_that_is_tested_and_checked() -> None:
    assert f"OLDEST ?= python{OLDEST}\n" in (ROOT / "Makefile").read_text()
    assert SETUP["mypy"]["python_version"] == OLDEST  # refuses what the library of that Python does not have
    assert f'target-version = "py{OLDEST.replace(".", "")}"' in (ROOT / "ruff.toml").read_text()


def test_the_version_stands_in_one_place() -> None:
    assert SETUP["metadata"]["version"] == "attr: pggan_kit.version.__version__"
    assert f"\nversion: {pggan_kit.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert importlib.metadata.version("pggan_kit") == pggan_kit.__version__


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(("target", "variable"), [("test-oldest", "OLDEST"), ("test-newest", "NEWEST")])
def test_a_python_that_is_missing_is_named(target: str, variable: str) -> None:
    command = ["make", "--silent", target, f"{variable}=python0.0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    message = done.stderr.splitlines()[0]
    assert message.startswith("error: python0.0 does not run; put it on the PATH"), done.stderr
    assert f"{variable}=... for {target}" in message


def test_annotations_are_evaluated_in_one_place() -> None:
    """Python 3.10 evaluates other annotations than later ones; `annotations_of` makes them the same."""
    users = {
        path.relative_to(ROOT).as_posix()
        for package in ("pggan_kit", "plugins")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"get_type_hints|get_annotations", path.read_text(encoding="utf-8"))
    }
    assert users == {"pggan_kit/config/arguments.py"}
