"""Checkpoints that are whole or not there, written while training goes on, with digests.

Of a checkpoint of one file `digests.json` beside it has the digest; one of many files lists them.
"""

import copy
import hashlib
import io
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from torch.utils._pytree import tree_map

from eva_data.files import load_json
from eva_data.saving import open_atomic, write_text
from eva_runs.output_folder import require_folder
from eva_runs.processes import is_main

logger = logging.getLogger(__name__)

DIGESTS = "digests.json"
Digest = tuple[int, str]  # size in bytes, SHA-256
T = TypeVar("T")
_PART = 2**23  # bytes at once
_REST, _LEAST = 4, 0.05  # seconds of rest behind one of work; of work


class BackgroundWriter:
    """Writes in threads, one after the other, which a process that ends waits for.

    They work a fifth of the time, so that training keeps its speed, until somebody waits.
    """

    def __init__(self) -> None:
        self._pending: list[Future[None]] = []
        self._hurry, self._rested = threading.Event(), 0.0

    def submit(self, work: Callable[[], object]) -> None:
        """Do something behind what was submitted before, unless that has failed."""
        before, done = self._pending[-1:], Future[None]()

        def follow() -> None:
            try:
                for earlier in before:
                    earlier.result()
                self._rested = time.thread_time()
                work()
                done.set_result(None)
            except BaseException as error:  # whatever it is, somebody waits
                done.set_exception(error)

        self._hurry.clear()
        self._pending.append(done)
        threading.Thread(target=follow, name="checkpoint").start()

    def rest(self) -> None:
        """Leave the machine to the training; called in the thread between parts of its work."""
        worked = time.thread_time() - self._rested
        if worked > _LEAST and threading.main_thread().is_alive():
            self._hurry.wait(_REST * worked)
            self._rested += worked

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be written."""
        return all(future.done() for future in self._pending)

    def check(self) -> None:
        """Raise the error of what has failed."""
        while self._pending and self._pending[0].done():
            self._pending.pop(0).result()

    def wait(self) -> None:
        """Wait until everything is written, or raise the error of what has failed."""
        self._hurry.set()
        while self._pending:
            self._pending.pop(0).result()


class Snapshots:
    """Copies of states in the main memory, so that training may go on.

    A copy is written over the one before of its name: new memory for each would leave the next
    training step without free pages.
    """

    def __init__(self) -> None:
        self._kept: dict[str, list[torch.Tensor]] = {}

    def take(self, name: str, state: T) -> T:
        """Copy a state, its tensors to the main memory; the last copy of that name is lost."""
        before, now = iter(self._kept.pop(name, ())), list[torch.Tensor]()

        def copied(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return copy.deepcopy(leaf)
            buffer = next(before, None)
            if buffer is None or (buffer.shape, buffer.dtype) != (leaf.shape, leaf.dtype):
                buffer = torch.empty_like(leaf, device="cpu")
            now.append(buffer.copy_(leaf.detach()))
            return buffer

        result: T = tree_map(copied, state)
        self._kept[name] = now
        return result


class DigestedStream(io.RawIOBase):
    """Passes on what is written to a stream, if there is one, and computes its digest."""

    def __init__(self, stream: BinaryIO | None, writer: BackgroundWriter | None = None) -> None:
        self._stream, self._writer = stream, writer
        self._size, self._sha256 = 0, hashlib.sha256()

    def write(self, content: Any) -> int:
        """Write bytes, in parts behind which the writer rests."""
        content = memoryview(content).cast("B")
        for begin in range(0, len(content), _PART):
            part = content[begin : begin + _PART]
            self._sha256.update(part)
            if self._stream:
                self._stream.write(part)
            if self._writer:
                self._writer.rest()
        self._size += len(content)
        return len(content)

    @property
    def digest(self) -> Digest:
        """The digest of what was written."""
        return self._size, self._sha256.hexdigest()


def digest_of(file: Path, writer: BackgroundWriter | None = None) -> Digest:
    """Read the digest of a file."""
    result = DigestedStream(None, writer)
    with file.open("rb") as stream:
        shutil.copyfileobj(stream, result, _PART)
    return result.digest


def describe_difference(file: Path, sha256: str) -> str:
    """Say what is wrong with a file that had a SHA-256; empty for nothing."""
    try:
        same = digest_of(file)[1] == sha256
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return "" if same else "it is not what was written (another SHA-256)"


class CheckpointStore:
    """Writes files of checkpoints in the background, one after the other.

    Attributes:
        writer: What writes them; who is to see a checkpoint waits for it.
    """

    def __init__(self) -> None:
        self.writer, self._snapshots = BackgroundWriter(), Snapshots()

    def save_state(
        self, file: Path, state: Any, *, name: str = "", then: Callable[[], object] | None = None
    ) -> None:
        """Copy a state over the one before of its name, write it, and do something behind it."""
        copied = self._snapshots.take(name or file.name, state)
        self.save(file, lambda stream: torch.save(copied, stream), then)

    def save(
        self,
        file: Path,
        write: Callable[[Any], object],
        then: Callable[[], object] | None = None,
    ) -> None:
        """Let a function write to a stream, which becomes a file with a digest as a whole."""

        def work() -> None:
            require_folder(file.parent)
            self.note(file, None)  # a kill may come between the new file and its digest
            with open_atomic(file) as stream:
                digested = DigestedStream(stream, self.writer)
                write(digested)
            self.note(file, digested.digest)
            if then:
                then()

        self.writer.submit(work)

    def note(self, file: Path, digest: Digest | None) -> None:
        """Note the digest of a file, beside it; None for one that is being replaced."""
        digests = _read_digests(file.parent) | {file.name: digest}
        write_text(file.parent / DIGESTS, json.dumps(digests, indent=1) + "\n")


def find_newest(
    checkpoints: Iterable[Path], find_damage: Callable[[Path], str | None] | None = None
) -> Path | None:
    """Find the first of some checkpoints, newest first, that is what was written; None of none.

    A first file without a digest, of another program, counts as undamaged.

    Raises:
        ValueError: If there are some and all are damaged.
    """
    passed_over: list[str] = []
    for checkpoint in checkpoints:
        digest = _read_digests(checkpoint.parent).get(checkpoint.name)
        if find_damage:
            damage = find_damage(checkpoint)
        elif digest:
            damage = describe_difference(checkpoint, digest[1])
        else:
            damage = "it has no digest" if passed_over else None
        if not damage:
            for entry in passed_over if is_main() else ():
                message = "passed over the damaged checkpoint %s; %s is taken"
                logger.warning(message, entry, checkpoint.name)
            return checkpoint
        passed_over.append(f"{checkpoint.name}: {damage}")
    if passed_over:
        raise ValueError(
            f"no checkpoint in {checkpoint.parent} can be read, and nothing was changed "
            f"({'; '.join(passed_over)}): restore one, or begin again in another output"
        )
    return None


def _read_digests(folder: Path) -> dict[str, Any]:
    try:
        return dict(load_json(folder / DIGESTS))
    except (OSError, ValueError, TypeError):
        return {}
