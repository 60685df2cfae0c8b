"""Read gin files and overrides into bindings that know their file and line.

gin 0.5 neither checks types nor remembers the place of a binding, and its registry is global. So files are read here
statement by statement (with gin's own parser), checked as a whole (`bindings.py`), and only then handed to gin, which
builds the components (`builder.py`).
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
from pggan_kit.errors import LARGEST_WHOLE_NUMBER, ConfigError

OVERRIDE = "-b"
"""Option of overrides on the command line, by which messages name them."""


@dataclass(frozen=True)
class Config:
    """The bindings of a config that was read.

    Attributes:
        name: Stem of the main file.
        bindings: The last binding of each (scope, selector, parameter), in file order.
        before: The same without the overrides.
    """

    name: str
    bindings: tuple[Binding, ...]
    before: tuple[Binding, ...] = ()

    def text(self) -> str:
        """Return the config as one gin file that needs no other: includes and overrides resolved, macros first."""
        macros = [binding.text() for binding in self.bindings if binding.is_macro]
        others = [binding.text() for binding in self.bindings if not binding.is_macro]
        return "\n".join([*macros, "", *others, ""])


def read_config(file: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a gin file, its includes (relative to the including file), and overrides.

    Args:
        file: The main file.
        overrides: Bindings that win over the files, e.g. `penalties.R1.weight = 5`.

    Raises:
        ConfigError: A file is missing, a statement is broken, or a file imports something.
    """
    path = Path(file)
    return _add_overrides(path.stem, _read_file(path, included_from=None, chain=()), overrides)


def parse_text(text: str, name: str, overrides: Sequence[str] = ()) -> Config:
    """Parse the text of an archived config, and overrides as in `read_config`.

    Args:
        text: The text, which may not include files.
        name: The name of the config, which messages show with a line.
        overrides: Bindings that win over the text.

    Raises:
        ConfigError: A statement is broken, or imports or includes something.
    """
    return _add_overrides(name, parse_statements(text, Place(name, 1, included=False)), overrides)


def _add_overrides(name: str, bindings: list[Binding], overrides: Sequence[str]) -> Config:
    before = _keep_last_of_each(bindings)
    for text in overrides:
        place = Place(f"{OVERRIDE} '{text}'", None, included=False)
        parsed = parse_statements(text, place)
        if not parsed:
            raise ConfigError(f"{place}: binds nothing; write it like {OVERRIDE} 'train.seed = 1'")
        bindings = [*bindings, *parsed]
    return Config(name, _keep_last_of_each(bindings), before)


def _keep_last_of_each(bindings: Sequence[Binding]) -> tuple[Binding, ...]:
    by_key = {binding.key: binding for binding in bindings}
    return tuple(by_key.values())


def _read_file(path: Path, included_from: Place | None, chain: tuple[Path, ...]) -> list[Binding]:
    """Read a file and its includes.

    Args:
        path: The file.
        included_from: The place of the `include`; None for the main file.
        chain: The files that include it, from the main file down, resolved.
    """
    # Messages about an included file begin with the place of its include.
    where = "config"
    if included_from is not None:
        where = f"{included_from}: includes"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{where} {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} {path}: cannot be read ({error})") from None

    resolved = path.resolve()
    if resolved in chain:
        raise ConfigError(f"{where} {path}: includes itself")
    start = Place(str(path), 1, included=included_from is not None)
    return parse_statements(text, start, path, (*chain, resolved))


def parse_statements(text: str, start: Place, path: Path | None = None, chain: tuple[Path, ...] = ()) -> list[Binding]:
    """Parse gin statements, and read the files that they include.

    Args:
        text: The statements.
        start: The place of the first line.
        path: The file, which its includes are relative to; None where no file may be included.
        chain: The files that include each other down to this one, which none of them may include again.

    Raises:
        ConfigError: A statement is broken, imports something, or includes a file that cannot be read.
    """
    bindings: list[Binding] = []
    place = start
    try:
        for statement in config_parser.ConfigParser(text, _Delegate()):
            place = start.move_to(statement.location.line_num)
            if isinstance(statement, config_parser.ImportStatement):
                raise ConfigError(f"{place}: a config may not import modules; load a plugin with --plugin FILE instead")
            if isinstance(statement, config_parser.IncludeStatement):
                if path is None:
                    raise ConfigError(f"{place}: an override cannot include a file")
                bindings += _read_file(path.parent / statement.filename, place, chain)
            elif isinstance(statement, config_parser.BindingStatement):
                _check_numbers(statement.value, place)
                bindings.append(
                    Binding(statement.scope, statement.selector, statement.arg_name, statement.value, place)
                )

    # gin's parser raises whatever Python's raises, which knows the line of some errors alone.
    except SyntaxError as error:
        place = start.move_to(_find_line(error))
        raise ConfigError(f"{place}: broken gin syntax: {_explain_syntax_error(error)}") from None
    except tokenize.TokenError as error:
        last = place if bindings else None
        place = start.move_to(error.args[1][0])
        raise ConfigError(f"{place}: broken gin syntax: {_explain_token_error(error, last)}") from None
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise ConfigError(f"{place}: broken gin syntax here or in the statement after it: {reason}") from None
    return bindings


def _find_line(error: SyntaxError) -> int | None:
    # gin raises with a location of its own, as Python's tokenizer does.
    if len(error.args) > 1 and error.args[1]:
        line: int | None = error.args[1][1]
        return line
    return error.lineno


def _explain_syntax_error(error: SyntaxError) -> str:
    lines = str(error.msg).strip().splitlines()
    token = re.search(r"Failed to parse token '(.*)'", lines[-1])
    if token:
        return f"`{token[1]}` is not a value: quote strings, write %NAME for a macro and @NAME for a component"
    return lines[0]


def _explain_token_error(error: tokenize.TokenError, last: Place | None) -> str:
    """Return the reason of an error of Python's tokenizer, and the place of the last good statement."""
    reason = str(error.args[0])
    if "EOF" not in reason and "unterminated" not in reason:
        return reason
    reason = "a bracket or string is opened and never closed"
    if last is not None:
        reason += f"; look after the statement at {last}"
    return reason


def _check_numbers(value: Any, place: Place) -> None:
    """Refuse numbers such as 1e999, which Python reads as infinite, and whole ones that torch cannot take."""
    if isinstance(value, int) and abs(value) > LARGEST_WHOLE_NUMBER:
        raise ConfigError(f"{place}: a whole number is too large: none may be above {LARGEST_WHOLE_NUMBER}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{place}: a number is too large for a float, and would become infinite")
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_numbers(item, place)


class _Delegate(config_parser.ParserDelegate):  # type: ignore[misc]
    """The maker of references and macros for gin's parser."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)
