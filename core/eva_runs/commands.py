"""Output checks and exit codes of one-shot programs."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from eva_data.files import make_folder, printable, require_free
from eva_data.progress import above_bars
from eva_runs.extras import sentence_of
from eva_runs.interruption import EXIT_KEYBOARD

EXIT_UNREAD = 141  # as a shell counts SIGPIPE


class UnwritableOutputError(OSError):
    """The standard output takes no more, as on a full disk."""


def say(text: str) -> None:
    """Write a line to the standard output; what its encoding does not have is escaped.

    Args:
        text: The line.

    Raises:
        SystemExit: With `EXIT_UNREAD`, if its reader has seen enough, as in `... | head`.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        with above_bars(sys.stdout):
            print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)  # noqa: T201
    except BrokenPipeError:
        leave_unread()


def leave_unread() -> NoReturn:
    """End the program, whose standard output has no reader any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python's last flush goes there
    sys.exit(EXIT_UNREAD)


def complain(text: str) -> None:
    """Write a line to the standard error output, if there is one."""
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")


def ended(sentence: str, code: int) -> SystemExit:
    """Say why a program ends, and make its end.

    Args:
        sentence: What is said on the standard error output.
        code: Exit code.

    Returns:
        What to raise; its text is the sentence.
    """
    complain(printable(sentence))
    end = SystemExit(sentence)
    end.code = code
    return end


def program_name(default: str) -> str:
    """Return what a command is called: by the words of `eva`, or by its own program.

    Args:
        default: Path of its program in a checkout.
    """
    called = sys.argv[0]
    return called if called.startswith("eva ") else default


def folder_to_show(*data: str | os.PathLike[str] | None, otherwise: str) -> str:
    """Name what a demo can be tried on, for a command to run next.

    Args:
        *data: Data as they were named, the best first: folders, lists, names of data sets, none.
        otherwise: Word that stands for an input where none of them is a folder.
    """
    return next((os.fspath(one) for one in data if one and Path(one).is_dir()), otherwise)


def command_to_run(words: str, program: str, *arguments: str | Path) -> str:
    """Write a command for the user to run next: with `eva`, or with its program in a checkout.

    Args:
        words: Its words after `eva`, such as "detection demo".
        program: Path of its program in a checkout, such as "detection/demo.py".
        *arguments: Its arguments.

    Returns:
        A line that a shell takes, in the form in which this process was called.
    """
    start = ["eva", *words.split()] if sys.argv[0].startswith("eva ") else ["python", program]
    return shlex.join([*start, *map(str, arguments)])


def exit_code(
    command: Callable[[], int],
    *,
    refused: int = 2,
    name: str = "error",
    interrupted: str = "nothing was written",
) -> int:
    """Run a command; an error that the user can fix ends it with one sentence.

    Args:
        command: Does the work and returns the exit code.
        refused: Exit code after such an error.
        name: Start of the sentence.
        interrupted: What Ctrl-C leaves behind.

    Returns:
        The exit code: that of the command, `refused`, or 130 after Ctrl-C.
    """
    try:
        return command()
    except (OSError, ValueError) as error:
        complain(f"{name}: {error}")
        return refused
    except ImportError as error:
        missing = sentence_of(error)
        if missing is None:
            raise
        complain(f"{name}: {missing}")
        return refused
    except KeyboardInterrupt:
        complain(f"interrupted; {interrupted}")
        return EXIT_KEYBOARD


def program(
    parse: Callable[[Sequence[str] | None], argparse.Namespace],
    work: Callable[[argparse.Namespace], int],
    *,
    refused: int = 2,
    name: str = "error",
    interrupted: str = "nothing was written",
) -> Callable[..., int]:
    """Make the `main` of a program of one step.

    Args:
        parse: Parser of the arguments; it ends the process for wrong ones.
        work: What the program does with its options; returns the exit code.
        refused: Exit code after an error that the user can fix, see `exit_code`.
        name: Start of its sentence where it is not called by `eva`.
        interrupted: What Ctrl-C leaves behind.

    Returns:
        The `main`: takes the arguments of the command line, or None for those of the process, and
        returns the exit code.
    """

    def main(arguments: Sequence[str] | None = None) -> int:
        options = parse(arguments)
        return exit_code(
            lambda: work(options), refused=refused, name=program_name(name), interrupted=interrupted
        )

    return main


def check_outputs(
    outputs: Sequence[Path | None], *, overwrite: bool, inputs: Mapping[str, Path | None]
) -> None:
    """Refuse to write files over what is to be kept, before any work is done.

    Args:
        outputs: Files that a command will write; None for those that were not asked for.
        overwrite: Replace earlier outputs.
        inputs: What the messages call the files that the command reads, and the files.

    Raises:
        ValueError: If two outputs are one file, an output is an input, lies in no folder, or is
            there already and may not be replaced.
        UnwritableError: If a folder takes no file.
    """
    wanted = [path for path in outputs if path is not None]
    if len({path.resolve() for path in wanted}) < len(wanted):
        raise ValueError(f"{wanted[0]}: two outputs are the same file")
    for path in wanted:
        for what, source in inputs.items():
            if source is not None and _same(path, source):
                raise ValueError(
                    f"{path} is the {what}: it is never overwritten, name another file"
                )
        if not path.parent.is_dir():
            raise ValueError(f"{path} is not a place for a file: name one in an existing folder")
    require_free(wanted, overwrite=overwrite)
    for folder in dict.fromkeys(path.parent for path in wanted):
        make_folder(folder)  # it is there; fails now, not after hours


def _same(path: Path, other: Path) -> bool:
    """Test whether two names lead to one file, by a hard link too."""
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()
