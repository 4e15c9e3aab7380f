"""The output folder of a run: one run at a time, and no run overwritten by accident."""

import atexit
import contextlib
import errno
import fcntl
import fnmatch
import json
import logging
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from eva_data.files import load_object, require_regular_file
from eva_data.saving import (
    UnwritableError,
    explain_os_errors,
    make_folder,
    remove_unfinished,
    write_text,
)
from eva_runs.processes import is_main, require_same_settings, run_on_main_rank
from eva_runs.record import STARTS, Kind, record_start

logger = logging.getLogger(__name__)

LOCK = ".lock"
_MOST, _CLAIM = 999, ".claim"
_TRIES = 5  # not for ever: some disks number a file otherwise each time
_HELD = (errno.EACCES, errno.EAGAIN)
_SHA256 = 64  # digits


class FolderInUseError(ValueError):
    """Another process trains in the folder; the message says which."""


@contextlib.contextmanager
def reserve_folder(
    folder: Path,
    kind: Kind,
    *,
    traces: Collection[str],
    begun: str,
    settings: Mapping[str, Any] | None = None,
    check: Callable[[], bool] = lambda: False,
    record: bool = True,
) -> Iterator[None]:
    """Reserve the output folder of a run, and record its start; the same call on all processes.

    All need the same `settings`, see `require_same_settings`.

    A training has the folder for itself. An evaluation may write into the folder of any run. A run
    that is refused leaves nothing behind.

    What `traces`, patterns, match goes if a run is refused before it writes the file `begun`.
    `check`, called by the main process once the folder is reserved for a training, refuses a folder
    with another run, and returns whether this one continues. Without `record`, the run records its
    start itself.

    Raises:
        FolderInUseError: A ValueError, if another process trains in it.
        ValueError: If `check` refuses it, or `settings` differ.
        UnwritableError: If nothing can be written in it.
        OtherProcessError: On the other processes, for each of these.
    """
    require_same_settings({"output": folder, **(settings or {})})
    with contextlib.ExitStack() as stack:

        def claim() -> None:
            continues = False
            if kind == "training":
                stack.enter_context(lock_folder(folder))
                continues = check()
            else:
                make_folder(folder)
            for file in _matching(folder, [STARTS, begun, *traces]):
                if file.is_fifo():  # whose writer would wait
                    require_regular_file(file)
            if record:
                record_start(folder, kind, continues=continues)

        # such as TensorBoard's, whose error its next call raises
        stack.callback(setattr, threading, "excepthook", threading.excepthook)
        threading.excepthook = _note_thread
        if is_main():
            made = [STARTS, *traces]
            stack.enter_context(clean_if_refused(folder, made, begun=watch(folder / begun)))
        run_on_main_rank(claim)
        yield


def number_folder(
    folder: Path, is_used: Callable[[Path], Any], *, resume: bool = False, suffix: str = ""
) -> Path:
    """Choose a folder that nobody named: NAME, or NAME-2 and so on where a run has it.

    To `resume`, the last of those that have a run. A number that was deleted is not used again;
    beyond 999 they are part of a name, such as `photos-2026`. With a `suffix`, a file is chosen.

    Raises:
        ValueError: If NAME-999 is used.
    """
    name, numbers = re.escape(folder.name), r"(?:-([2-9]|[1-9]\d\d?))?"
    claim = rf"(?:{re.escape(_CLAIM)})?" if suffix else ""
    hidden = r"\.?" if suffix else ""
    form = re.compile(f"{hidden}{name}{numbers}{re.escape(suffix)}{claim}")
    siblings = folder.parent.iterdir() if folder.parent.is_dir() else ()
    matches = [match for path in siblings if is_used(path) and (match := form.fullmatch(path.name))]
    last = max((int(match[1] or 1) for match in matches), default=0)
    number = max(last, 1) if resume else last + 1
    if number > _MOST:
        raise ValueError(f"{folder}-{last} is used: remove earlier ones, or give --output")
    count = "" if number == 1 else f"-{number}"
    return folder.with_name(f"{folder.name}{count}{suffix}")


def evaluation_folder(
    run: Path | None, weights: str | os.PathLike[str], *, shared: bool = False
) -> Path:
    """Choose the folder of an evaluation that nobody named, and claim it.

    It is RUN/evaluation of the weights of a run, else output/NAME_evaluation, numbered. Processes
    that `shared` says, or a launcher, choose alike: one without results.
    """
    named = Path("output") / f"{name_of_weights(weights)}_evaluation"
    folder = named if run is None else run / "evaluation"
    if shared or os.environ.get("WORLD_SIZE", "1") != "1":
        return number_folder(folder, lambda path: (path / "results.json").exists())
    return claim_number(folder)


def claim_number(folder: Path, *, suffix: str = "") -> Path:
    """Choose a folder, or with a `suffix` a file, that nobody named, and no other command does.

    The folder is made, and removed at the end of this process if it is still empty. A hidden file
    beside the file says so until then: an empty file of that name could be taken for a result.
    """
    missing = [above.absolute() for above in folder.parents if not above.exists()]
    make_folder(folder.parent)
    while True:
        path = number_folder(folder, lambda _: True, suffix=suffix)
        with contextlib.suppress(FileExistsError):
            claim = path.with_name(f".{path.name}{_CLAIM}") if suffix else path
            claim.touch(exist_ok=False) if suffix else claim.mkdir()
            if suffix and path.exists():  # another command has claimed it, written it and ended
                claim.unlink()
                continue
            atexit.register(_release, claim.absolute(), missing)
            return path


def _release(claim: Path, parents: Collection[Path]) -> None:
    with contextlib.suppress(OSError):
        if claim.is_file():
            claim.unlink()
        for folder in (claim, *parents):
            if folder.exists():
                folder.rmdir()


