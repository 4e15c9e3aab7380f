"""Stopping a run at a step boundary, where a checkpoint can be written."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)

EXIT_RUN_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: a checkpoint was saved, run again with resume
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopSignal:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.received: str | None = None

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Take SIGTERM and SIGUSR1 as requests, as long as the block runs.

        After a request they stay without effect until the process ends: launchers send SIGTERM to
        the others as soon as the first process is gone.
        """
        before = {number: signal.signal(number, self._take) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if self.received else handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number).name
