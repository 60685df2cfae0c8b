"""Run the suite against the installed package, on any Python, from a copy in which the checkout cannot be imported.

Usage: python scripts/test_wheel.py PYTHON CONSTRAINTS [--package FILE] [PYTEST ARGUMENTS]

PYTHON is a command; CONSTRAINTS is a file, or "newest". FILE is a wheel or an archive of the sources; without it a
wheel is built of the checkout. The variable EXTRAS names extras besides `dev`, as a,b. Needs nothing but the standard
library and git, on Linux, macOS and Windows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"
SOURCES = {"pggan_kit": "pggan_kit", "plugins": "pggan_plugins"}
"""Folders of the checkout, and the installed packages that they become."""


def main(arguments: list[str]) -> int:
    """Install the package and run the suite; return pytest's exit code."""
    if len(arguments) < 2:
        print((__doc__ or "").partition("\n\n")[2], file=sys.stderr)
        return 2
    python, constraints, *rest = arguments
    package = None
    if rest[:1] == ["--package"]:
        package = Path(rest[1]).resolve()
        rest = rest[2:]
    version = find_version(python)
    if version is None:
        print(
            f"error: {python} does not run; put it on the PATH, or name another: OLDEST=... for test-oldest, "
            "NEWEST=... for test-newest",
            file=sys.stderr,
        )
        return 2

    # The environment stays, because torch is large; the copy of what is not ignored is made afresh.
    extras = os.environ.get("EXTRAS", "")
    environment = ROOT / ".venv" / "-".join(filter(None, ["wheel", version, Path(constraints).stem, extras]))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder).resolve() / "copy"
        copy_files(copy)
        fresh = prepare_environment(python, environment)
        install(fresh, package or build_wheel(fresh, copy), constraints, extras)
        put_installed_sources(fresh, copy)
        return run_pytest(fresh, copy, rest)


def find_version(python: str) -> str | None:
    """Return the version of a Python, as 3.10; None if it does not run."""
    try:
        done = subprocess.run([python, "-c", VERSION], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def copy_files(copy: Path) -> None:
    """Copy what git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in names:
        if name and (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)


def prepare_environment(python: str, environment: Path) -> Path:
    """Return the Python of an environment, which is made if it is missing."""
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    fresh = scripts / ("python.exe" if os.name == "nt" else "python")
    if not fresh.exists():
        subprocess.run([python, "-m", "venv", str(environment)], check=True)
    return fresh


def run_pip(fresh: Path, *arguments: str) -> None:
    """Run pip of an environment, or end with its exit code."""
    subprocess.run([str(fresh), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments], check=True)


def build_wheel(fresh: Path, copy: Path) -> Path:
    """Return a wheel of the copied checkout."""
    run_pip(fresh, "wheel", "--no-deps", "--wheel-dir", str(copy / "dist"), str(copy))
    (wheel,) = (copy / "dist").glob("*.whl")
    return wheel


def install(fresh: Path, package: Path, constraints: str, extras: str) -> None:
    """Install first what a package requires, then it again: pip takes an older build of one version for installed."""
    if constraints == "newest":
        how = ["--upgrade", "--upgrade-strategy", "eager"]
    else:
        how = ["--constraint", str(ROOT / constraints)]
    chosen = ",".join(filter(None, ["dev", extras]))
    run_pip(fresh, "install", *how, f"{package}[{chosen}]")
    run_pip(fresh, "install", "--no-deps", "--force-reinstall", str(package))


def put_installed_sources(fresh: Path, copy: Path) -> None:
    """Put the installed packages where documentation includes sources."""
    done = subprocess.run([str(fresh), "-c", PACKAGES], capture_output=True, text=True, check=True)
    shutil.rmtree(copy / "build", ignore_errors=True)
    for leftover in copy.glob("*.egg-info"):
        shutil.rmtree(leftover)
    for source, package in SOURCES.items():
        shutil.rmtree(copy / source)
        installed = Path(done.stdout.strip()) / package
        if os.name == "nt":  # where links need a privilege
            shutil.copytree(installed, copy / source)
        else:
            (copy / source).symlink_to(installed)


def run_pytest(fresh: Path, copy: Path, arguments: list[str]) -> int:
    """Run the suite in the copy; return the exit code."""
    path = os.pathsep.join([str(fresh.parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    command = [str(fresh.parent / "pytest"), "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=copy, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
