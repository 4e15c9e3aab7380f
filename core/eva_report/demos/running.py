"""What the demo programs share: a plan is checked, its jobs are done, and what failed is said."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from eva_data.files import UnwritableError, printable, require_free
from eva_data.inputs import Job, Plan
from eva_data.progress import progress
from eva_report.terminal import ForTerminal, TerminalFormatter
from eva_runs.commands import complain
from eva_runs.interruption import EXIT_KEYBOARD

EXIT_WRONG_ARGUMENTS = 2


def do_jobs(jobs: Sequence[Job], do: Callable[[Job], str | None], *, title: str) -> list[str]:
    """Do jobs one after another, with a progress bar.

    Args:
        jobs: Jobs of a plan.
        do: Function that does one; it returns a sentence if the file cannot be used.
        title: Title of the progress bar.

    Returns:
        The sentences, for the end of the program; after Ctrl-C they are said at once.
    """
    problems: list[str] = []
    try:
        for job in progress(jobs, total=len(jobs), what=title, unit="file"):
            if problem := do(job):
                problems.append(problem)
    except KeyboardInterrupt:
        for problem in problems:
            complain(printable(problem))
        raise
    return problems


def refuse(parser: argparse.ArgumentParser, error: Exception | str) -> NoReturn:
    """End a program with one sentence on a value that was given, without the lines on its usage.

    Args:
        parser: Parser of the program, for its name.
        error: The sentence, such as that a file is not there.

    Raises:
        SystemExit: With code 2.
    """
    parser.exit(EXIT_WRONG_ARGUMENTS, printable(f"{parser.prog}: error: {error}\n"))


def run_demo(
    parser: argparse.ArgumentParser,
    *,
    prepare: Callable[[], Plan],
    work: Callable[[Plan], list[str]],
    overwrite: bool,
    results: Sequence[Path] = (),
) -> None:
    """Process every readable input and report the rest; the terminal gets warnings alone.

    Args:
        parser: Parser of the program, for its name.
        prepare: Function that plans and checks; its OSError or ValueError is a mistake in the
            arguments.
        work: Function that does the jobs, if there are any, and returns a sentence for each file
            that could not be used.
        overwrite: Replace earlier results.
        results: Files to write, besides the targets of the jobs.

    Raises:
        SystemExit: With code 2 for wrong arguments, 1 and one sentence for each input that could
            not be used or for a full disk, 130 after Ctrl-C.
    """
    try:
        plan = prepare()
        targets = [target for job in plan.jobs for target in job.targets]
        require_free([*targets, *results], overwrite=overwrite)
    except (OSError, ValueError) as error:
        refuse(parser, error)
    log_to_terminal()
    problems = list(plan.problems)
    try:
        if plan.jobs:
            problems += work(plan)
    except KeyboardInterrupt:
        sys.exit(EXIT_KEYBOARD)
    except UnwritableError as error:
        sys.exit(f"{parser.prog}: {error}")
    if not plan.jobs and len(problems) == 1:
        sys.exit(printable(f"{parser.prog}: {problems[0]}"))
    if problems:
        sys.exit(printable("\n  ".join(["not everything could be read:", *problems])))


def log_to_terminal() -> None:
    """Let warnings of the log reach the terminal, and what is meant for it, and nothing else."""
    handler = logging.StreamHandler()
    handler.addFilter(ForTerminal())
    handler.setFormatter(TerminalFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
