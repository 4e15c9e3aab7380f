"""The record of a run: every start with its time, command and commit; facts for its page."""

import contextlib
import json
import logging
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from eva_data.files import explained, require_regular_file
from eva_runs.machine import hardware, process_began, software, toolkit

logger = logging.getLogger(__name__)

STARTS = "starts.jsonl"
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/?#\"'<>]*@")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")  # of the hub
Kind = Literal["training", "evaluation"]


class Start(NamedTuple):
    """A start of a run or evaluation.

    Attributes:
        began: Time in seconds, as `time.time` has it.
        command: Command as it was called.
        toolkit: Version and commit.
        heard: Time at which the start before it was last heard of; None for the first one.
    """

    began: float
    command: str
    toolkit: str
    heard: float | None


def record_start(folder: Path, kind: Kind, *, log: str = "log.txt", continues: bool = True) -> None:
    """Add a line to `starts.jsonl`: when and how a run or evaluation was started in a folder.

    Called once by the main process, when it may use the folder. A training that continues has
    several lines; each also says when the one before it was last heard of.

    Args:
        folder: Output folder.
        kind: "training" or "evaluation".
        log: Name of the file in the folder that a running process writes to.
        continues: Whether a training may go on where the start before ended; one that begins is
            not the continuation of starts that were refused or saved nothing.

    Raises:
        UnwritableError: If it cannot be written.
    """
    now = time.time()
    line: dict[str, Any] = {"kind": kind, "began": now, "command": called()}
    line["toolkit"] = _known(toolkit)
    line["continues"] = continues
    line["heard"] = _last_heard(folder, log, process_began(now))
    file = folder / STARTS
    with explained(file), file.open("ab+") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
            if lines.read(1) != b"\n":  # a process was killed while it wrote
                lines.write(b"\n")
        lines.write(json.dumps(line).encode() + b"\n")


def facts(
    folder: Path, kind: Kind, *, seed: int | None, device: str, processes: int = 1
) -> list[tuple[str, str]]:
    """Say how a run came about, for `Report.facts`; what cannot be found out is left out.

    Args:
        folder: Output folder, with `starts.jsonl`.
        kind: As for `record_start`.
        seed: Seed of the run; None if it has none.
        device: Device that computed: "cpu", "cuda".
        processes: Number of processes.

    Returns:
        Name and value of date, command, version and commit, seed, duration, hardware.
    """
    starts = _starts(folder, kind)
    named: list[tuple[str, Callable[[], str]]] = [
        ("date", lambda: _dates(starts)),
        ("command", lambda: starts[-1].command if starts else called()),
        ("toolkit", lambda: _toolkits(starts)),
        ("seed", lambda: "none" if seed is None else str(seed)),
        ("duration", lambda: _durations(starts, kind)),
        ("hardware", lambda: hardware(device)),
        ("software", software),
        ("processes", lambda: f"{processes} on {device}"),
    ]
    return [(name, value) for name, make in named if (value := _known(make))]


def duration(folder: Path, kind: Kind) -> float:
    """Return the seconds that a run has taken until now.

    Args:
        folder: Output folder, with `starts.jsonl`.
        kind: "training" for the sum over its starts, without the time between them; "evaluation"
            for the last one.

    Returns:
        Seconds; 0 if no start is known.
    """
    return _seconds(_starts(folder, kind), kind)


def was_trained_in(folder: Path) -> bool:
    """Return whether a training was started in a folder, see `record_start`."""
    return bool(_starts(folder, "training"))


def called() -> str:
    """Write the command by which this process was called, for a shell; without passwords."""
    name, *arguments = sys.argv or [""]
    if name.startswith("eva "):
        return without_secrets(" ".join(["eva", shlex.join([*name.split()[1:], *arguments])]))
    module = getattr(getattr(sys.modules.get("__main__"), "__spec__", None), "name", None)
    program = ["-m", module.removesuffix(".__main__")] if module else [name] if name else []
    return without_secrets(shlex.join(["python", *program, *arguments]))


def without_secrets(text: str) -> str:
    """Take user and password out of addresses, and tokens of the hub out of everything.

    Args:
        text: A command, settings or prose.

    Returns:
        The text: `https://HOST/...` for `https://USER:TOKEN@HOST/...`, `hf_...` for a token.
    """
    return _TOKEN.sub("hf_...", _IN_ADDRESS.sub("", text))


def duration_text(seconds: float) -> str:
    """Write a duration: "12 s", "4 min 12 s", "3 h 5 min"."""
    rounded = round(max(0.0, seconds))
    hours, minutes, rest = rounded // 3600, rounded // 60 % 60, rounded % 60
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _starts(folder: Path, kind: Kind) -> list[Start]:
    """Read the starts of a kind since it began; lines that are not complete are passed over."""
    try:
        require_regular_file(folder / STARTS)
        content = (folder / STARTS).read_bytes()
    except OSError:
        return []
    found: list[Start] = []
    for line in content.splitlines():
        try:
            fields = json.loads(line)
            if fields["kind"] != kind or not math.isfinite(fields["began"]):
                continue
            heard = fields.get("heard")
            known = isinstance(heard, int | float) and math.isfinite(heard)
            texts = str(fields.get("command", "")), str(fields.get("toolkit", ""))
            if fields.get("continues") is False:
                found.clear()
            found.append(Start(float(fields["began"]), *texts, float(heard) if known else None))
        except (ArithmeticError, ValueError, TypeError, KeyError, RecursionError):
            logger.debug("a line of %s cannot be read", folder / STARTS)
    return found


def _last_heard(folder: Path, log: str, before: float) -> float | None:
    """Return when something was last written by an earlier process: the log, or any file."""
    times = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_file() and (changed := entry.stat().st_mtime) < before:
                    times[entry.name] = changed
    return times.get(log, max(times.values(), default=None))


def _seconds(starts: list[Start], kind: Kind) -> float:
    counted = starts if kind == "training" else starts[-1:]
    ends = [_end(one, after) for one, after in pairwise(counted)]
    ends += [time.time()] if counted else []
    return sum(max(0.0, end - one.began) for one, end in zip(counted, ends, strict=True))


def _end(one: Start, after: Start) -> float:
    return one.began if after.heard is None else min(after.heard, after.began)


def _dates(starts: list[Start]) -> str:
    end = datetime.now().astimezone()
    began = datetime.fromtimestamp(starts[0].began).astimezone() if starts else end
    zone = f"UTC{end:%z}"[:6] + ":" + f"{end:%z}"[3:5]
    if f"{began:%Y%m%d%H%M}" == f"{end:%Y%m%d%H%M}":
        return f"{end:%Y-%m-%d %H:%M} ({zone})"
    until = f"{end:%H:%M}" if began.date() == end.date() else f"{end:%Y-%m-%d %H:%M}"
    return f"{began:%Y-%m-%d %H:%M} to {until} ({zone})"


def _toolkits(starts: list[Start]) -> str:
    now = starts[-1].toolkit if starts else toolkit()
    first = starts[0].toolkit if starts else now
    return now if first == now else f"{now}; begun with {first}"


def _durations(starts: list[Start], kind: Kind) -> str:
    if not starts:
        return ""
    text = duration_text(_seconds(starts, kind))
    times = len(starts)
    return f"{text}, in {times} starts" if kind == "training" and times > 1 else text


def _known(make: Callable[[], str]) -> str:
    """Make a fact; one that cannot be found out is empty."""
    try:
        return make()
    except Exception:
        logger.debug("a fact is not known", exc_info=True)
        return ""
