"""What does not leave a machine: passwords, places of files, names of users and machines."""

import contextlib
import getpass
import json
import re
import socket
from pathlib import Path
from typing import Any

from eva_runs.record import without_secrets

_QUOTED = re.compile(
    r"(?P<quote>[\"'])(?P<path>(?:file:/{2,3}|~|/|[A-Za-z]:[\\/])[^\"'\n]*)(?P=quote)"
)
_BARE = re.compile(r"(?<![\w\"'/:.}>)\]*<-])(?:file://|~)?/[^\s\"',;:)\]}<>]+")
_HOME = re.compile(r"^(?:/home|/Users|[A-Za-z]:[\\/]Users)[\\/]+[^\\/]+")
_LEAST = 3  # letters of a name that is looked for


def without_places(text: str) -> str:
    """Replace absolute paths by their last part; take out passwords, names of user and machine.

    Args:
        text: Settings or prose.

    Returns:
        The text; relative paths and addresses stay.
    """
    text = _QUOTED.sub(
        lambda found: f"{found['quote']}{_last(found['path'])}{found['quote']}",
        without_secrets(text),
    )
    text = _BARE.sub(lambda found: _last(found[0]), text)
    for name in map(re.escape, sorted(_names(), key=len, reverse=True)):
        text = re.sub(
            rf"(?P<address>\bhf:/[^\s\"',]*)|(?<![\w-]){name}(?=[/\\@])|(?<=[/\\@]){name}(?![\w-])",
            lambda found: found["address"] or "USER",
            text,
        )
    return text


def yaml_without_places(text: str) -> str:
    """Apply `without_places` to YAML, where a path with blanks needs no quotes.

    Args:
        text: Settings.

    Returns:
        The text; the last parts of absolute paths are in quotes.

    Raises:
        ValueError: If the text is not YAML.
    """
    import yaml  # here, because huggingface_hub brings it

    parts, end = [], 0
    try:
        for token in yaml.scan(text):
            one_line = isinstance(token, yaml.ScalarToken) and token.style not in ("|", ">")
            if one_line and _is_place(token.value):
                parts += [text[end : token.start_mark.index], json.dumps(_last(token.value))]
                end = token.end_mark.index
    except yaml.YAMLError as error:
        raise ValueError(f"the config of the run is not YAML: {error}") from error
    return without_places("".join([*parts, text[end:]]))


def clean(value: Any) -> Any:
    """Apply `without_places` to all texts of a JSON value."""
    if isinstance(value, dict):
        return {clean(name): clean(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [clean(inner) for inner in value]
    if not isinstance(value, str):
        return value
    return _last(value) if _is_place(value) else without_places(value)


def _is_place(text: str) -> bool:
    return re.match(r"/|~|file:/|[A-Za-z]:[\\/]", text) is not None


def _last(path: str) -> str:
    parts = _parts(path)
    return parts[-1] if parts else "."


def _parts(path: str) -> list[str]:
    """Split a path; what leads to the folder of a user, and that folder, are left out."""
    path = _HOME.sub("", path.removeprefix("file://").removeprefix("file:"))
    parts = [part for part in re.split(r"[\\/]+", path) if part not in ("", ".", "..")]
    names = _names()
    own = [index for index, part in enumerate(parts) if part in names or part.startswith("~")]
    return parts[own[-1] + 1 :] if own else parts


def _names() -> set[str]:
    names = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    with contextlib.suppress(OSError, KeyError, RuntimeError):  # a user without entry or home
        names |= {getpass.getuser(), Path.home().name}
    return {name for name in names if len(name) >= _LEAST and name not in ("root", "localhost")}
