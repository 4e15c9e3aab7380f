"""A JSON line for each sample of an evaluation, in order, whatever the number of processes."""

import contextlib
import heapq
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from eva_data.files import explained, replacing
from eva_engine import distributed

WAIT_FOR_FILES = 30.0  # seconds that a network file system may take to show another machine's file


class SampleLines:
    """Takes the lines of one process; `writing_sample_lines` opens it.

    Args:
        stream: Open file of this process.
        file: The file that is written in the end, for messages.
    """

    def __init__(self, stream: TextIO, file: Path) -> None:
        self._stream, self._file = stream, file
        self._last = -1

    def add(self, index: int, entry: Mapping[str, Any]) -> None:
        """Add the line of a sample.

        Args:
            index: Place of the sample in the data set; those of a process come in order.
            entry: What JSON can hold.

        Raises:
            UnwritableError: If the disk is full, for example.
        """
        assert index > self._last, (index, self._last)
        self._last = index
        with explained(self._file):
            self._stream.write(f"{index}\t{json.dumps(entry)}\n")


@contextlib.contextmanager
def writing_sample_lines(file: Path) -> Iterator[SampleLines]:
    """Write a file of JSON lines by all processes; the same call on all of them.

    Each process writes its lines to a hidden file, and the first one merges these at the end, one
    line at a time. `file` appears at the end, complete, or stays as it was before.

    Args:
        file: The file to write; its folder exists, and all processes see it.

    Yields:
        What takes the lines of this process.

    Raises:
        UnwritableError: If the disk is full, for example.
        ValueError: If the processes do not see the same folder.
    """
    ranks = range(distributed.world_size())
    # the name of an unfinished file, see `eva_data.files.remove_unfinished`
    parts = [file.with_name(f".{file.stem}.writing-rank{rank}{file.suffix}") for rank in ranks]
    own = parts[distributed.rank()]
    try:
        with explained(file):
            stream = own.open("w", encoding="utf-8")
        try:
            yield SampleLines(stream, file)
            with explained(file):
                stream.flush()
        finally:
            with contextlib.suppress(OSError):  # of a flush that failed before
                stream.close()
        distributed.barrier()  # all lines are there
        problem: Exception | None = None
        if distributed.rank() == 0:
            try:
                _merge(parts, file)
            except (OSError, ValueError) as error:
                problem = error
        distributed.raise_together(problem)
    finally:
        own.unlink(missing_ok=True)


def _merge(parts: list[Path], file: Path) -> None:
    with contextlib.ExitStack() as stack:
        streams = []
        for part in parts:
            _wait_for(part)
            streams.append(stack.enter_context(part.open(encoding="utf-8")))
        target = stack.enter_context(replacing(file))
        merged = stack.enter_context(target.open("w", encoding="utf-8"))
        for line in heapq.merge(*streams, key=_index_of):
            merged.write(line.partition("\t")[2])


def _index_of(line: str) -> int:
    return int(line.partition("\t")[0])


def _wait_for(part: Path) -> None:
    end = time.monotonic() + WAIT_FOR_FILES
    while not part.exists():
        if time.monotonic() > end:
            raise ValueError(
                f"{part} is not there: all processes must see the same folder, so choose an output "
                "on a file system that all machines share"
            )
        time.sleep(0.05)
