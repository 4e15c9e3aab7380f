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

from eva_data.pools import end_with_parent
from eva_runs import processes

EXIT_RUN_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: a checkpoint was saved, run again to continue
EXIT_KEYBOARD = 130  # as a shell reports Ctrl-C
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_ONE_PRESS = 1.0  # seconds; a terminal sends Ctrl-C to all processes, and their parents pass it on
_NOTED = b"\nCtrl-C: the run saves after this step and ends; another Ctrl-C ends it at once\n"

_Handler = Callable[[int, FrameType | None], None]


class StopSignal:
    """Whether this process was asked to stop, by SIGTERM, SIGUSR1 or a first Ctrl-C.

    Attributes:
        received: Name of the signal; None before one has arrived.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._at_once = self._to_children = False
        self._pressed: float | None = None  # when Ctrl-C came

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.received is not None

    @contextlib.contextmanager
    def listen(self, *, to_children: bool = False) -> Iterator[None]:
        """Note the signals, which do not end the process inside the block, or pass them on, too.

        After a request they stay without effect until the process ends: launchers send SIGTERM to
        the others as soon as the first process is gone. A second Ctrl-C is a KeyboardInterrupt; one
        that the shell of a background process ignores stays so. Only a main thread can listen; in
        any other thread nothing changes.
        """
        self._to_children = to_children
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        numbers = SIGNALS if ignored else (*SIGNALS, signal.SIGINT)
        with _handle_signals(self._note, numbers, left=self._is_left):
            yield

    def exit_at_once(self) -> None:
        """Exit when a signal arrives, or if one has arrived: there is nothing left to save.

        Raises:
            SystemExit: With `EXIT_RUN_AGAIN`.
        """
        self._at_once = True
        if self.requested:
            raise SystemExit(EXIT_RUN_AGAIN)

    def _is_left(self, number: int) -> bool:
        return self._pressed is not None if number == signal.SIGINT else self.requested

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._to_children:
            for child in multiprocessing.active_children():
                if child.pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child.pid, number)
        now, before = time.monotonic(), self._pressed
        if number == signal.SIGINT and before is not None:
            if now - before > _ONE_PRESS:
                self._pressed = now
                signal.default_int_handler(number, frame)
            return
        # no logging: it may meet its own locks here
        self.received = signal.Signals(number).name
        if number == signal.SIGINT:
            self.received, self._pressed = "Ctrl-C", now
        if self._at_once:
            self.exit_at_once()
        if self._pressed == now and processes.is_main() and not self._to_children:
            os.write(2, _NOTED)


@contextlib.contextmanager
def block_signals() -> Iterator[None]:
    """Hold back Ctrl-C and both signals, also in processes that are started in the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *SIGNALS})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals_in_worker() -> None:
    """Ignore the signals that end a run, in a process that loads data.

    Ctrl-C and batch systems send theirs to all processes of a group; the run needs its workers up
    to its stop. Whoever starts such workers must shut them down. One whose run was killed ends by
    itself: large samples may wait in a pipe that the worker itself holds open, and PyTorch's
    worker would wait for their reader for ever.
    """
    for number in (signal.SIGINT, *SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    if multiprocessing.parent_process() is not None:
        end_with_parent(lambda: os._exit(1))


def run_step(command: Sequence[str], *, environment: Mapping[str, str]) -> int:
    """Run a command to its end; signals and Ctrl-C reach it, and it says what is saved.

    Its `environment` are variables besides those of this process.

    Returns:
        Its exit code, as a shell reports it: 128 and more where a signal has ended it.
    """
    waiting: list[int] = []  # signals that came before there was a process
    receive = waiting.append
    with _handle_signals(lambda number, _: receive(number)):
        process = subprocess.Popen(command, env=os.environ | environment)
        receive = process.send_signal
        for number in waiting:
            receive(number)
        while process.poll() is None:
            # A signal that another thread has got does not wake a wait without an end.
            with contextlib.suppress(KeyboardInterrupt):  # the step has it too
                time.sleep(0.05)
        return process.returncode if process.returncode >= 0 else 128 - process.returncode


@contextlib.contextmanager
def _handle_signals(
    handler: _Handler,
    numbers: Sequence[signal.Signals] = SIGNALS,
    *,
    left: Callable[[int], bool] = lambda _: False,
) -> Iterator[None]:
    """Handle signals in the block; outside a main thread nothing changes.

    Where they are `left`, both stay ignored, and Ctrl-C with the handler.
    """
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers} if main else {}
    try:
        yield
    finally:
        for number, old in before.items():
            after = handler if number == signal.SIGINT else signal.SIG_IGN
            signal.signal(number, after if left(number) else old)
