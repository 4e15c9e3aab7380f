"""Programs that tests start: processes that go on from one with the frameworks (`starter.py`).

Not a test. `Programs` is the one factory of such processes, whatever folder of tests starts them.
"""

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a program ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def text(self):
        """Both outputs."""
        return self.out + self.err

    def names(self, *values):
        """Whether the outputs name each of these values, wherever lines are broken."""
        text = "".join(self.text.split())
        return all("".join(str(value).split()) in text for value in values)


@dataclass
class Running:
    """A started program."""

    process: object
    out: Path
    err: Path

    def wait(self, timeout=120):
        """Wait for the end; a program that is still there has hung and is killed."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return Ended(code, *(file.read_text(errors="replace") for file in (self.out, self.err)))

    def kill(self):
        """End it with its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)


class Programs:
    """Starts Python programs with their outputs in files, and ends at last what still runs.

    Args:
        starter: The module `starter.py`, with the `place` of its process.
        folder: Where outputs are kept, and programs work that are given no folder.
    """

    def __init__(self, starter, folder):
        self._starter, self._folder = starter, folder
        self._started = []

    def start(self, *arguments, folder=None, environment=None):
        """Start a program: what follows `python` on a command line."""
        number = len(self._started)
        if folder is None:
            folder = self._folder / f"{number}"
            folder.mkdir()
        files = [self._folder / f"{number}.{name}" for name in ("out", "err")]
        with open(os.devnull) as nothing, files[0].open("w") as out, files[1].open("w") as err:
            process = self._starter.Started(
                arguments, [nothing, out, err], place=self._starter.place, folder=folder,
                environment=os.environ if environment is None else environment,
            )  # fmt: skip
        self._started.append(Running(process, *files))
        return self._started[-1]

    def close(self):
        """Kill what still runs."""
        for running in self._started:
            if running.process.poll() is None:
                running.kill()
