"""Read gin files and overrides into bindings that know their file and line.

gin 0.5 neither checks types nor remembers the place of a binding, and its registry is global. So files are read here
statement by statement (with gin's own parser), checked as a whole (`bindings.py`), and only then handed to gin, which
builds the components (`builder.py`).
"""

from __future__ import annotations

import math
import re
import tokenize
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gin import config_parser

from pggan_kit.config.bindings import Binding, Macro, Place, Reference
from pggan_kit.errors import LARGEST_WHOLE_NUMBER, ConfigError, require_list

OVERRIDE = "-b"
"""Option of overrides on the command line, by which messages name them."""

ELEMENT = re.compile(r"\s*([\w./]*[\w])(\[[^\]]*\]|\{[^}]*\}|\.\d\w*)\S*\s*=|\s*([\w./]+)\s*\+=")
"""Pattern of a line that binds one element of a list or dict, `train.observers[0] =`, or appends to it, `+=`."""

LONGEST_VALUE = 200
"""Maximum number of characters of the present value of a list or dict in a message."""


@dataclass(frozen=True)
class Config:
    """The bindings of a config that was read.

    Attributes:
        name: Stem of the main file.
        bindings: The last binding of each (scope, selector, parameter), in file order.
        before: The same without the overrides.
        taken_back: Bindings that have no effect, because a file that is included after them binds the same.
        warnings: A line for each of those that stands in the file that has the include.
    """

    name: str
    bindings: tuple[Binding, ...]
    before: tuple[Binding, ...] = ()
    taken_back: tuple[Binding, ...] = ()
    warnings: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the config as one gin file that needs no other: includes and overrides resolved, macros first."""
        macros = [binding.text() for binding in self.bindings if binding.is_macro]
        others = [binding.text() for binding in self.bindings if not binding.is_macro]
        return "\n".join([*macros, "", *others, ""])


@dataclass
class Statements:
    """The statements of a text, with those of the files that it includes, in the order in which they are read.

    Attributes:
        bindings: The bindings.
        taken_back: See `Config`.
        warnings: See `Config`.
    """

    bindings: list[Binding] = field(default_factory=list)
    taken_back: list[Binding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_config(file: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a gin file, its includes (relative to the including file), and overrides.

    Args:
        file: The main file.
        overrides: Bindings that win over the files, e.g. `penalties.R1.weight = 5`.

    Raises:
        ConfigError: A file is missing, a statement is broken, a file imports something, or binds a parameter twice.
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


def parse_overrides(overrides: Sequence[str], known: Sequence[Binding] = ()) -> list[Binding]:
    """Return the bindings of overrides, each of which may hold several.

    Args:
        overrides: The overrides.
        known: Bindings that they override, for messages.

    Raises:
        ConfigError: An override is broken, or binds nothing.
    """
    require_list("bindings", overrides)
    bindings: list[Binding] = []
    for text in overrides:
        place = Place(f"{OVERRIDE} '{text}'", None, included=False)
        parsed = parse_statements(text, place, known=[*known, *bindings]).bindings
        if not parsed:
            raise ConfigError(f"{place}: binds nothing; write it like {OVERRIDE} 'train.seed = 1'")
        bindings += parsed
    return bindings


def leave_out(
    overrides: Sequence[str], is_left_out: Callable[[Binding], bool], known: Sequence[Binding] = ()
) -> list[str]:
    """Return overrides without some of their bindings; an override that holds none of these stays as it is written.

    Args:
        overrides: The overrides.
        is_left_out: Function that returns whether a binding is left out.
        known: See `parse_overrides`.

    Raises:
        ConfigError: An override is broken, or binds nothing.
    """
    kept = []
    for text in overrides:
        bindings = parse_overrides([text], known)
        left = [binding for binding in bindings if not is_left_out(binding)]
        if len(left) == len(bindings):
            kept.append(text)
        else:
            kept += [binding.text() for binding in left]
    return kept


def _add_overrides(name: str, read: Statements, overrides: Sequence[str]) -> Config:
    bindings = [*read.bindings, *parse_overrides(overrides, read.bindings)]
    before = _keep_last_of_each(read.bindings)
    return Config(name, _keep_last_of_each(bindings), before, tuple(read.taken_back), tuple(read.warnings))


def _keep_last_of_each(bindings: Sequence[Binding]) -> tuple[Binding, ...]:
    by_key = {binding.key: binding for binding in bindings}
    return tuple(by_key.values())


def _read_file(path: Path, included_from: Place | None, chain: tuple[Path, ...]) -> Statements:
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
        # Some editors begin a file with a byte-order mark.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        advice = "" if included_from is None else "; the path of an include is relative to the file that includes"
        raise ConfigError(f"{where} {path}: no such file{advice}") from None
    except IsADirectoryError:
        advice = "name a gin file; `pggan-kit resume` continues the run of a folder"
        raise ConfigError(f"{where} {path}: cannot be read, because it is a folder: {advice}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} {path}: cannot be read ({error}); save it as UTF-8") from None
    except (OSError, ValueError) as error:  # the latter for a path with a zero byte
        raise ConfigError(f"{where} {path}: cannot be read ({error})") from None

    resolved = path.resolve()
    if resolved in chain:
        raise ConfigError(f"{where} {path}: includes itself")
    start = Place(str(path), 1, included=included_from is not None)
    return parse_statements(text, start, path, (*chain, resolved))


def parse_statements(
    text: str,
    start: Place,
    path: Path | None = None,
    chain: tuple[Path, ...] = (),
    known: Sequence[Binding] = (),
) -> Statements:
    """Parse gin statements, and read the files that they include.

    Args:
        text: The statements.
        start: The place of the first line.
        path: The file, which its includes are relative to; None where no file may be included.
        chain: The files that include each other down to this one, which none of them may include again.
        known: Bindings that were read before, for messages.

    Raises:
        ConfigError: A statement is broken, binds what another one of this text binds already, imports something, or
            includes a file that cannot be read.
    """
    read = Statements()
    own: dict[tuple[str, str, str], Binding] = {}
    place = start
    try:
        for statement in _Parser(text, start):
            place = start.move_to(statement.location.line_num)
            if isinstance(statement, config_parser.ImportStatement):
                raise ConfigError(f"{place}: a config may not import modules; load a plugin with --plugin FILE instead")
            if isinstance(statement, config_parser.IncludeStatement):
                if path is None:
                    raise ConfigError(f"{place}: an override cannot include a file")
                _add_included(read, _read_file(path.parent / statement.filename, place, chain), own, place)
            elif isinstance(statement, config_parser.BindingStatement):
                _check_numbers(statement.value, place)
                binding = Binding(statement.scope, statement.selector, statement.arg_name, statement.value, place)
                _require_first(binding, own)
                own[binding.key] = binding
                read.bindings.append(binding)

    # gin's parser raises whatever Python's raises, which knows the line of some errors alone.
    except SyntaxError as error:
        place = start.move_to(_find_line(error))
        reason = _explain_line(text, _find_line(error), [*known, *read.bindings]) or _explain_syntax_error(error)
        raise ConfigError(f"{place}: broken gin syntax: {reason}") from None
    except tokenize.TokenError as error:
        last = place if read.bindings else None
        line = error.args[1][0]
        reason = _explain_line(text, line, [*known, *read.bindings]) or _explain_token_error(error, last)
        raise ConfigError(f"{start.move_to(line)}: broken gin syntax: {reason}") from None
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise ConfigError(f"{place}: broken gin syntax here or in the statement after it: {reason}") from None
    return read


def _require_first(binding: Binding, own: Mapping[tuple[str, str, str], Binding]) -> None:
    """Check that no binding of the same text binds the same parameter or macro."""
    first = own.get(binding.key)
    if first is None:
        return
    where = ""
    if first.place.line is not None:
        where = f", first at {first.place}"
    raise ConfigError(f"{binding.place}: {binding.name} is bound twice{where}; remove one of the two bindings")


def _add_included(
    read: Statements, included: Statements, own: Mapping[tuple[str, str, str], Binding], include: Place
) -> None:
    """Add the statements of an included file, and note which bindings before the include they take back.

    Args:
        read: What was read before the include, to which the statements are added.
        included: The statements of the included file.
        own: The bindings among `read` that stand in the file that has the include.
        include: The place of the include.
    """
    before = {binding.key: binding for binding in read.bindings}
    for binding in _keep_last_of_each(included.bindings):
        earlier = before.get(binding.key)
        if earlier is None or earlier.value == binding.value:
            continue
        read.taken_back.append(earlier)
        # Among included files the later one wins on purpose; a file's own bindings are meant to win.
        if own.get(binding.key) is earlier:
            read.warnings.append(
                f"{earlier.place}: {earlier.name} = {_shorten(earlier.value)} has no effect, because {include} "
                f"includes {binding.place}, which binds it again; move the include above it"
            )
    read.bindings += included.bindings
    read.taken_back += included.taken_back
    read.warnings += included.warnings


def _shorten(value: Any) -> str:
    text = repr(value)
    if len(text) > LONGEST_VALUE:
        text = f"{text[:LONGEST_VALUE]}..."
    return text


def _find_line(error: SyntaxError) -> int | None:
    # gin raises with a location of its own, as Python's tokenizer does.
    if len(error.args) > 1 and error.args[1]:
        line: int | None = error.args[1][1]
        return line
    return error.lineno


def _explain_line(text: str, number: int | None, known: Sequence[Binding]) -> str | None:
    """Return what is wrong with a line that no parser can explain, or None.

    Args:
        text: The text that has the line.
        number: The line's number, from 1.
        known: Bindings before the line.
    """
    lines = text.split("\n")
    if number is None or not 1 <= number <= len(lines):
        return None
    line = lines[number - 1]

    # Copied from a web page, or from a file that another editor wrote.
    for character in line:
        if character not in "\t\r\x0c" and not character.isprintable():
            name = unicodedata.name(character, "control character")
            return f"the line has an invisible character (U+{ord(character):04X}, {name}): remove it, or write a space"

    element = ELEMENT.match(line)
    if element is None:
        return None
    name = element[1] or element[3]
    advice = f"write {name} = ... with all its elements"
    for binding in known:
        if binding.name == name:
            advice = f"write {name} = {_shorten(binding.value)} with your change in it"
    return f"a list or dict can only be bound as a whole; {advice}"


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


class _Parser(config_parser.ConfigParser):  # type: ignore[misc]
    """gin's parser, which refuses a dict that has a key twice.

    Args:
        text: The statements.
        start: The place of the first line.
    """

    def __init__(self, text: str, start: Place) -> None:
        self._start = start
        # The keys so far of each bracket that is open.
        self._keys: list[list[Any]] = []
        super().__init__(text, _Delegate())

    def _maybe_parse_container(self) -> tuple[bool, Any]:
        self._keys.append([])
        result: tuple[bool, Any] = super()._maybe_parse_container()
        self._keys.pop()
        return result

    def _parse_dict_item(self) -> tuple[Any, Any]:
        place = self._start.move_to(self._current_token.start[0])
        item: tuple[Any, Any] = super()._parse_dict_item()
        if item[0] in self._keys[-1]:
            raise ConfigError(f"{place}: the dict has the key {item[0]!r} twice; remove one of the two")
        self._keys[-1].append(item[0])
        return item


class _Delegate(config_parser.ParserDelegate):  # type: ignore[misc]
    """The maker of references and macros for gin's parser."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)
