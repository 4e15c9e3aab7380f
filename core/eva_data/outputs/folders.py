"""Folders of outputs that appear when they are complete."""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from eva_data.files import UnwritableError, explained, flush, make_folder

_PARTIAL, _REPLACED = "partial", "replaced"


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


def require_replaceable(folder: Path, names: Collection[str], *, overwrite: bool) -> None:
    """Refuse a folder for output that holds what is to be kept.

    Args:
        folder: Folder that will be written; it need not be there.
        names: Files that an earlier output may have.
        overwrite: Replace an earlier output.

    Raises:
        ValueError: If it is a file, lies in a file, holds anything else, or an earlier output that
            may not be replaced.
    """
    if above := next((path for path in (folder, *folder.parents) if path.is_file()), None):
        raise ValueError(f"{above} is a file and would have to be a folder")
    found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if others := [name for name in found if name not in names]:
        raise ValueError(
            f"{folder} holds {others[0]}, which this program does not write: name another folder"
        )
    if found and not overwrite:
        raise ValueError(f"{folder} is there already: give --overwrite or another name")


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders that killed writers of a folder have left beside it.

    Args:
        folder: The folder.
    """
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
