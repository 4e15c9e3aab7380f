"""Names that a misspelt one may mean."""

import difflib
from collections.abc import Iterable

from eva_data.files import printable


class SlipError(ValueError):
    """A word of a command line that names nothing."""


def closest(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """Find the names that a wrong one may mean, by all of it or by its last part.

    Args:
        name: The wrong name.
        known: Names that exist.
        most: Number of names at most.

    Returns:
        Names that exist, the likeliest first.
    """
    names = list(known)
    last = {one.rpartition(".")[2]: one for one in names}
    found = difflib.get_close_matches(name, names, most)
    ends = difflib.get_close_matches(name.rpartition(".")[2], last, most)
    return list(dict.fromkeys([*found, *(last[one] for one in ends)]))[:most]


def hint(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """Write the end of a message on a name that does not exist.

    Args:
        name: The wrong name.
        known: Names that exist.
        otherwise: Text where none of them is close.

    Returns:
        `; close to it: A, B`, or `otherwise`.
    """
    close = closest(name, known)
    return f"; close to it: {', '.join(close)}" if close else otherwise


def end_program(program: str, error: Exception) -> SystemExit:
    """Make the end of a program after an error that the user can fix.

    Args:
        program: Name in the message.
        error: The error; its text becomes one line.

    Returns:
        What to raise: the line is the exit code, which Python prints before it exits with 1.
    """
    return SystemExit(printable(f"{program}: {' '.join(str(error).split())}"))
