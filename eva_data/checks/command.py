"""The command line over several checks of data sets, of which it imports only the one asked for."""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence

from eva_data.commands import exit_code
from eva_data.options import integer


def main(
    commands: Mapping[str, tuple[str, str]], *, about: str, arguments: Sequence[str] | None = None
) -> int:
    """Run one of several checks.

    Args:
        commands: Name -> module and line of help. The module has `add_arguments(parser)`, which
            sets the default `run`: a function of the parsed arguments that returns 0 without
            problems and 1 with some.
        about: Text above the list of commands.
        arguments: Arguments in place of those of the process.

    Returns:
        The exit code: that of the check, 2 if the arguments or a file cannot be used, 130 after
        Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, (module, text) in commands.items():
        command = subparsers.add_parser(name, help=text)
        if name in given[:1]:
            importlib.import_module(module).add_arguments(command)
    args = parser.parse_args(given)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    return exit_code(lambda: int(args.run(args)))


def add_workers(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option `--workers`.

    Args:
        parser: Parser of a command.
        what: What the processes decode.
    """
    parser.add_argument(
        "--workers",
        type=integer(1),
        default=os.cpu_count() or 1,
        metavar="N",
        help=f"processes that decode {what} (default %(default)s)",
    )
