"""The ``slalom`` command. Exit codes: 0 done, 2 the user's mistake, 130 interrupted, 1 our fault."""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from slalom.cli.arguments import parse
from slalom.errors import SlalomError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; a user's mistake is one line on standard error."""
    _mend_streams()
    try:
        arguments = parse(argv)
    except SystemExit as stop:  # argparse: --help, or a message already printed
        return int(stop.code or 0)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("slalom: interrupted", file=sys.stderr)
        return 130
    except SlalomError as error:
        print(f"slalom: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        _give_up_output()
        return 0
    except OSError as error:
        print(f"slalom: error: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        _give_up_output()
        return 2
    except Exception:
        traceback.print_exc()
        print("slalom: this is a defect of Slalom, not your mistake; please report it", file=sys.stderr)
        return 1


def _show_warning(message: Warning | str, *where: object, **more: object) -> None:
    """One line, as for an error; Python's own way quotes our code."""
    print(f"slalom: warning: {message}", file=sys.stderr)


def _mend_streams() -> None:
    """Give a closed standard stream somewhere to write to, and make any text fit for standard output."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # names and classes are not ASCII, whatever the locale says
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def _give_up_output() -> None:
    """Throw away what standard output still holds, or Python would try to write it once more as it exits."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
