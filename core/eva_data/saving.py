"""Writing files and folders completely or not at all, and outputs that must be free."""

import contextlib
import errno
import glob
import io
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from safetensors import SafetensorError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Errors of the output in the middle of a write, and not of something that is read for it.
OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_UNFINISHED, _PARTIAL, _REPLACED = ".writing", "partial", "replaced"
_THERE = "is there already: give --overwrite or another name"


class UnwritableError(OSError):
    """A file or folder that cannot be written; the message names it and says why."""


@contextlib.contextmanager
def explain_os_errors(
    path: Path, *, only: Collection[int] | None = None, part: Path | None = None
) -> Iterator[None]:
    """Turn the system's errors, or those of the numbers `only`, into an `UnwritableError`.

    One that names a temporary `part` names the path in its place.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, UnwritableError) and part:
            error.args = (str(error).replace(str(part), str(path)),)
        about_it = error.errno is not None and (only is None or error.errno in only)
        if isinstance(error, UnwritableError) or not about_it:
            raise
        unwritable = UnwritableError(f"{path} cannot be written: {error.strerror}")
        unwritable.errno = error.errno
        raise unwritable from error


@contextlib.contextmanager
def replace_file(file: Path, *, once: bool = False) -> Iterator[Path]:
    """Write to a temporary path, of the same suffix, that replaces `file` when the block ends.

    Its folder is made. The content is flushed to the disk first, so `file` is complete or as it was
    before, whatever ends the process. An `UnwritableError` says that the disk is full, for example.
    With `once` a `file` that is there then, perhaps of another process, stays.
    """
    own = os.urandom(6).hex()  # other machines have the same process ids
    temporary = file.with_name(f".{file.stem}{_UNFINISHED}-{own}{file.suffix}")
    with explain_os_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with explain_os_errors(file, only=OF_WRITING):
            yield temporary
        with explain_os_errors(file):
            flush(temporary)
            try:
                (os.link if once else os.replace)(temporary, file)
            except FileExistsError:
                pass
            except OSError:  # a disk that takes no links
                os.replace(temporary, file)
            flush(file.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def open_atomic(file: Path, *, once: bool = False) -> Iterator[BinaryIO]:
    """Write to a temporary binary file that replaces `file` when the block ends.

    Writers such as `torch.save` replace the system's error ("No space left on device") with one of
    their own ("unexpected pos"): here an `UnwritableError` with the system's is raised.
    """
    with replace_file(file, once=once) as temporary:
        with explain_os_errors(file):
            raw = _RememberingFile(temporary, "w")
        try:
            with io.BufferedWriter(raw) as stream:
                yield stream
        except Exception as error:
            if raw.failure is not None and error is not raw.failure:
                raise raw.failure from error
            raise


class _RememberingFile(io.FileIO):
    """A binary file that remembers the system's error in the middle of a write."""

    failure: OSError | None = None

    def write(self, content: "ReadableBuffer", /) -> int:
        try:
            return super().write(content)
        except OSError as error:
            self.failure = self.failure or error
            raise


def write_text(file: Path, content: str, *, once: bool = False) -> None:
    """Write a text file in UTF-8 completely or not at all; `once` as of `replace_file`."""
    with open_atomic(file, once=once) as stream:
        stream.write(content.encode())


def write_tensors(
    values: Mapping[str, Any], file: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write torch tensors, or numpy arrays, to a `.safetensors` file completely or not at all."""
    import numpy as np  # here, as every command imports this module

    arrays = all(isinstance(value, np.ndarray) for value in values.values())
    save: Any = import_module(f"safetensors.{'numpy' if arrays else 'torch'}").save_file
    contiguous = {
        name: np.ascontiguousarray(value) if arrays else value.contiguous()
        for name, value in values.items()
    }
    with replace_file(file) as part:
        with explain_os_errors(file):
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
    """Make a folder and those above it, and check that files can be made in it."""
    with explain_os_errors(folder):
        try:  # no look before: another process may make it meanwhile
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            kind = "a link that leads nowhere" if folder.is_symlink() else "a file and not a folder"
            raise UnwritableError(f"{folder} is {kind}: choose another output") from error
        probe = folder / f".probe{_UNFINISHED}-{os.getpid()}"
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)


def link_or_copy(file: Path, target: Path) -> None:
    """Make a hard link to a file, or a copy where the disk or the system takes no links."""
    make_folder(target.parent)
    try:
        os.link(file.resolve(), target)
    except FileExistsError:
        raise  # it may be a link to a file of the user's
    except OSError:
        shutil.copyfile(file, target)


@contextlib.contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Write to an empty folder beside `folder` that takes its place when the block ends.

    If the block raises, the new folder is removed and `folder` stays as it was. What a killed
    process has left is removed, or put back, by the next call for the same folder. See
    `require_replaceable`.
    """
    folder = folder.resolve()
    make_folder(folder.parent)
    remove_leftovers(folder)
    partial, replaced = (
        folder.with_name(f".{folder.name}.{kind}-{os.getpid()}") for kind in (_PARTIAL, _REPLACED)
    )
    try:
        with explain_os_errors(folder):
            partial.mkdir()
        with explain_os_errors(folder, only=OF_WRITING, part=partial):
            yield partial
        with explain_os_errors(folder):
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
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers of a folder have left beside it, or put it back if it is gone."""
    starts = tuple(f".{folder.name}.{kind}-" for kind in (_PARTIAL, _REPLACED))
    for path in folder.parent.iterdir() if folder.parent.is_dir() else ():
        if path.name.startswith(starts) and not _is_running(path.name.rpartition("-")[2]):
            if path.name.startswith(starts[1]) and not folder.exists():
                path.rename(folder)
            else:
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


def remove_unfinished(folder: Path, stem: str | None = None) -> None:
    """Remove the unfinished files, or those of a stem, that killed processes have left in a folder.

    Only the single writer of a folder, or of a file, may call it; folders below are left alone.
    """
    for path in folder.glob(f".{'*' if stem is None else glob.escape(stem)}{_UNFINISHED}-*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def require_free(files: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse, by a ValueError, output files that are there, or could not be."""
    for file in files:
        require_writable(file.parent)
        if file.is_dir() or (file.exists() and not overwrite):
            problem = "is a folder: give another name" if file.is_dir() else _THERE
            raise ValueError(f"{file} {problem}")


def require_new(file: Path, name: str) -> Path:
    """Return the file of an image of a dataset; a ValueError if another image has it."""
    if file.exists():
        raise ValueError(f"{name} and another image would both have {file.name}")
    return file


def require_replaceable(folder: Path, names: Collection[str], *, overwrite: bool) -> None:
    """Refuse, by a ValueError, an output folder that holds other than `names`, or could not be."""
    require_writable(folder)
    remove_leftovers(folder.resolve())
    entries = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    others = [name for name in entries if name not in names]
    if others or (entries and not overwrite):
        problem = _THERE
        if others:
            problem = f"holds {others[0]}, which this program does not write: name another folder"
        raise ValueError(f"{folder} {problem}")


def require_writable(folder: Path) -> None:
    """Refuse, by a ValueError, a folder that cannot be made or takes no files; nothing is made."""
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if above.is_file() or not os.access(above, os.W_OK):
        problem = "is a file and no folder" if above.is_file() else "takes no files"
        raise ValueError(f"{above} {problem}: choose another folder")