def name_of_weights(weights: str | os.PathLike[str]) -> str:
    """Return the name of the folder of a run, or of a file without its suffix."""
    path = Path(weights)
    return path.resolve().name if path.is_dir() else path.stem


def watch(file: Path) -> Callable[[], bool]:
    """Return a function that tells whether a file has been written since."""

    def look() -> tuple[int, int, int] | None:
        now = file.stat() if file.exists() else None
        return now and (now.st_ino, now.st_mtime_ns, now.st_size)

    before = look()
    return lambda: look() not in (before, None)


def _note_thread(failed: threading.ExceptHookArgs) -> None:
    """Leave the traceback of a thread to the log."""
    error = failed.exc_value
    logger.info("a thread has failed: %s", error, exc_info=error)


@contextlib.contextmanager
def lock_folder(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep other runs out of an output folder, which is made, on every machine that sees it.

    The lock belongs to this process: its end releases it, however it ends, and processes that it
    started do not hold it. Unfinished files of a process that was killed are removed. Several that
    are `shared` may hold it at once.

    Raises:
        FolderInUseError: A ValueError, if another process holds the lock.
        UnwritableError: If the folder is a file, or nothing can be written in it; at the end of the
            block, if it was removed or renamed.
    """
    descriptor = _lock(folder, shared)
    for _ in range(_TRIES):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), (folder / LOCK).stat()):
                break
        os.close(descriptor)  # a run that was refused has just removed it
        descriptor = _lock(folder, shared)
    try:
        yield
        require_folder(folder, file=LOCK)
    finally:
        os.close(descriptor)


def require_folder(folder: Path, *, file: str = "") -> None:
    """Refuse, by an `UnwritableError`, a folder that was removed or renamed under a run."""
    if not (folder / file).exists():
        raise UnwritableError(f"{folder} is no longer there: it was removed or renamed meanwhile")


def _lock(folder: Path, shared: bool) -> int:
    """Open the lock and take it; say so where no lock can be had."""
    make_folder(folder)
    file = folder / LOCK
    # POSIX record locks: locks of flock would live on in forked data workers
    with explain_os_errors(file):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                holder = os.read(descriptor, 1000).decode(errors="replace").strip()
                raise FolderInUseError(
                    f"{folder} is in use by another run ({holder or 'it does not say which'}): "
                    "wait for its end, stop it, or choose another output"
                ) from error
            logger.warning(
                "%s cannot be locked (%s): make sure that only one run uses it", folder, error
            )
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            if not shared:
                for part in (folder, *folder.glob("inference"), *folder.glob("best/*")):
                    remove_unfinished(part)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def match_recorded_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Note in a file what an output depends on, or refuse, by a ValueError, anything else."""
    now = json.loads(json.dumps(settings))
    if not file.exists():
        write_text(file, json.dumps(now, indent=2) + "\n", once=True)
    before = load_object(file)
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        pairs = ((key, before.get(key), now.get(key)) for key in changed)
        changes = (key if len(f"{b}") == _SHA256 else f"{key} {a} -> {b}" for key, a, b in pairs)
        listed = ", ".join(changes)
        message = (
            f"{file.parent} holds results with other settings ({listed}): choose another folder"
        )
        raise ValueError(message)


def require_room(folder: Path, needed: int, *, of: str = "the results take about") -> None:
    """Refuse, by a ValueError, files of more bytes than the disk has free."""
    if needed > (free := shutil.disk_usage(folder).free):
        message = f"{of} {needed / 1e9:,.3f} GB of {folder}, whose disk has"
        raise ValueError(f"{message} {free / 1e9:,.3f} GB free: choose another folder")


def require_room_for_checkpoint(folder: Path, model: Any) -> None:
    """Refuse a training whose first checkpoint would fill the disk.

    It has the trained weights, and at least as much of the optimizer.
    """
    trained = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad)
    run_on_main_rank(lambda: require_room(folder, 2 * trained, of="a checkpoint takes over"))


_REFUSALS = (ValueError, OSError, ImportError)


@contextlib.contextmanager
def clean_if_refused(
    folder: Path, traces: Collection[str], *, begun: Callable[[], bool]
) -> Iterator[None]:
    """Remove what a run that is refused has made in its folder, by patterns, unless it has begun.

    What was there before stays. A refusal is a ValueError, an OSError or an ImportError that no
    error of another kind caused. Of any other, which is of the code, the user's too, the log with
    its traceback stays.
    """
    # Path's raises where a folder above may not be read, which `lock_folder` says in a sentence
    made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]  # noqa: PTH110
    before: set[Path] | None = set()
    traces = [LOCK, *traces]
    try:
        before = _matching(folder, traces)
    except FileNotFoundError:
        pass
    except OSError:  # what is there is not known, and stays
        before = None
    try:
        yield
    except FolderInUseError:  # what is there is another run's
        raise
    except _REFUSALS as error:
        refused = isinstance(error.__cause__, (*_REFUSALS, type(None)))
        if refused and before is not None and folder.is_dir() and not begun():
            with contextlib.suppress(ValueError, OSError), lock_folder(folder):
                for path in _matching(folder, traces) - before:
                    entire = path.is_dir() and not path.is_symlink()
                    shutil.rmtree(path) if entire else path.unlink()
            with contextlib.suppress(OSError):  # something else is there
                for path in made:
                    path.rmdir()
        raise


def _matching(folder: Path, patterns: Collection[str]) -> set[Path]:
    names = os.listdir(folder)  # noqa: PTH208 (links that lead nowhere too)
    return {
        folder / name for name in names if any(fnmatch.fnmatchcase(name, of) for of in patterns)
    }
