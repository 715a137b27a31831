"""The border of the command line: results go out as JSON lines, errors as exit codes, and nothing as a traceback.

Exit codes: 0 fine, 1 failed, 2 usage or settings, 130 interrupted, 141 nobody reads stdout any more. A command
ends with another code by `raise typer.Exit(code)`.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postroom.libs.exceptions import ConfigurationError, PostroomError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from rich.console import Console

FAILED = 1
USAGE = 2
INTERRUPTED = 130
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOBODY_READS = 141  # what a shell reports of a program that SIGPIPE ended


class NobodyReadsError(Exception):
    """Stdout was closed by its reader: `postroom tail ... | head`. Nothing went wrong."""


def write_json(value: object) -> None:
    """Write `value` as one line of JSON to stdout; in ASCII where its characters cannot stand there as UTF-8."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    if not text.isascii() and not _goes_out_as_utf8(text):
        text = json.dumps(value, allow_nan=False, default=str)
    sys.stdout.write(text + "\n")


def _goes_out_as_utf8(text: str) -> bool:
    try:
        text.encode()  # a file's name may have bytes that are none
    except UnicodeEncodeError:
        return False
    return codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"


def stdout_console() -> Console:
    """Rich's console on stdout; it leaves to the border what to do when nobody reads any more."""
    from rich.console import Console

    class StdoutConsole(Console):
        def on_broken_pipe(self) -> None:
            raise NobodyReadsError

    return StdoutConsole(highlight=False, soft_wrap=True)


@contextmanager
def sigterm_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end what is inside as Ctrl-C does: in good order, by a KeyboardInterrupt."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(command: Callable[[], Any], arguments: Sequence[str]) -> int:
    """Run `command` and give its exit code; what it raises on purpose is told in one message.

    With `--json` among `arguments`, the message is also the last line of stdout:
    `{"error": {"code", "message", "remedy"}}`. An exception nobody foresaw passes through with its traceback.
    """
    import typer

    _replace_missing_streams()
    _escape_what_stdout_cannot_say()
    try:
        code = command()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except PostroomError as exc:
        return _tell(exc, USAGE if isinstance(exc, ConfigurationError) else FAILED, arguments)
    except typer.TyperException as exc:
        return _tell_usage(exc, arguments)
    except (KeyboardInterrupt, typer.Abort):
        _to_stderr("\npostroom: interrupted\n")
        return INTERRUPTED
    except (BrokenPipeError, NobodyReadsError):
        _leave_stdout()
        return NOBODY_READS
    except OSError as exc:
        if exc.errno not in _NO_ROOM or exc.filename is not None:
            raise
        _leave_stdout()
        _to_stderr(f"postroom: the output cannot be written: {exc.strerror}. Make room where it goes. [output]\n")
        return FAILED


def wants_json(arguments: Sequence[str]) -> bool:
    """True when `--json` stands among the options."""
    options = arguments[: list(arguments).index("--")] if "--" in arguments else arguments
    return "--json" in options


def _tell(error: PostroomError, code: int, arguments: Sequence[str]) -> int:
    _to_stderr(f"postroom: {error} [{error.code}]\n")
    if wants_json(arguments):
        told = {"code": error.code, "message": error.message, "remedy": error.remedy}
        _to_stdout({"error": told})
    return code


def _tell_usage(error: Any, arguments: Sequence[str]) -> int:
    """What typer found wrong with the words of the command line; an empty command line has shown its help."""
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        _to_stderr(f"{message}\n" if message else "")
        return USAGE
    context = getattr(error, "ctx", None)
    remedy = f"see {'postroom' if context is None else context.command_path} --help"
    _to_stderr(f"postroom: {PostroomError(message, remedy=remedy)} [usage]\n")
    if wants_json(arguments):
        told = {"code": "usage", "message": message, "remedy": remedy}
        _to_stdout({"error": told})
    return int(error.exit_code)


def _to_stderr(text: str) -> None:
    """Write `text`, unless nobody can read it: the exit code says it all the same."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def _to_stdout(value: object) -> None:
    try:
        write_json(value)
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_stdout()


def _replace_missing_streams() -> None:
    """Give the process a stdout and a stderr that swallow everything where it was started without (`>&-`)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the process ends


def _escape_what_stdout_cannot_say() -> None:
    """Let stdout write an escape where its encoding lacks a character, as stderr does, instead of an exception."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _leave_stdout() -> None:
    """Point stdout to nowhere, so that the interpreter's last flush has nothing to complain about."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
