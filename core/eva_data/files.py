"""Files and folders: complete or not there, searched past link loops and pipes; files of lines."""

import contextlib
import errno
import io
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Those of torchvision's ImageFolder, by which the official training sets were listed.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
)
DEMO_IMAGE_SUFFIXES = IMAGE_SUFFIXES | {".gif"}  # what people bring to a demo
VIDEO_SUFFIXES = frozenset(
    {
        *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
        *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    }
)
LISTED_IMAGE_SUFFIXES = ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
LISTED_VIDEO_SUFFIXES = ", ".join(sorted(suffix.removeprefix(".") for suffix in VIDEO_SUFFIXES))

# Errors of the output in the middle of a write, and not of something that is read for it.
OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_UNFINISHED, _PARTIAL, _REPLACED = ".writing", "partial", "replaced"
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


class UnwritableError(OSError):
    """A file or folder that cannot be written; the message names it and says why."""


@contextlib.contextmanager
def explained(path: Path, *, only: Collection[int] | None = None) -> Iterator[None]:
    """Turn the system's error into a sentence that names the path.

    Args:
        path: File or folder to name.
        only: Error numbers that are about it; others stay as they are. None for all.

    Raises:
        UnwritableError: In place of the system's error.
    """
    try:
        yield
    except UnwritableError:
        raise
    except OSError as error:
        if error.errno is None or (only is not None and error.errno not in only):
            raise
        unwritable = UnwritableError(f"{path} cannot be written: {error.strerror}")
        unwritable.errno = error.errno
        raise unwritable from error


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Write to a temporary path that replaces `file` when the block ends.

    The content is flushed to the disk first, so `file` is complete or as it was before, whatever
    ends the process. If the block raises, the temporary file is removed.

    Args:
        file: The file; its folder exists.

    Yields:
        A path in the same folder, with the same suffix (some writers choose a format by it).

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    temporary = file.with_name(f".{file.stem}{_UNFINISHED}-{os.getpid()}{file.suffix}")
    try:
        with explained(file, only=OF_WRITING):
            yield temporary
        with explained(file):
            flush(temporary)
            os.replace(temporary, file)
            flush(file.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(file: Path) -> Iterator[BinaryIO]:
    """Write to a temporary binary file that replaces `file` when the block ends.

    It is made for writers such as `torch.save`, which replace the system's error ("No space left
    on device") with one of their own ("unexpected pos"): here the system's error is raised.

    Args:
        file: The file; its folder exists.

    Yields:
        An open file, seekable.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    with replacing(file) as temporary:
        with explained(file):
            stream = _RememberingFile(temporary)
        try:
            yield stream
            stream.flush()
        except Exception as error:
            if stream.failure is not None and error is not stream.failure:
                raise stream.failure from error
            raise
        finally:
            with contextlib.suppress(OSError):  # of a flush that failed before
                stream.close()


class _RememberingFile(io.BufferedWriter):
    """A binary file that remembers the system's error in the middle of a write."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "w"))
        self.failure: OSError | None = None

    def write(self, content: "ReadableBuffer", /) -> int:
        try:
            return super().write(content)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.failure = self.failure or error
            raise


def write_text(file: Path, text: str) -> None:
    """Write a text file in UTF-8, completely or not at all.

    Args:
        file: The file; its folder exists.
        text: Its content.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    with writing(file) as stream:
        stream.write(text.encode())


def write_tensors(
    values: Mapping[str, Any], file: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a `.safetensors` file completely or not at all.

    Args:
        values: Name -> torch tensor, or name -> numpy array, all of one kind.
        file: The file; its folder exists.
        metadata: Texts beside them.

    Raises:
        UnwritableError: If the disk is full, for example.
    """
    import numpy as np  # here, as every command imports this module before it does anything
    from safetensors import SafetensorError

    save: Any
    contiguous: dict[str, Any]
    if all(isinstance(value, np.ndarray) for value in values.values()):
        from safetensors.numpy import save_file as save_arrays

        contiguous = {name: np.ascontiguousarray(value) for name, value in values.items()}
        save = save_arrays
    else:
        from safetensors.torch import save_file as save_tensors  # loads torch

        contiguous = {name: value.contiguous() for name, value in values.items()}
        save = save_tensors
    with replacing(file) as part:
        with explained(file):
            part.touch()
        mode = part.stat().st_mode  # safetensors would leave a file that only its owner can read
        try:
            save(contiguous, part, metadata)
        except SafetensorError as error:  # its own, also for what the system says
            reason = str(error).rpartition("I/O error: ")[2].partition(" (os error")[0]
            raise UnwritableError(f"{file} cannot be written: {reason}") from error
        part.chmod(mode)


def flush(path: Path) -> None:
    """Flush a file or a directory entry to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some file systems flush no folder; what was renamed in it is there all the same
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder for output, if it is not there, and check that files can be made in it.

    Args:
        folder: The folder; those above it are made too.

    Raises:
        UnwritableError: If it is a file, or nothing can be written in it.
    """
    with explained(folder):
        try:  # no look before: another process may make it meanwhile
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise UnwritableError(
                f"{folder} is a file and not a folder: choose another output"
            ) from error
        probe = folder / f".probe{_UNFINISHED}-{os.getpid()}"
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Write to a temporary folder that takes the place of `folder` when the block ends.

    If the block raises, the temporary folder is removed and `folder` stays as it was. What a killed
    process has left is removed by the next call for the same folder.

    Args:
        folder: The folder; those above it are made. What is there is removed, see
            `require_replaceable`.

    Yields:
        An empty folder beside it.

    Raises:
        UnwritableError: If the disk is full or the folder above read-only, for example.
    """
    folder = folder.resolve()
    make_folder(folder.parent)
    remove_leftovers(folder)
    partial, replaced = (
        folder.with_name(f".{folder.name}.{kind}-{os.getpid()}") for kind in (_PARTIAL, _REPLACED)
    )
    try:
        with explained(folder):
            partial.mkdir()
        yield partial
        with explained(folder):
            flush(partial)
            if folder.exists():
                folder.rename(replaced)
            try:
                partial.rename(folder)
            except BaseException:
                if replaced.exists():
                    replaced.rename(folder)
                raise
            flush(folder.parent)
    except UnwritableError as error:  # name the folder that was asked for
        error.args = (str(error).replace(str(partial), str(folder)),)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders that killed writers of a folder have left beside it."""
    starts = tuple(f".{folder.name}.{kind}-" for kind in (_PARTIAL, _REPLACED))
    for path in folder.parent.iterdir() if folder.parent.is_dir() else ():
        if path.name.startswith(starts) and not _is_running(path.name.rpartition("-")[2]):
            shutil.rmtree(path)


def _is_running(process: str) -> bool:
    if process == str(os.getpid()):  # in a container, every run may have the same number
        return False
    try:
        os.kill(int(process), 0)
    except PermissionError:  # someone else's
        return True
    except (ValueError, ProcessLookupError):
        return False
    return True


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files that killed processes have left in a folder.

    Only the single writer of a folder may call it; folders below it are left alone.
    """
    for path in folder.glob(f".*{_UNFINISHED}-*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def require_free(files: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse output files that cannot be written, or that are there already.

    Args:
        files: Files to write; their folders need not exist.
        overwrite: Replace earlier files.

    Raises:
        ValueError: If a file is there or is a folder, or its folder is a file.
    """
    for file in files:
        _require_folders(file.parent)
        if file.is_dir():
            raise ValueError(f"{file} is a folder and would have to be a file")
        if file.exists() and not overwrite:
            raise ValueError(f"{file} is there already: give --overwrite or another name")


def require_replaceable(folder: Path, names: Collection[str], *, overwrite: bool) -> None:
    """Refuse an output folder that holds what is to be kept.

    Args:
        folder: Folder that will be written; it need not be there.
        names: Files that an earlier output may have.
        overwrite: Replace an earlier output.

    Raises:
        ValueError: If it is a file, lies in a file, holds anything else, or an earlier output that
            may not be replaced.
    """
    _require_folders(folder)
    found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if others := [name for name in found if name not in names]:
        raise ValueError(
            f"{folder} holds {others[0]}, which this program does not write: name another folder"
        )
    if found and not overwrite:
        raise ValueError(f"{folder} is there already: give --overwrite or another name")


def _require_folders(folder: Path) -> None:
    if above := next((path for path in (folder, *folder.parents) if path.is_file()), None):
        raise ValueError(f"{above} is a file and would have to be a folder")


def require_regular_file(path: Path) -> None:
    """Refuse a path that is not a file, such as a named pipe, whose reader would wait.

    Args:
        path: The file, or a link to it.

    Raises:
        FileNotFoundError: If there is nothing, or a link that leads nowhere.
        OSError: If it is a folder, a pipe, a socket or a device.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is not there") from error
    except OSError as error:  # of links that lead to each other, for example
        raise OSError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise OSError(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'a device')} and not a file")


def printable(text: str) -> str:
    """Escape what is not text: names of files are bytes, and not all of them are UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def home_expanded(path: str | os.PathLike[str]) -> Path:
    """Replace `~` at the beginning; that of a user who does not exist stays as it is written."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (which raises RuntimeError)


def expand_home(word: str) -> str:
    """Replace `~/` at the beginning of a word of a command line, whatever else it is.

    A shell does so only where `~/` begins a word, not in `--output=~/run` and `key=~/run`.
    """
    return str(home_expanded(word)) if word.startswith("~/") else word


def is_there(word: str) -> bool:
    """Return whether a word of a command line is a file or folder; any text may be asked for."""
    return os.path.exists(word)  # noqa: PTH110 (Path's raises for a text that is too long)


def read_lines(file: str | os.PathLike[str], *, skip_blank: bool = False) -> list[str]:
    """Read the lines of a text file, without the spaces around them and blank lines at its end.

    Args:
        file: A file in UTF-8.
        skip_blank: Leave out blank lines anywhere; otherwise one between others is an error.

    Returns:
        The lines, at least one.

    Raises:
        OSError: If it is not there, or cannot be read.
        ValueError: If it is not text in UTF-8, is empty, or has a blank line that is not skipped.
    """
    path = Path(file)
    require_regular_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error}): save it as UTF-8") from error
    lines = [line.strip() for line in text.rstrip().split("\n")]
    if lines == [""]:
        raise ValueError(f"{path} is empty: write one text in each line")
    if skip_blank:
        return [line for line in lines if line]
    if "" in lines:
        number = lines.index("") + 1
        raise ValueError(f"{path} has a blank line {number}, which is not a text: remove it")
    return lines


def find_files(folder: Path, suffixes: Collection[str]) -> Iterator[str]:
    """Yield the files below a folder by their suffix, relative to it.

    The order is always the same: by name, a folder's own files before its subfolders. Names that
    start with a dot are left out. Links are followed, except those to a folder above themselves,
    also above `folder`; these are left out, and so is everything that is not a file or a folder.

    Args:
        folder: The folder.
        suffixes: Lower-case suffixes with their dot, such as `.png`.

    Raises:
        OSError: If a folder cannot be listed.
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
        if _is(entry.is_dir):
            subfolders.append(entry.name)
        elif os.path.splitext(entry.name)[1].lower() in suffixes and _is(entry.is_file):  # noqa: PTH122
            yield prefix + entry.name
    for name in subfolders:
        yield from _find(f"{folder}/{name}", f"{prefix}{name}/", (*above, here), suffixes)


def _is(test: Callable[[], bool]) -> bool:
    """Test an entry's type; ignore a self-referencing link."""
    try:
        return test()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise
