"""Checkpoints that are written while training goes on, and digests that find a flipped bit."""

import contextlib
import copy
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils._pytree import tree_map

from eva_backbone.checkpoints.verification import sha256_of
from eva_data.files import load_json, write_text

logger = logging.getLogger(__name__)

DIGESTS = "digests.json"
Digest = tuple[int, str]  # size in bytes, SHA-256
T = TypeVar("T")


class BackgroundWriter:
    """Writes in threads, one after the other, which a process that ends waits for."""

    def __init__(self) -> None:
        self._pending: list[Future[None]] = []

    def submit(self, work: Callable[[], object]) -> None:
        """Do something behind what was submitted before, unless that has failed."""
        before, done = self._pending[-1:], Future[None]()

        def follow() -> None:
            try:
                for one in before:
                    one.result()
                work()
                done.set_result(None)
            except BaseException as error:  # whatever it is, somebody waits
                done.set_exception(error)

        self._pending.append(done)
        threading.Thread(target=follow, name="checkpoint").start()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be written."""
        return all(one.done() for one in self._pending)

    def check(self) -> None:
        """Raise the error of what has failed."""
        while self._pending and self._pending[0].done():
            self._pending.pop(0).result()

    def wait(self) -> None:
        """Wait until everything is written, or raise the error of what has failed."""
        while self._pending:
            self._pending.pop(0).result()


def snapshot(state: T) -> T:
    """Copy a state, its tensors to the main memory, so that training may go on."""

    def copied(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.detach().to("cpu", copy=True)
        return copy.deepcopy(leaf)

    result: T = tree_map(copied, state)
    return result


@contextlib.contextmanager
def digested(file: Path) -> Iterator[None]:
    """Note size and SHA-256 of a checkpoint that the block writes; none is known until then."""
    _note(file, None)  # a kill may come between the new file and its digest
    yield
    _note(file, digest_of(file))


def digest_of(file: Path) -> Digest:
    """Read the digest of a file."""
    return file.stat().st_size, sha256_of(file)


def _note(file: Path, digest: Digest | None) -> None:
    known = _digests(file.parent) | {file.name: digest}
    write_text(file.parent / DIGESTS, json.dumps(known, indent=1) + "\n")


def undamaged(last: Path, others: Iterable[Path]) -> Path:
    """Choose the last checkpoint, or if it is not what was written, the first that is of others.

    Files whose digests are not known, of other programs, count as undamaged if they are the last.
    """
    damage = _damage_of(last)
    if not damage:
        return last
    for file in others:
        if file != last and _damage_of(file) == "":
            logger.warning("passed over %s, which %s: %s is taken", last, damage, file.name)
            return file
    raise ValueError(f"{last} {damage}, and no other checkpoint beside it is known to be complete")


def _damage_of(file: Path) -> str | None:
    """Return what is wrong with a checkpoint; empty for nothing, None if that is not known."""
    digest = _digests(file.parent).get(file.name)
    if not digest:
        return None
    try:
        same = digest == [*digest_of(file)]
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if same else "is not what was written (another SHA-256)"


def _digests(folder: Path) -> dict[str, Any]:
    try:
        return dict(load_json(folder / DIGESTS))
    except (OSError, ValueError, TypeError):
        return {}
