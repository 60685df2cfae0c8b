"""Make, lock, read and write the directory of a run."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pggan_kit.data.recorded import RecordedDataset, read_record
from pggan_kit.errors import RunError, TrainingError, quote_path
from pggan_kit.layers.value_maps import BYTES, ValueMap, read_value_map
from pggan_kit.runs.average_snapshots import FOLDER, AverageSnapshots
from pggan_kit.runs.checkpoint_identity import is_list_of_changes
from pggan_kit.runs.checkpoints import KEEP, Checkpoints, Say
from pggan_kit.runs.exported import find_exported_generator
from pggan_kit.system import distributed, locks
from pggan_kit.system.files import (
    explain_damage,
    is_unfinished,
    make_whole_folder,
    open_regular,
    read_bytes,
    read_text,
    remove_unfinished,
    write_atomically,
)
from pggan_kit.system.json_lines import JsonLines
from pggan_kit.system.json_text import json_text
from pggan_kit.system.locks import LOCK, RunLock
from pggan_kit.system.provenance import describe_environment

ROOT = Path("runs")

NUMBERS_LOCK = ".numbers.lock"
"""File in the folder of numbered runs that a process locks while it takes the next number."""

LONGEST_NAME = 60
"""Maximum characters of a config's name in a run's: with four bytes each they still fit a file name."""

START = ("config.gin", "operative.gin", "run.json")
"""Names of the files that a run begins with, in the order of writing: the last one makes the folder a run."""

DISK_FOLDER = "lost+found"
"""Name of the folder that ext file systems have at their top, however empty they are."""

NUMBER_ATTEMPTS = 100
"""Maximum number of numbers that a run tries, each of which another process may have taken meanwhile."""

NOT_EMPTY = (errno.EEXIST, errno.ENOTEMPTY)
"""Errors of renaming a folder to the name of one that is not empty."""


class RunDirectory:
    """The files of a run.

    `run.json` (plugins, overrides, environment), `config.gin` (self-contained), `operative.gin`, `log.txt`,
    `stats.jsonl`, `checkpoints/`, and what observers add.

    Attributes:
        path: the folder, as the caller named it.
        absolute: the same as an absolute path, which `require_own_folder` follows where a folder above was renamed.
        warned: the warnings that this process has written to `log.txt`.
        is_discarded: whether the run never began, and its files were removed again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = JsonLines(path / "stats.jsonl")
        self._lock: RunLock | None = None
        self.warned: set[str] = set()
        self._start: dict[str, bytes] | None = None
        self.absolute = path.absolute()
        self._has_rows = False
        self._was_there = False
        self.is_discarded = False

    @classmethod
    def create(cls, path: Path | None, name: str, start: Mapping[str, str]) -> RunDirectory:
        """Make a new directory and lock it: `path`, or the next number under `runs/`, as `runs/00007-mnist`.

        A folder that is not there yet appears with all files that a run begins with, or not at all. In an empty folder
        that is there, which may be a disk of its own, `run.json` is written last; a process that is killed before
        leaves a folder that counts as empty.

        Args:
            path: an empty folder, or one that is yet to be made.
            name: the config's name; characters that may not stand in a file name become a dash.
            start: the texts of the files in START, see `describe_start`.

        Raises:
            RunError: `path` is no folder, is not empty, cannot be made, or another process has just taken it.
        """
        try:
            # A folder may be there already if it is empty.
            if path is None:
                files = cls(_make_next_folder(name, start))
            elif path.is_dir():
                files = cls(path)
                files._was_there = True
                files._begin_in_place(start)
            elif path.is_symlink() and not path.exists():
                raise RunError(
                    f"--run-dir {path} is a link to {os.readlink(path)}, which is not there: make its disk available, "
                    "or name another folder"
                )
            elif os.path.lexists(path):
                raise RunError(f"--run-dir {path} is no folder: name one that is empty, or not there yet")
            else:
                files = cls(path)
                path.parent.mkdir(parents=True, exist_ok=True)
                _make_folder(path, start)
            files.lock()
        except OSError as error:
            raise RunError(f"cannot make a run directory at {path or ROOT}: {error.strerror}") from error
        return files

    def _begin_in_place(self, start: Mapping[str, str]) -> None:
        """Lock a folder that is there and empty, and write the files that a run begins with."""
        # Checked before the lock, which writes a file; and after it, since another process may have been faster.
        self._require_empty()
        self.lock()
        try:
            self._require_empty()
            for name in START:
                write_atomically(self.path / name, start[name].encode())
        except RunError:
            self.unlock()
            raise

    def discard(self) -> None:
        """Remove a run that has not begun to train; a folder that was there before stays, empty.

        What cannot be removed is left: an error that ends the run is not to be hidden.
        """
        folder = self.locate()
        self.unlock()
        self.is_discarded = True
        if folder is None:
            return
        with suppress(OSError):
            if self._was_there:
                remove_content(folder)
            else:
                shutil.rmtree(folder)

    def _require_empty(self) -> None:
        names = {entry.name for entry in self.path.iterdir()}
        if not names:
            return

        # Only a process that found the folder empty has locked it; it may have been killed before `run.json`.
        if LOCK in names and all(name in (LOCK, *START[:-1]) or is_unfinished(name) for name in names):
            return
        if "run.json" in names:
            command = f"pggan-kit resume {quote_path(self.path)}"
            raise RunError(f"--run-dir {self.path} already holds a run; name another, or `{command}`")
        if names == {DISK_FOLDER}:
            raise RunError(
                f"--run-dir {self.path} holds {DISK_FOLDER}, as the top folder of a disk does: name a folder below it, "
                f"such as {self.path / 'run'}"
            )
        raise RunError(f"--run-dir {self.path} is not empty; name another")

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Return an existing run's directory, not locked.

        Raises:
            RunError: there is no run in it, or it cannot be read.
        """
        try:
            os.stat(path / "run.json")
        except (FileNotFoundError, NotADirectoryError):
            # What is there instead says what may have happened.
            hint = ""
            if (path / "checkpoints").is_dir():
                hint = ". It has checkpoints: put its run.json back"
            elif (path / "config.gin").is_file():
                hint = ". A process was killed as it began a run there: begin it again with --run-dir"
            elif find_exported_generator(path) is not None:
                hint = ". It is an exported generator: name the run's folder; sample and interpolate draw from it"
            raise RunError(f"{path} holds no run (it has no run.json){hint}") from None
        except OSError as error:
            raise RunError(f"cannot read {path / 'run.json'}: {error.strerror}") from error
        return cls(path)

    def require_no_links(self) -> None:
        """Check that what a process writes here stays here: no file is a link. Folders that are links are warned of.

        Raises:
            RunError: a file is a link, or the folder cannot be read.
        """
        try:
            links = [Path(entry.path) for entry in os.scandir(self.path) if entry.is_symlink()]
        except OSError as error:
            raise RunError(f"cannot read {self.path}: {error.strerror}") from error

        # A file that is a link would be changed where it is.
        for link in sorted(links):
            target = os.readlink(link)
            if link.is_file():
                raise RunError(
                    f"{link} is a link to {target}, which training would change: put the file itself in its place"
                )
            if not link.is_dir():
                raise RunError(
                    f"{link} is a link to {target}, which is not there: make its disk available again, and repeat the "
                    "command"
                )
            self.warn(f"{link} is a link: its files are read and written in {target}")

    def has_trained(self) -> bool:
        """Return whether a process has saved anything here besides what a run begins with.

        Raises:
            RunError: something cannot be read that would show it.
        """
        return self.checkpoints().has_files() or bool(self.stats())

    def lock(self) -> None:
        """Keep other processes from training here, until `unlock` or the end of this one.

        Raises:
            RunError: another one trains here.
        """
        if self._lock is None:
            self._lock = RunLock(self.path)

    def unlock(self) -> None:
        """Let other processes train here. Does nothing where it is not locked."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def locate(self) -> Path | None:
        """Return the path of the folder that this process has locked; None where no path leads to it any more.

        The path is the absolute one where the working folder was changed. Another run may lie at `path` if this one's
        folder was renamed, or another process may train in the same folder if its `.lock` was removed. Without a lock
        nobody can tell, and `path` is returned.
        """
        if self._lock is None:
            return self.path
        for path in (self.path, self.absolute):
            if self._lock.is_held_in(path):
                return path
        return None

    def require_own_folder(self) -> None:
        """Check that `path` still leads to the folder that this process has locked; call it before anything is written.

        Raises:
            TrainingError: it leads elsewhere, or nowhere.
        """
        folder = self.locate()
        if folder == self.path and folder.is_dir():
            self.absolute = self.path.absolute()
            return
        if folder == self.absolute and folder.is_dir():
            raise TrainingError(
                f"the working folder was changed while the run was training, so that {self.path} is no longer "
                f"{self.absolute}: a plugin must not call os.chdir. What was saved before is untouched"
            )
        if self.path.is_dir():
            raise TrainingError(
                f"{self.path} is another folder now, or its {LOCK} was removed, while the run was training in it: "
                "another process may train there, so nothing was written there. What was saved before is where the "
                "folder is now: resume the run there"
            )
        raise TrainingError(
            f"{self.path} was removed or renamed while the run was training in it, so nothing can be saved there any "
            "more. What was saved before is where the folder is now: resume the run there"
        )

    def update_record(
        self,
        changes: Sequence[Mapping[str, Any]],
        operative_text: str,
        config_text: str | None = None,
        *,
        directions: Mapping[str, str],
    ) -> None:
        """Record with which settings a run goes on; write nothing where the files say so already.

        Args:
            changes: the settings that changed up to here as the run was resumed, the last ones last.
            operative_text: see `describe_start`.
            config_text: see `describe_start`; None where the file was not overridden.
            directions: see `describe_start`; those of metrics that the run had before stay.
        """
        # First what is trained, and then since when: killed in between, a resumed run finds the difference again.
        if config_text is not None:
            write_atomically(self.path / "config.gin", config_text.encode())
        if not (self.path / "operative.gin").exists() or self._read_text("operative.gin") != operative_text:
            write_atomically(self.path / "operative.gin", operative_text.encode())
        about = self.about()
        known = {**about["directions"], **directions}
        if about["changes"] != list(changes) or about["directions"] != known:
            about["changes"] = list(changes)
            about["directions"] = known
            write_atomically(self.path / "run.json", (json_text(about, indent=1) + "\n").encode())

    def about(self) -> dict[str, Any]:
        """Return the content of `run.json`, as `describe_start` gives it.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / "run.json"
        with explain_damage(path):
            content: dict[str, Any] = json.loads(self._read_text("run.json"))
            plugins_are_rows = all(_is_plugin_row(row) for row in content["plugins"])
            # An older version noted none of these; changes are noted where there are some.
            content = {"blocked": [], "objects": {}, "changes": [], "directions": {}, **content}
            are_lists = _is_list_of_texts(content["blocked"]) and all(
                _is_list_of_texts(names) for names in content["objects"].values()
            )
        if not plugins_are_rows:
            raise RunError(f"{path} is damaged: its plugins are no rows of name, origin, sha256 and hooks")
        if not are_lists:
            raise RunError(f"{path} is damaged: its blocked or objects are no lists of names")
        if not is_list_of_changes(content["changes"]):
            raise RunError(f"{path} is damaged: its changes are no list of `images` and `bindings`")
        if not _is_map_of_directions(content["directions"]):
            raise RunError(f"{path} is damaged: its directions of metrics are not all 'lower' or 'higher'")
        return content

    def read_data_record(self) -> RecordedDataset:
        """Return what `run.json` records of the data set.

        Raises:
            RunError: the file is damaged.
        """
        try:
            return read_record(self.about().get("data", {}))
        except (ValueError, AttributeError) as error:
            raise RunError(f"{self.path / 'run.json'} is damaged: {error}") from error

    def read_values(self) -> ValueMap:
        """Return the map of the data's numbers to [-1, 1], as `run.json` records it; that of bytes where it does not.

        Raises:
            RunError: the file is damaged.
        """
        try:
            recorded = self.about().get("data", {}).get("values")
            return BYTES if recorded is None else read_value_map(recorded)
        except (ValueError, AttributeError) as error:
            raise RunError(f"{self.path / 'run.json'} is damaged: {error}") from error

    def read_class_names(self) -> list[str]:
        """Return the names of the data set's classes by their numbers, as `run.json` records them; none without names.

        Raises:
            RunError: the file is damaged.
        """
        try:
            names = self.about().get("data", {}).get("class_names", [])
        except AttributeError:
            names = None
        if not _is_list_of_texts(names):
            raise RunError(f"{self.path / 'run.json'} is damaged: its class names are no list of names")
        return list(names)

    def read_config(self) -> str:
        """Return the text of `config.gin`: includes and overrides resolved.

        Raises:
            RunError: the file is missing or no text.
        """
        return self._read_text("config.gin")

    def _read_text(self, name: str) -> str:
        try:
            return read_text(self.path / name)
        except OSError as error:
            raise RunError(f"cannot read {self.path / name}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RunError(f"{self.path / name} is damaged: it is no UTF-8 text") from error

    def log(self, line: str) -> None:
        """Add a dated line to `log.txt`.

        A line that cannot be written ends no run: what fails for the same reason reports it.
        """
        folder = self.locate()
        if folder is None:
            return
        with suppress(OSError), open_regular(folder / "log.txt", "ab") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n".encode(errors="replace"))

    def log_and_say(self, line: str, say: Say | None) -> None:
        """Log a line, and pass it to `say` where there is one. Only rank 0 does."""
        if distributed.rank() == 0:
            self.log(line)
            if say is not None:
                say(line)

    def warn(self, line: str) -> None:
        """Warn, and log the warning too, once for the same line. Only rank 0 does."""
        if distributed.rank() == 0 and line not in self.warned:
            self.log(f"warning: {line}")
            self.warned.add(line)
            warnings.warn(line, stacklevel=2)

    def checkpoints(self, keep: int = KEEP, say: Say = warnings.warn) -> Checkpoints:
        """Return the run's checkpoints.

        Args:
            keep: see `Checkpoints`; it matters only for saving.
            say: see `Checkpoints`.
        """
        return Checkpoints(self.path / "checkpoints", keep, say)

    def average_snapshots(self, say: Say = warnings.warn) -> AverageSnapshots:
        """Return what the run keeps of its power-function averages.

        Args:
            say: see `AverageSnapshots`.
        """
        return AverageSnapshots(self.path / FOLDER, say)

    def cut_average_snapshots(self, images: int) -> None:
        """Remove averages that were kept past `images`, and log their number; the run makes them again."""
        removed = self.average_snapshots().cut(images)
        if removed:
            self.log(f"removed {len(removed)} snapshots of averages past images {images}: {', '.join(removed)}")

    def remove_leftovers(self, checkpoints: Checkpoints) -> None:
        """Remove what killed processes have left, and log its number; see `Checkpoints.clean_up` for the checkpoints.

        Args:
            checkpoints: the run's checkpoints, of which one has been loaded.
        """
        removed = [f"checkpoints/{name}" for name in checkpoints.clean_up()]
        removed += remove_unfinished(self.path)
        if removed:
            self.log(f"removed {len(removed)} leftovers of a process that was killed: {', '.join(removed)}")

    def keep_start(self) -> None:
        """Put back files of the run's start that were taken away while it trains, and say so.

        The first call remembers them. Only rank 0 does.

        Raises:
            TrainingError: the folder is gone, see `require_own_folder`, or cannot be written.
        """
        self.require_own_folder()
        if self._start is None:
            # The first call reads the files; later ones write those that are missing.
            self._start = self.read_start()
        for name, content in self._start.items():
            path = self.path / name
            if not path.exists():
                try:
                    write_atomically(path, content)
                except RunError as error:
                    raise TrainingError(str(error)) from error
                self.warn(f"{path} was removed while the run was training; it was written again")

    def read_start(self) -> dict[str, bytes]:
        """Return the contents of the files in START, by name."""
        start = {}
        for name in START:
            with suppress(OSError):  # runs that no config was read for have no such files
                start[name] = read_bytes(self.path / name)
        return start

    def write_start(self, start: Mapping[str, bytes]) -> None:
        """Write files of the run's start where they have another content.

        Args:
            start: The contents, as `read_start` returned them.
        """
        for name, content in start.items():
            if read_bytes(self.path / name) != content:
                write_atomically(self.path / name, content)

    def append_stats(self, row: Mapping[str, Any]) -> None:
        """Add a tick's row to `stats.jsonl`; see `JsonLines.append`. Say if earlier rows were taken away."""
        if self._has_rows and not self._rows.path.exists():
            self.warn(f"{self._rows.path} was removed while the run was training: the rows until now are lost")
        self._rows.append(row)
        self._has_rows = True

    def stats(self, say: Say = warnings.warn) -> list[dict[str, Any]]:
        """Return all ticks' rows that are whole; see `JsonLines.read`."""
        return self._rows.read(say)

    def cut_stats(self, images: int) -> None:
        """Drop the rows past `images`; see `JsonLines.cut`."""
        self._rows.cut(images, self.warn)

    def warn_of_lost_rows(self, last_tick: int) -> None:
        """Say if the row of the last tick is missing.

        Args:
            last_tick: the clock of the checkpoint's last tick, which may be one of the run that a branch came from.
        """
        rows = self.stats()
        last_row = rows[-1]["images"] if rows else 0
        begin = read_begin(self.about())
        if begin < last_tick and last_row < last_tick:
            self.warn(
                f"{self._rows.path} ends at images {last_row}, and the last tick was at images {last_tick}: the rows "
                "in between are lost"
            )


