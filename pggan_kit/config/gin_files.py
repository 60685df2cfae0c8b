"""The only module that talks to gin: parse with file and line, check, build, archive.

gin 0.5 neither checks types nor remembers where a binding stood, and its registry is global. So files are read here
statement by statement (with gin's own parser), checked as a whole (`checking.py`), and only then handed to gin, which
builds the components.
"""

from __future__ import annotations

import math
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gin import config_parser

from pggan_kit.config.bindings import Binding, Macro, Place, Reference
from pggan_kit.errors import ConfigError

OVERRIDE = "-b"


@dataclass(frozen=True)
class Config:
    """A config as read: its bindings in effect, by what they bind.

    Attributes:
        name: the main file's stem.
        bindings: the last one for each (scope, selector, parameter), in file order.
        before: the same without the overrides.
    """

    name: str
    bindings: tuple[Binding, ...]
    before: tuple[Binding, ...] = ()

    def text(self) -> str:
        """The config as one self-contained gin file: includes and overrides resolved, macros first."""
        macros = [b for b in self.bindings if b.is_macro]
        others = [b for b in self.bindings if not b.is_macro]
        return "\n".join([*(b.text() for b in macros), "", *(b.text() for b in others), ""])


def read(file: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a gin file, its includes (relative to the including file), and overrides.

    Args:
        file: the main file.
        overrides: bindings that win over the files, e.g. `penalties.R1.weight = 5`.

    Raises:
        ConfigError: a file is missing, a statement is broken, or a file imports something.
    """
    path = Path(file)
    return _overridden(path.stem, _read_file(path, included_from=None, chain=()), overrides)


def _overridden(name: str, found: list[Binding], overrides: Sequence[str]) -> Config:
    before = _last_of_each(found)
    for text in overrides:
        place = Place(f"{OVERRIDE} '{text}'", None, included=False)
        bound = parse_statements(text, place)
        if not bound:
            raise ConfigError(f"{place}: binds nothing; write it like {OVERRIDE} 'train.seed = 1'")
        found += bound
    return Config(name, _last_of_each(found), before)


def parse_text(text: str, name: str, overrides: Sequence[str] = ()) -> Config:
    """Read an archived config from its text, and overrides as in `read`."""
    found = parse_statements(text, Place(name, 1, included=False))
    return _overridden(name, found, overrides)


def _last_of_each(bindings: Sequence[Binding]) -> tuple[Binding, ...]:
    return tuple({binding.key: binding for binding in bindings}.values())


def _read_file(path: Path, included_from: Place | None, chain: tuple[Path, ...]) -> list[Binding]:
    where = f"{included_from}: includes" if included_from else "config"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{where} {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} {path}: cannot be read ({error})") from None
    if path.resolve() in chain:
        raise ConfigError(f"{where} {path}: includes itself")
    return parse_statements(text, Place(str(path), 1, included_from is not None), path, (*chain, path.resolve()))


def parse_statements(text: str, start: Place, path: Path | None = None, chain: tuple[Path, ...] = ()) -> list[Binding]:
    found: list[Binding] = []
    place = start
    try:
        for statement in config_parser.ConfigParser(text, _Delegate()):
            place = start.at(statement.location.line_num)
            if isinstance(statement, config_parser.ImportStatement):
                raise ConfigError(f"{place}: a config may not import; load a plugin with --plugin FILE instead")
            if isinstance(statement, config_parser.IncludeStatement):
                if path is None:
                    raise ConfigError(f"{place}: an override cannot include a file")
                found += _read_file(path.parent / statement.filename, place, chain)
            elif isinstance(statement, config_parser.BindingStatement):
                _check_finite(statement.value, place)
                found.append(Binding(statement.scope, statement.selector, statement.arg_name, statement.value, place))
    except SyntaxError as error:
        raise ConfigError(f"{start.at(_line_of(error))}: broken gin syntax: {_reason(error)}") from None
    except tokenize.TokenError as error:
        reason = str(error.args[0])
        if "EOF" in reason or "unterminated" in reason:
            reason = "a bracket or text is opened and never closed"
            reason += f"; look after the statement at {place}" if found else ""
        raise ConfigError(f"{start.at(error.args[1][0])}: broken gin syntax: {reason}") from None
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise ConfigError(f"{place}: broken gin syntax here or in the statement after it: {reason}") from None
    return found


def _line_of(error: SyntaxError) -> int | None:
    location = error.args[1] if len(error.args) > 1 else None
    return location[1] if location else error.lineno


def _reason(error: SyntaxError) -> str:
    lines = str(error.msg).strip().splitlines()
    token = re.search(r"Failed to parse token '(.*)'", lines[-1])
    if token:
        return f"{token[1]} is no value; a text needs quotes, a macro %, a component @"
    return lines[0]


def _check_finite(value: Any, place: Place) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{place}: a number is too large to be kept")
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_finite(item, place)


class _Delegate(config_parser.ParserDelegate):  # type: ignore[misc]
    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)
