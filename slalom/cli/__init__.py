"""The ``slalom`` command. Exit codes: 0 done, 2 the user's mistake, 130 interrupted, 1 our fault."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from slalom.cli.arguments import parse
from slalom.errors import SlalomError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; a user's mistake is one line on standard error."""
    try:
        arguments = parse(argv)
    except SystemExit as stop:  # argparse: --help, or a message already printed
        return int(stop.code or 0)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("slalom: interrupted", file=sys.stderr)
        return 130
    except SlalomError as error:
        print(f"slalom: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"slalom: error: {error.filename or 'input/output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        print("slalom: this is a defect of Slalom, not your mistake; please report it", file=sys.stderr)
        return 1
