"""A step of a longer command, in a process of its own."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from eva_runs.interruption import SIGNALS


def run_step(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> int:
    """Run a command to its end; signals and Ctrl-C reach it, and it says what is saved.

    Args:
        command: Program and arguments.
        environment: Variables besides those of this process.
        folder: Folder in which it runs; None for that of this process.

    Returns:
        Its exit code: 75 if a signal stopped it after a checkpoint, 128 and more where a signal
        has ended it, as a shell reports it.
    """
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []  # signals that came before there was a process

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    before = {one: signal.signal(one, pass_on) for one in SIGNALS}
    try:
        process = subprocess.Popen(command, env=os.environ | (environment or {}), cwd=folder)
        for number in early:
            process.send_signal(number)
        while True:
            try:
                code = process.wait()
                return code if code >= 0 else 128 - code
            except KeyboardInterrupt:  # the step has it too
                continue
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
