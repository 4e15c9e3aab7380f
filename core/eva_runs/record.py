"""The record of a run: its starts with time, command and commit; facts for its page."""

import contextlib
import json
import logging
import math
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from eva_backbone.checkpoints.run_folders import folder_of_run
from eva_data.files import expand_home, load_object, require_regular_file
from eva_data.saving import explain_os_errors, write_text
from eva_runs.extras import TOOLKIT

logger = logging.getLogger(__name__)

STARTS = "starts.jsonl"
THRESHOLD = "threshold.json"
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/?#\"'<>]*@")
_GIT_SECONDS = 10
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")  # of the hub
Kind = Literal["training", "evaluation"]

Start = dict[str, Any]  # a line of `STARTS`: kind, began, command, toolkit, continues


def record_start(folder: Path, kind: Kind, *, continues: bool = True) -> None:
    """Add a line to `starts.jsonl`: when and how a run or evaluation was started in a folder.

    Called once by the main process, when it may use the folder. A training `continues` where the
    start before ended, or begins, and is then not the continuation of starts that were refused or
    saved nothing.

    Raises:
        UnwritableError: If it cannot be written.
    """
    file = folder / STARTS
    line = {
        "kind": kind,
        "began": time.time(),
        "command": calling_command(),
        "toolkit": _known(toolkit),
        "continues": continues,
    }
    with explain_os_errors(file), file.open("ab+") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
            lines.write(b"" if lines.read(1) == b"\n" else b"\n")  # was killed while it wrote
        lines.write(json.dumps(line).encode() + b"\n")


def run_facts(
    folder: Path, kind: Kind, *, seed: int | None, device: str, processes: int = 1
) -> list[tuple[str, str]]:
    """Say how a run came about, for `Report.facts`; what cannot be found out is left out.

    They are those of the last `starts.jsonl` of the folder, and of this process.
    """
    starts = _starts(folder, kind)
    many = f", the last of {len(starts)} starts" if kind == "training" and starts[1:] else ""
    entries: list[tuple[str, Callable[[], str]]] = [
        ("date", lambda: _dates(starts[0]["began"] if starts else time.time())),
        ("command", lambda: str(starts[-1]["command"]) if starts else calling_command()),
        ("toolkit", lambda: _toolkits(starts)),
        ("seed", lambda: "none" if seed is None else str(seed)),
        ("duration", lambda: duration_text(time.time() - starts[-1]["began"]) + many),
        ("hardware", lambda: hardware(device)),
        ("software", software),
        ("processes", lambda: f"{processes} on {device}"),
    ]
    return [(name, value) for name, make in entries if (value := _known(make))]


def was_trained_in(folder: Path) -> bool:
    """Return whether a training was started in a folder, see `record_start`."""
    return bool(_starts(folder, "training"))


def calling_command() -> str:
    """Write the command by which this process was called, for a shell; without passwords."""
    name, *arguments = sys.argv or [""]
    if name.startswith("eva "):
        return without_secrets(" ".join(["eva", shlex.join([*name.split()[1:], *arguments])]))
    module = getattr(getattr(sys.modules.get("__main__"), "__spec__", None), "name", None)
    program = ["-m", module.removesuffix(".__main__")] if module else [name] if name else []
    return without_secrets(shlex.join(["python", *program, *arguments]))


def without_secrets(content: str) -> str:
    """Take user and password out of addresses, and tokens of the hub out of everything.

    `https://HOST/...` replaces `https://USER:TOKEN@HOST/...`, and `hf_...` a token.
    """
    return _TOKEN.sub("hf_...", _IN_ADDRESS.sub("", content))


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
    starts: list[Start] = []
    for line in content.splitlines():
        try:
            start = json.loads(line)
            if start["kind"] == kind and math.isfinite(start["began"]):
                starts = [*starts, start] if start["continues"] else [start]
        except (ArithmeticError, ValueError, TypeError, KeyError, RecursionError):
            logger.debug("a line of %s cannot be read", folder / STARTS)
    return starts