def remove_content(folder: Path) -> None:
    """Remove all that is in a folder, which may be a link to one, or a disk of its own; `run.json` last.

    Raises:
        OSError: something cannot be removed.
    """
    # Where a process is killed meanwhile, what is left is known as that of a run.
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name == "run.json"):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def read_begin(about: Mapping[str, Any]) -> int:
    """Return the clock at which a run began by its `run.json`: 0, unless it began with another run's networks."""
    for option, name in (("from", "images"), ("stem", "begins"), ("imported", "images")):
        with suppress(KeyError, TypeError):
            return int(about[option][name])
    return 0


def describe_start(
    plugins: list[dict[str, Any]],
    config_text: str,
    operative_text: str,
    command: str,
    origins: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    blocked: Sequence[str] = (),
    objects: Mapping[str, Sequence[str]] | None = None,
    data: Mapping[str, Any],
    schedule: Mapping[str, Any],
    directions: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the texts of the files that a run begins with, by their names: those in START.

    Args:
        plugins: rows with `name`, `origin`, `hooks` (the names of those that it implements) and, of files, `sha256`.
        config_text: the config, self-contained.
        operative_text: all settings, those of defaults too.
        command: the command line.
        origins: the checkpoints that the run begins with: under `from` that which a branch goes on from, under `stem`
            that which its first pieces come from, under `imported` the file of another project.
        blocked: installed plugins that were left out.
        objects: selectors of the components that were given as objects, by their places.
        data: what is known of the data set; see `Data.record`. Sampling needs `images`, `channels` and `classes`.
        schedule: what the run will train, for those who watch it; see `Schedule.record`.
        directions: which values of each of `train.metrics` are better, `lower` or `higher` ones, for its reports.
    """
    # What people and later commands ask of a run, beside its settings.
    about: dict[str, Any] = {
        "command": command,
        "plugins": plugins,
        "blocked": list(blocked),
        "objects": dict(objects or {}),
        "data": dict(data),
        "schedule": dict(schedule),
        "directions": dict(directions or {}),
        "environment": describe_environment(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }

    # A run from scratch has no entry of an origin.
    for option, origin in (origins or {}).items():
        about[option] = dict(origin)
    return {
        "config.gin": config_text,
        "operative.gin": operative_text,
        "run.json": json_text(about, indent=1) + "\n",
    }


def _make_folder(path: Path, start: Mapping[str, str]) -> None:
    """Make a folder that holds the files which a run begins with as soon as it is there.

    Raises:
        OSError: it cannot be made, or is there and not empty.
    """
    with make_whole_folder(path) as aside:
        for name in START:
            write_atomically(aside / name, start[name].encode())


def _make_next_folder(name: str, start: Mapping[str, str]) -> Path:
    """Make a new folder under `runs/`, see `_make_folder`, and return it.

    Raises:
        RunError: Other processes were faster each time.
        OSError: It cannot be made.
    """
    safe_name = re.sub(r"[^\w.-]+", "-", name)[:LONGEST_NAME]
    ROOT.mkdir(exist_ok=True)
    # Two runs of different names would both be made under one number.
    lock = locks.acquire(ROOT / NUMBERS_LOCK, waiting=lambda: None)
    try:
        for _ in range(NUMBER_ATTEMPTS):
            matches = [re.match(r"([0-9]{5,})-", entry.name) for entry in ROOT.iterdir()]
            numbers = [int(match[1]) for match in matches if match is not None]
            path = ROOT / f"{max(numbers, default=-1) + 1:05d}-{safe_name}"
            try:
                _make_folder(path, start)
            except OSError as error:
                if error.errno in NOT_EMPTY:  # another process was faster, where there are no locks
                    continue
                raise
            return path
        raise RunError(f"cannot make a run directory in {ROOT}: each number was taken meanwhile; name one by --run-dir")
    finally:
        if lock is not None:
            lock.release()


def _is_plugin_row(row: Any) -> bool:
    if not isinstance(row["name"], str) or not isinstance(row["origin"], str):
        return False
    if not _is_list_of_texts(row.get("hooks", [])):
        return False
    texts = [row.get(key) for key in ("sha256", "distribution", "version")]
    return all(text is None or isinstance(text, str) for text in texts)


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_map_of_directions(value: Any) -> bool:
    return isinstance(value, dict) and all(direction in ("lower", "higher") for direction in value.values())


def read_command_line() -> str:
    """Return the command that started this process, quoted for a shell, without the folder of its program."""
    program = [os.path.basename(sys.argv[0])]
    if program == ["__main__.py"]:
        program = ["python", "-m", "pggan_kit"]
    return shlex.join([*program, *sys.argv[1:]])
