"""What only POSIX systems have, which of it a test needs, and a Python from which it is taken away."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

try:
    import resource
except ModuleNotFoundError:  # Windows; tests that use it are skipped there
    resource = None  # type: ignore[assignment]

__all__ = ["HIDE", "ONLY_POSIX", "ONLY_POSIX_MODULES", "find_posix_need", "resource"]

ONLY_POSIX = {
    "os": {
        "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "POSIX_FADV_RANDOM", "POSIX_FADV_WILLNEED", "WNOHANG",
        "fork", "forkpty", "getuid", "geteuid", "killpg", "mkfifo", "nice", "posix_fadvise", "preadv", "pwritev",
        "register_at_fork", "sched_getaffinity", "sched_setaffinity", "setsid", "statvfs", "sysconf", "uname",
    },
    "signal": {
        "SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGUSR1",
        "SIGUSR2", "SIG_BLOCK", "SIG_SETMASK", "alarm", "pthread_sigmask", "setitimer", "sigwait",
    },
    "socket": {"AF_UNIX", "MSG_DONTWAIT", "SOCK_SEQPACKET"},
}  # fmt: skip
"""Names of modules that Windows lacks."""

ONLY_POSIX_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
"""Modules that Windows lacks."""

USED_BY_LIBRARIES = {"O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "WNOHANG", "statvfs", "uname"}
"""Names that libraries look up as they run on Linux: these stay where the rest is taken away."""

NEEDS = {
    "chmod": "permissions of files",
    "kill": "signals to other processes",
    "symlink_to": "symbolic links, which need a privilege there",
    "symlink": "symbolic links, which need a privilege there",
    "send_signal": "signals to other processes",
    "setrlimit": "limits of a process",
    "preexec_fn": "functions between fork and exec",
    "pass_fds": "descriptors that are inherited by number",
    "Fork": "os.fork",
    "fork": "os.fork",
}
"""Names in a test's code, and what the test therefore needs besides `ONLY_POSIX`."""

HIDE = f"""\
import asyncio, concurrent.futures, filelock, importlib.metadata, multiprocessing, os, signal, socket, subprocess, sys
import torch, torch._dynamo, torch.utils.tensorboard
for module, names in {ONLY_POSIX!r}.items():
    for name in names - {USED_BY_LIBRARIES!r}:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
for module in {ONLY_POSIX_MODULES!r}:
    sys.modules[module] = None
signal.Signals = None
"""
"""Python code after which modules have what they have on Windows; libraries were imported before."""


def find_posix_need(function: Callable[..., Any]) -> str | None:
    """Return what a function of the tests, or what it calls there, needs that Windows lacks; None for nothing."""
    for code in _iterate_code(function, set()):
        for name in (*code.co_names, *code.co_freevars):
            if name in NEEDS:
                return NEEDS[name]
            if any(name in names for names in ONLY_POSIX.values()):
                return f"`{name}` of Python's library"
        if any(isinstance(text, str) and text.startswith("/proc/") for text in code.co_consts):
            return "the files of Linux under /proc"
    return None


def _iterate_code(function: Any, seen: set[types.CodeType]) -> Iterator[types.CodeType]:
    """Yield the code of a function, of what is defined in it, and of functions of the tests that it names."""
    function = getattr(function, "__wrapped__", function)
    if isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, type):
        members = [member for member in vars(function).values() if isinstance(member, types.FunctionType)]
    elif isinstance(function, (types.FunctionType, types.MethodType)):
        members = [function]
    else:
        return
    for member in members:
        waiting = [member.__code__]
        while waiting:
            code = waiting.pop()
            if code in seen:
                continue
            seen.add(code)
            yield code
            waiting += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
            for name in code.co_names:
                named = member.__globals__.get(name)
                if _is_of_tests(named):
                    yield from _iterate_code(named, seen)


def _is_of_tests(thing: Any) -> bool:
    """Return whether something is defined by a test module or a helper, and so decides what a test needs."""
    module = getattr(thing, "__module__", None) or ""
    return module.startswith(("helpers", "tests", "test_"))
