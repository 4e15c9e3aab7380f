"""What does not leave a machine: places of files, and names of users and machines."""

import contextlib
import getpass
import re
import socket
from pathlib import Path
from typing import Any

_QUOTED = re.compile(
    r"(?P<quote>[\"'])(?P<path>(?:file:/{2,3}|~|/|[A-Za-z]:[\\/])[^\"'\n]*)(?P=quote)"
)
_BARE = re.compile(r"(?<![\w\"'/:.}>)\]*<-])(?:file://|~)?/[^\s\"',;:)\]}<>]+")
_USES = ("train", "training", "val", "valid", "validation", "test", "images")
_LEAST = 3  # letters of a name that is looked for


def without_places(text: str) -> str:
    """Replace absolute paths by their last part, and take out names of user and machine.

    Args:
        text: Settings or prose.

    Returns:
        The text; relative paths and addresses stay.
    """
    text = _QUOTED.sub(
        lambda found: f"{found['quote']}{_last(found['path'])}{found['quote']}", text
    )
    text = _BARE.sub(lambda found: _last(found[0]), text)
    for name in map(re.escape, sorted(_names(), key=len, reverse=True)):
        text = re.sub(rf"(?<![\w-]){name}(?=[/\\@])|(?<=[/\\@]){name}(?![\w-])", "USER", text)
    return text


def data_name(place: str) -> str:
    """Name a data set by its folder: of `.../digits/train` that is `digits`.

    Args:
        place: Path or name of the data.

    Returns:
        A name without a place.
    """
    parts = [part for part in re.split(r"[\\/]+", place) if part not in ("", ".", "..", "~")]
    if len(parts) > 1 and parts[-1].lower() in _USES and parts[-2] not in _names():
        return parts[-2]
    return parts[-1] if parts else "."


def clean(value: Any) -> Any:
    """Apply `without_places` to all texts of a JSON value."""
    if isinstance(value, dict):
        return {clean(name): clean(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [clean(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~", "file:/")) or re.match(r"[A-Za-z]:[\\/]", value):
        return _last(value)
    return without_places(value)


def _last(path: str) -> str:
    parts = [part for part in re.split(r"[\\/]+", path.removeprefix("file:")) if part]
    return parts[-1] if parts and not parts[-1].startswith("~") else "."


def _names() -> set[str]:
    names = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    with contextlib.suppress(OSError, KeyError, RuntimeError):  # a user without entry or home
        names |= {getpass.getuser(), Path.home().name}
    return {name for name in names if len(name) >= _LEAST and name not in ("root", "localhost")}
