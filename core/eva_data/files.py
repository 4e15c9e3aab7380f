"""Names of files, their content, and the files below a folder."""

import contextlib
import gc
import io
import json
import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

# Those of torchvision's ImageFolder, by which the official training sets were listed.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
)
OTHER_IMAGE_SUFFIXES = (".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl")  # not read
ARRAY_SUFFIXES = frozenset({".npy", ".npz"})  # images of bands, see `eva_data.band_files`
DEMO_IMAGE_SUFFIXES = IMAGE_SUFFIXES | {".gif"}  # what people bring to a demo
VIDEO_SUFFIXES = frozenset(
    {
        *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
        *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    }
)
LISTED_IMAGE_SUFFIXES = ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


def printable(string: str) -> str:
    """Escape what is not text: names of files are bytes, and not all of them are UTF-8."""
    return string.encode(errors="backslashreplace").decode()


def display_path(path: str | os.PathLike[str]) -> str:
    """Write a path for a user: relative to the current folder, if it is below that."""
    here = Path.cwd()
    below = Path(path).is_relative_to(here)
    return str(Path(path).relative_to(here)) if below else os.fspath(path)  # which may be a URL


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Replace `~` at the beginning; that of a user who does not exist stays as it is written."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (which raises RuntimeError)


def is_there(word: str) -> bool:
    """Return whether a word of a command line is a file or folder; any text may be asked for."""
    return os.path.exists(word)  # noqa: PTH110 (Path's raises for a text that is too long)


def stays_below(name: str) -> bool:
    """Return whether a path, of a file that anybody may have written, leads nowhere above."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def require_regular_file(path: Path) -> None:
    """Refuse, by an OSError, what is no file or link to one, as a pipe, whose reader would wait."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "is not there" if missing else f"cannot be read: {error.strerror}"
        raise type(error)(f"{path} {reason}") from error
    if not stat.S_ISREG(mode):
        raise OSError(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'a device')} and not a file")


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file of others to read it; a pipe or device is refused, and never waited for."""
    require_regular_file(path)
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:  # perhaps a pipe by now
        yield stream


def read_regular(path: Path) -> bytes:
    """Read a file of others; an OSError if it is missing, or not a regular file."""
    with open_regular(path) as stream:
        return stream.read()


def read_lines(file: str | os.PathLike[str], *, skip_blank: bool = False) -> list[str]:
    """Read the lines of a text file, at least one, without the spaces around them.

    Blank lines at its end are left out, and others with `skip_blank` (else a ValueError).
    """
    path = Path(file)
    with explain_format(path, "text in UTF-8"):
        decoded = read_regular(path).decode("utf-8-sig")
    lines = [line.strip() for line in re.split(r"\r\n?|\n", decoded.rstrip())]
    if skip_blank:
        lines = [line for line in lines if line] or [""]
    if "" in lines:
        raise ValueError(
            f"{path} is empty or has a blank line ({lines.index('') + 1}): write one text in each "
            "line"
        )
    return lines


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Pause the garbage collector, which would look at millions of new objects again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextlib.contextmanager
def explain_format(
    name: str | os.PathLike[str], kind: str, *others: type[Exception]
) -> Iterator[None]:
    """Turn what a parser raises into a ValueError that names the file and its kind."""
    errors: tuple[type[Exception], ...] = (ValueError, RecursionError, SyntaxError, *others)
    try:
        yield
    except errors as error:  # that of XML is a SyntaxError
        raise ValueError(f"{name} is not {kind}: {' '.join(str(error).split())}") from error


@without_collector()
def parse_json(content: bytes, name: str) -> Any:
    """Parse JSON of the file `name`; a ValueError names it."""
    with explain_format(name, "JSON"):
        return json.loads(content)


def load_json(path: Path) -> Any:
    """Parse a JSON file, with or without a mark of UTF-8; its error names it."""
    return parse_json(read_regular(path), str(path))


def load_object(path: Path) -> dict[str, Any]:
    """Parse a JSON file that holds an object; its error names it."""
    content = load_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no object of JSON")
    return content


def load_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file; its error names it."""
    with explain_format(path, "TOML"):
        return tomllib.loads(read_regular(path).decode())


def list_files(folder: str | os.PathLike[str]) -> frozenset[str]:
    """Return the names of the files in a folder; none of one that is not there."""
    with contextlib.suppress(OSError, ValueError), os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries if entry.is_file())
    return frozenset()


def find_files(folder: Path, suffixes: Collection[str]) -> Iterator[str]:
    """Yield the files below a folder by their suffix, in lower case, relative to it.

    The order is always the same: by name, a folder's own files before its subfolders. Names that
    start with a dot are left out. Links are followed, except those to a folder above themselves,
    also above `folder`; these are left out, and so is everything that is not a file or a folder.
    """
    above = []
    for parent in folder.resolve().parents:
        with contextlib.suppress(OSError):  # of one that may be passed and not be looked at
            status = parent.stat()
            above.append((status.st_dev, status.st_ino))
    yield from _find(str(folder), "", tuple(above), suffixes)


def _find(
    folder: str, prefix: str, above: tuple[tuple[int, int], ...], suffixes: Collection[str]
) -> Iterator[str]:
    status = os.stat(folder)  # noqa: PTH116 (millions of files: no object for each)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as listing:
        entries = sorted(
            (entry for entry in listing if not entry.name.startswith(".")),
            key=lambda entry: os.fsencode(entry.name),
        )
    subfolders = []
    for entry in entries:
        linked = entry.is_symlink()  # perhaps to itself, of which `entry.is_dir` raises
        if os.path.isdir(entry.path) if linked else entry.is_dir():  # noqa: PTH112
            subfolders.append(entry.name)
        elif os.path.splitext(entry.name)[1].lower() not in suffixes:  # noqa: PTH122
            continue
        elif os.path.isfile(entry.path) if linked else entry.is_file():  # noqa: PTH113
            yield prefix + entry.name
    for name in subfolders:
        yield from _find(f"{folder}/{name}", f"{prefix}{name}/", (*above, here), suffixes)
