"""Being asked to stop: a signal becomes a checkpoint at a step's end and a documented exit code."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator
from signal import SIGTERM, SIGUSR1, signal
from types import FrameType
from typing import Any

EXIT_RUN_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the same command with --resume continues
SIGNALS = (SIGTERM, SIGUSR1)


@contextlib.contextmanager
def _handled(handler: Any) -> Iterator[None]:
    """Install a handler of both signals; only a main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal(number, old)


class StopSignal:
    """Whether SIGTERM or SIGUSR1 has arrived.

    Attributes:
        requested: One has arrived, at this process.
    """

    def __init__(self) -> None:
        self.requested = False
        self._at_once = False

    def listen(self) -> contextlib.AbstractContextManager[None]:
        """Context in which the signals are noted instead of killing the process."""
        return _handled(self._note)

    def exit_at_once(self) -> None:
        """From now on there is nothing to save: exit when, or if, a signal has arrived."""
        self._at_once = True
        if self.requested:
            raise SystemExit(EXIT_RUN_AGAIN)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True  # nothing else: logging in a handler may meet its own locks
        if self._at_once:
            raise SystemExit(EXIT_RUN_AGAIN)


def passed_on_to_children() -> contextlib.AbstractContextManager[None]:
    """Context in which a process that only waits for its children passes both signals on."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            if child.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    return _handled(pass_on)
