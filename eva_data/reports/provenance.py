"""How a run came about: date, command, commit, seed, duration, hardware."""

import contextlib
import json
import logging
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Literal

from eva_data.files import explained

logger = logging.getLogger(__name__)

STARTS = "starts.jsonl"
Kind = Literal["training", "evaluation"]


def record_start(folder: Path, kind: Kind, *, log: str = "log.txt") -> None:
    """Add a line to `starts.jsonl`: when and how a run or evaluation was started in a folder.

    Called once by the main process, when it may use the folder. A training that continues has
    several lines; each also says when the one before it was last heard of.

    Args:
        folder: Output folder.
        kind: "training" or "evaluation".
        log: Name of the file in the folder that a running process writes to.

    Raises:
        UnwritableError: If it cannot be written.
    """
    line: dict[str, Any] = {"kind": kind, "began": time.time(), "command": _command()}
    with contextlib.suppress(OSError):
        line["log_before"] = (folder / log).stat().st_mtime
    file = folder / STARTS
    with explained(file), file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")


def facts(
    folder: Path, kind: Kind, *, seed: int | None, device: str, processes: int = 1
) -> list[tuple[str, str]]:
    """Say how a run came about, for `Report.facts`.

    Args:
        folder: Output folder, with `starts.jsonl`.
        kind: As for `record_start`.
        seed: Seed of the run; None if it has none.
        device: Device that computed: "cpu", "cuda".
        processes: Number of processes.

    Returns:
        Name and value of date, command, version and commit, seed, duration, hardware.
    """
    named = [("command", _command()), ("seed", str(seed)), ("device", f"{processes} x {device}")]
    return [("folder", str(folder)), ("kind", kind), *named]


def _command() -> str:
    return shlex.join(sys.argv)
