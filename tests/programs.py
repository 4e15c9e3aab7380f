"""Programs that tests start: processes that go on from one with the frameworks (`starter.py`).

Not a test. `Programs` is the one factory of such processes, whatever folder of tests starts them.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

RANK = """
import json, resource, sys
import program

arguments, size = json.loads(sys.argv[1])
if size:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
program.main(arguments)
"""


@dataclass(frozen=True)
class EndedRanks:
    """How the processes of a run ended, and what each of them wrote."""

    codes: list
    texts: list


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

    def run_ranks(self, arguments, *, environment, log, ranks=1, limit=60, file_size=0, **signals):
        """Run `main(arguments)` of a module `program` in each process of a run, to the end.

        Their outputs are files that begin with `log`. A file may have `file_size` bytes, and a run
        has `limit` seconds. A `signal` reaches all, or their process groups (`group`), `after`
        seconds after `metrics`, a file, has some `lines`.
        """
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = str(listener.getsockname()[1])
        environment = environment | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        words, files, processes = ["-c", RANK, json.dumps([arguments, file_size])], [], []
        for rank in range(ranks):
            files.append(Path(f"{log}{rank}"))
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            with open(os.devnull) as nothing, files[-1].open("w") as output:
                processes.append(self._starter.Started(
                    words, [nothing, output, output], place=self._starter.place,
                    environment=environment | (place if ranks > 1 else {}), folder=Path.cwd(),
                ))  # fmt: skip
        end, due = time.monotonic() + limit, None
        while any(process.poll() is None for process in processes):
            if signals.get("signal") and due is None and _lines(signals) >= signals["lines"]:
                due = time.monotonic() + signals["after"]
            if due and time.monotonic() >= due:
                send = os.killpg if signals["group"] else os.kill
                for process in processes:
                    with contextlib.suppress(ProcessLookupError):
                        send(process.pid, signal.Signals[signals["signal"]])
                signals, due = {}, None
            if time.monotonic() > end:
                for process in processes:
                    process.kill()
            time.sleep(0.005)
        codes = [process.wait() for process in processes]
        return EndedRanks(codes, [file.read_text(errors="replace") for file in files])

    def close(self):
        """Kill what still runs."""
        for running in self._started:
            if running.process.poll() is None:
                running.kill()


def _lines(signals):
    file = Path(signals["metrics"])
    return file.read_bytes().count(b"\n") if signals["lines"] and file.exists() else 0
