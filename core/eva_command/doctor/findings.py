"""What `eva doctor` finds: a state and a line each."""

from typing import Literal, NamedTuple

State = Literal["ok", "note", "missing", "broken"]


class Finding(NamedTuple):
    """A line of the report.

    Attributes:
        state: `missing` is what could be installed, `broken` what is installed and does not work.
        about: Subject.
        text: What was found.
        fix: Command that fixes it, or empty.
    """

    state: State
    about: str
    text: str
    fix: str = ""
