"""Turn a stop signal into a checkpoint and a documented exit code."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

EXIT_RUN_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: a checkpoint was saved, run again to continue
EXIT_KEYBOARD = 130  # as a shell reports Ctrl-C
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_PARENT_SECONDS = 1.0  # between looks at the run

_Handler = Callable[[int, FrameType | None], None]


class StopSignal:
    """Whether this process was asked to stop, by SIGTERM or SIGUSR1.

    Attributes:
        received: Name of the signal; None before one has arrived.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._at_once = False

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.received is not None

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Note the signals, which do not end the process inside the block.

        After a request they stay without effect until the process ends: launchers send SIGTERM to
        the others as soon as the first process is gone. Only a main thread can listen; in any
        other thread nothing changes.
        """
        with _handled(self._note, ignored_after=lambda: self.requested):
            yield

    def exit_at_once(self) -> None:
        """Exit when a signal arrives, or if one has arrived: there is nothing left to save.

        Raises:
            SystemExit: With `EXIT_RUN_AGAIN`.
        """
        self._at_once = True
        if self.requested:
            raise SystemExit(EXIT_RUN_AGAIN)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number).name  # no logging: it may meet its own locks here
        if self._at_once:
            self.exit_at_once()


@contextlib.contextmanager
def passed_on_to_children() -> Iterator[None]:
    """Forward both signals to child processes."""

    def pass_on(number: int, _: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            if child.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    with _handled(pass_on):
        yield


def leave_signals_to_the_run() -> None:
    """Ignore the signals that end a run, in a process that loads data.

    Ctrl-C and batch systems send theirs to all processes of a group; the run needs its workers up
    to its stop. Whoever starts such workers must shut them down. One whose run was killed ends by
    itself: large samples may wait in a pipe that the worker itself holds open, and PyTorch's
    worker would wait for their reader for ever.
    """
    for number in (signal.SIGINT, *SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_end_with_the_run, args=(os.getppid(),), daemon=True).start()


def _end_with_the_run(parent: int) -> None:
    """End this process soon after its parent, the run or the server that forked it for the run."""
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


def run_step(command: Sequence[str], *, environment: Mapping[str, str]) -> int:
    """Run a command to its end; signals and Ctrl-C reach it, and it says what is saved.

    Its `environment` are variables besides those of this process.

    Returns:
        Its exit code, as a shell reports it: 128 and more where a signal has ended it.
    """
    waiting: list[int] = []  # signals that came before there was a process
    receive = waiting.append
    with _handled(lambda number, _: receive(number)):
        process = subprocess.Popen(command, env=os.environ | environment)
        receive = process.send_signal
        for number in waiting:
            receive(number)
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # the step has it too
                code = process.wait()
                return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _handled(
    handler: _Handler, *, ignored_after: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Handle both signals in the block; outside a main thread nothing changes."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in SIGNALS} if main else {}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_IGN if ignored_after() else old)
