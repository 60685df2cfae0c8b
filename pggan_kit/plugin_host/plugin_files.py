"""Plugin files: Python code that runs because its path was given, and again only while its content is the same.

`run.json` and `plan.json` record the paths and SHA-256 of plugin files. They may come from somebody else, and so may
the files that they point to. So the path that a caller names and the file that a record names have different types: a
path is trusted, while a `RecordedFile` runs only if its content is the recorded one and was once named by hand on this
machine. The cache folder keeps the list of all content that was named.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pggan_kit.errors import PluginError, quote_path
from pggan_kit.system.cache import cache_folder

TRUSTED = "trusted_plugins"
"""Name of the file in the cache folder that lists trusted content, one SHA-256 a line."""

MODULE_PREFIX = "pggan_kit_plugin_"
"""Beginning of the module names of plugin files."""

SHA256 = re.compile("[0-9a-f]{64}")
"""Pattern of a SHA-256."""


@dataclass(frozen=True)
class RecordedFile:
    """A plugin file that a record on the disk names: it must have the content that is recorded there.

    Attributes:
        path: The absolute path, so that it leads to the same file from every working directory.
        sha256: The SHA-256 of its content.
        record: The file that names it, for messages.
        change: The way to use other content, for messages.
        named: Whether the user of this process named the file too. A file that was not named runs only if its content
            was named on this machine before.

    Raises:
        PluginError: The path is relative, or the SHA-256 is not one.
    """

    path: Path
    sha256: str
    record: Path
    change: str
    named: bool = False

    def __post_init__(self) -> None:
        if not self.path.is_absolute():
            raise PluginError(
                f"{self.record} names the plugin file {self.path} by a relative path, which leads to another file from "
                "each working directory. Read the file; if you trust it, name it: --plugin FILE"
            )
        if not isinstance(self.sha256, str) or not SHA256.fullmatch(self.sha256):
            raise PluginError(
                f"{self.record} names the plugin file {self.path} without its SHA-256 (64 digits from 0 to f, not "
                f"{repr(self.sha256)[:80]}). Read the file; if you trust it, name it: --plugin {quote_path(self.path)}"
            )


def load_plugin_file(file: Path | RecordedFile) -> tuple[ModuleType, str]:
    """Run a plugin file; return its module, and the SHA-256 of the content that ran.

    Args:
        file: The path that the user of this process named, whose content is trusted from now on; or a file that a
            record names.

    Raises:
        PluginError: The file is missing, has changed, was never named by hand, or is not Python, in which case nothing
            of it has run; or its import fails.
    """
    if isinstance(file, RecordedFile):
        path = file.path
        content = _read_recorded(file)
        digest = hashlib.sha256(content).hexdigest()
        _require_trust(file, digest)
    else:
        path = file
        content = _read_named(path)
        digest = hashlib.sha256(content).hexdigest()

    spec = importlib.util.spec_from_file_location(f"{MODULE_PREFIX}{path.stem}", path)
    if spec is None or spec.loader is None or path.suffix != ".py":
        raise PluginError(f"--plugin {path}: a plugin file is Python and ends in .py")
    if not isinstance(file, RecordedFile) or file.named:
        _trust(digest)

    # Run the bytes that were hashed, and neither what the file holds by now nor a cached .pyc.
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    import_plugin(
        lambda: exec(compile(content, str(path), "exec", dont_inherit=True), vars(module)),
        str(path),
        lambda error: _advise_on_file(path, error),
    )
    return module, digest


def locate_plugin_file(path: str | Path) -> Path:
    """Return the absolute path of a plugin file: that of a link and not of its target, which need not end in .py."""
    path = Path(path)
    return path.parent.resolve() / path.name


def _advise_on_file(path: Path, error: BaseException) -> str:
    """Return what to do about a plugin file that cannot be imported."""
    # It may import a module or a folder that lies beside it.
    neighbours: list[Path] = []
    if isinstance(error, ImportError) and error.name is not None:
        name = error.name.partition(".")[0]
        neighbours = [path.parent / f"{name}.py", path.parent / name]
    beside = [neighbour for neighbour in neighbours if neighbour.exists()]
    is_relative = isinstance(error, ImportError) and "relative import" in str(error)
    if not beside and not is_relative:
        return "fix it, or run without it"

    # Files are loaded alone.
    what = str(beside[0]) if beside else "what it imports"
    return (
        f"{what} lies beside it, and a plugin file is loaded alone, so that its content can be recorded: put all into "
        "one file, or make a package of them and install it (`pggan-kit plugins new` writes one)"
    )


def _require_trust(file: RecordedFile, digest: str) -> None:
    """Check that the content of a recorded file is the recorded one, and that it was named by hand on this machine."""
    if digest != file.sha256:
        raise PluginError(
            f"the plugin file {file.path} has changed since {file.record} recorded it (its SHA-256 was "
            f"{file.sha256[:12]} and is {digest[:12]}); restore the old content, or {file.change}"
        )
    if not file.named and digest not in read_trusted_hashes():
        raise PluginError(
            f"{file.record} names the plugin file {file.path}, whose content was never named on this machine: a plugin "
            f"is code and can do anything. Read it; if you trust it, name it: --plugin {quote_path(file.path)}"
        )


def import_plugin(action: Callable[[], Any], name: str, advise: Callable[[BaseException], str]) -> Any:
    """Import a plugin by an action, and return what the action returns.

    Args:
        action: The function that imports the plugin.
        name: The plugin's name in messages.
        advise: Function that returns the end of the message: what to do about the plugin that raised this.

    Raises:
        PluginError: The import fails; the message has the plugin's name and the advice.
    """
    try:
        return action()
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(f"plugin {name} cannot be imported: {reason}; {advise(error)}") from error


def _read_recorded(file: RecordedFile) -> bytes:
    try:
        return file.path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        fault = f"cannot be read ({error})"
        if isinstance(error, FileNotFoundError):
            fault = "is missing"
        raise PluginError(
            f"{file.record} names the plugin file {file.path}, which {fault}; bring it back, or {file.change}"
        ) from None


def _read_named(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise PluginError(f"--plugin {path}: no such file") from None
    except OSError as error:
        raise PluginError(f"--plugin {path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a zero byte in the path
        raise PluginError(f"--plugin {path}: cannot be read ({error})") from None


def _trusted_file() -> Path:
    return cache_folder() / TRUSTED


def read_trusted_hashes() -> set[str]:
    """Return the SHA-256 of all plugin files that were named on this machine."""
    try:
        lines = _trusted_file().read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    return {line for line in lines if SHA256.fullmatch(line)}


def _trust(digest: str) -> None:
    """Add content to the trusted; where the cache cannot be written, its file has to be named each time."""
    if digest in read_trusted_hashes():
        return
    with suppress(OSError):
        path = _trusted_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a") as file:
            file.write(f"{digest}\n")
