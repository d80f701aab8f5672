"""The entry point: the one place where errors become messages and exit codes.

All else is imported inside, so that an interrupt is quiet from the first moment on.
"""

import errno
import os
import sys
from io import TextIOWrapper

from meshwright.catalog.errors import MeshwrightError

INTERRUPTED = 130


def main() -> None:
    """Run the command line. A MeshwrightError is printed to standard error and gives its exit code."""
    try:
        _prepare_streams()
        _run()
    except MeshwrightError as error:
        from meshwright.cli.console import print_error

        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _prepare_streams() -> None:
    """Let any text be printed. Raises MeshwrightError where standard output is closed."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open as long as the process is
    if sys.stdout is None:
        raise MeshwrightError("standard output is closed", hint="send it to /dev/null if it isn't wanted")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run() -> None:
    """Run the command. Raises MeshwrightError, also where the answer can't be written out."""
    try:
        try:
            from meshwright.cli.app import app

            app(prog_name="meshwright")
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # of a file, not of a stream
            raise
        _discard_output()
        if error.errno == errno.EPIPE:
            sys.exit(1)
        raise MeshwrightError(f"standard output can't be written to: {error.strerror or error}") from None


def _discard_output() -> None:
    """Send what is still buffered nowhere, or the interpreter would fail to write it again as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    main()