def _dates(since: float) -> str:
    began, end = datetime.fromtimestamp(since).astimezone(), datetime.now().astimezone()
    first, last, zone = f"{began:%Y-%m-%d %H:%M}", f"{end:%Y-%m-%d %H:%M}", end.isoformat()[-6:]
    until = f"{end:%H:%M}" if began.date() == end.date() else last
    dates = first if first == last else f"{first} to {until}"
    return f"{dates} (UTC{zone})"


def _toolkits(starts: list[Start]) -> str:
    names = [str(start["toolkit"]) for start in starts] or [toolkit()]
    return names[-1] if names[0] == names[-1] else f"{names[-1]}; begun with {names[0]}"


def _known(make: Callable[[], str]) -> str:
    """Make a fact; one that cannot be found out is empty."""
    try:
        return make()
    except Exception:
        logger.debug("a fact is not known", exc_info=True)
        return ""


def toolkit() -> str:
    """Name the version, and where the package lies in a checkout also the commit."""
    version = ""
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version(TOOLKIT)
    return ", ".join(filter(None, (version, commit(Path(__file__).resolve().parents[2]))))


def commit(root: Path, *, without: Sequence[Path] = ()) -> str:
    """Name the commit of a checkout: "commit 0123456789ab, modified"; empty for other folders.

    Changes below the paths `without` do not count.
    """
    if not (root / ".git").exists():
        return ""
    # `describe --dirty` locks the index, and what is ended meanwhile leaves the lock
    command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch"]
    command += [
        "--untracked-files=no",
        "--",
        str(root),
        *(f":(exclude){pattern}" for pattern in without),
    ]
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # no git, another user's files
        first, *others = subprocess.check_output(
            command,
            text=True,
            stderr=subprocess.DEVNULL,
            timeout=_GIT_SECONDS,
            env=environment,
        ).splitlines()
        name = f"commit {first.removeprefix('# branch.oid ')[:12]}"
        return f"{name}, modified" if any(not line.startswith("#") for line in others) else name
    return ""


def hardware(device: str) -> str:
    """Name what computes ("cpu", "cuda:1"): GPUs, processor, cores that may be used, memory."""
    torch = sys.modules.get("torch")
    gpus: list[str] = []
    if torch is not None and device.startswith("cuda"):
        number = device.partition(":")[2]
        numbers = [int(number)] if number else range(torch.cuda.device_count())
        names = [torch.cuda.get_device_name(number) for number in numbers]
        gpus = [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    processor = platform.processor() or platform.machine() or "processor of unknown kind"
    with contextlib.suppress(OSError):
        match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
        processor = " ".join(match[1].split()) if match else processor
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    plural = "s" if cores != 1 else ""
    return ", ".join([*gpus, processor, f"{cores} core{plural}", f"{memory:.0f} GiB of memory"])


def software() -> str:
    """Name the versions of Python and torch, without an import of torch."""
    torch = sys.modules.get("torch")
    version = torch.__version__ if torch else metadata.version("torch")
    return f"Python {platform.python_version()}, torch {version}, {platform.system()}"


def write_threshold(folder: Path, score: float) -> None:
    """Note the least score of a detection with which a run's evaluation had the best F1."""
    write_text(folder / THRESHOLD, json.dumps({"score_threshold": score}) + "\n")


def read_threshold(weights: str | os.PathLike[str], default: float = 0.5) -> float:
    """Return the least score that was best for the weights of a run, or the default."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = load_object(folder_of_run(expand_home(weights)) / THRESHOLD)
        score = float(content["score_threshold"])
        return score if 0 <= score <= 1 else default
    return default


def threshold_words(weights: str | os.PathLike[str]) -> list[str]:
    """Write the option of a demo with the threshold of a run, if there is one."""
    score = read_threshold(weights, math.nan)
    return [] if math.isnan(score) else ["--score-threshold", f"{score:g}"]
