"""Command line of several checks of data sets; imports only the selected check."""

import argparse
import importlib
import io
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from eva_runs.command_line.parsing import Parser
from eva_runs.commands import complain, exit_code
from eva_runs.options import integer


def main(
    commands: Mapping[str, tuple[str, str]], *, about: str, arguments: Sequence[str] | None = None
) -> int:
    """Run one of several checks; where a path stands in place of its name, the one that fits.

    Args:
        commands: Name -> module and line of help. The module has `add_arguments(parser)`, which
            sets the default `run`: a function of the parsed arguments that returns 0 without
            problems and 1 with some. Its docstring is the text above the options.
        about: Text above the list of commands.
        arguments: Arguments in place of those of the process.

    Returns:
        The exit code: that of the check, 2 if the arguments or a file cannot be used, 130 after
        Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] not in commands and not given[0].startswith("-"):
        from eva_data.checks.guessing import guess  # here, so that --help comes at once

        try:
            given = guess(given)
        except (ValueError, OSError) as error:
            complain(f"error: {error}")
            return 2
        complain(f"checked as: {shlex.join(given)}")
    shape = argparse.RawDescriptionHelpFormatter
    parser = Parser(description=about, formatter_class=shape)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, (module, text) in commands.items():
        command = subparsers.add_parser(name, help=text, formatter_class=shape)
        if name in given[:1]:
            check = importlib.import_module(module)
            check.add_arguments(command)
            command.description = check.__doc__
    args = parser.parse_args(given)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    return exit_code(lambda: int(args.run(args)))


def add_shared(
    parser: argparse.ArgumentParser,
    what: str,
    *,
    skip: str,
    write: tuple[str, str] | None = None,
    report: str = "the findings, with more ids",
) -> None:
    """Add the options that checks share: outputs, and how files are read.

    Args:
        parser: Parser of a command.
        what: What the processes decode.
        skip: Help of `--skip-decode`.
        write: Placeholder and content of the file `--write`; None leaves the option out.
        report: Content of the file `--report`.
    """
    add = parser.add_argument
    if write is not None:
        add("--write", type=Path, metavar=write[0], help=f"also write {write[1]}")
    add("--report", type=Path, metavar="JSON", help=f"also write {report}")
    add("--overwrite", action="store_true", help="replace earlier outputs")
    add("--skip-decode", action="store_true", help=skip)
    add(
        "--workers",
        type=integer(1),
        default=os.cpu_count() or 1,
        metavar="N",
        help=f"processes that decode {what} (default %(default)s)",
    )
