"""What a run was computed with: the toolkit's commit, hardware, Python and torch."""

import contextlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

_GIT_SECONDS = 10
_DISTRIBUTION = "eva-toolkit"


def toolkit() -> str:
    """Name the version, and where the package lies in a checkout also the commit."""
    try:
        version = metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        version = ""
    root = Path(__file__).resolve().parents[2]
    return ", ".join(part for part in (version, commit(root)) if part)


def commit(root: Path) -> str:
    """Name the commit of a checkout.

    Args:
        root: Folder that has `.git`.

    Returns:
        Such as "commit 0123456789ab, modified"; empty for a folder that is not a checkout.
    """
    if not (root / ".git").exists():
        return ""
    digest, dash, _ = _describe(root).partition("-")
    return f"commit {digest}{', modified' if dash else ''}" if digest else ""


def hardware(device: str) -> str:
    """Name what computes: GPUs where they do, processor, cores that may be used, memory.

    Args:
        device: "cpu", "cuda" or "cuda:1".
    """
    cores, memory = usable_cores(), usable_memory()
    parts = [*_gpus(device), f"{_processor()}, {cores} core{'s' if cores != 1 else ''}"]
    if memory:
        parts.append(f"{memory / 2**30:.0f} GiB of memory")
    return ", ".join(parts)


def software() -> str:
    """Name the versions of Python and torch, without an import of torch."""
    parts = [f"Python {platform.python_version()}"]
    torch = sys.modules.get("torch")
    version = getattr(torch, "__version__", None)
    with contextlib.suppress(metadata.PackageNotFoundError):
        parts.append(f"torch {version or metadata.version('torch')}")
    return ", ".join([*parts, platform.system()])


def usable_cores() -> int:
    """Count the cores that this process may use, by its affinity and its control group."""
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on every system
        cores = os.cpu_count() or 1
    quota, _, period = _first_line("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def usable_memory() -> int:
    """Count the bytes of memory of the machine, or of the control group; 0 if it is not known."""
    memory = 0
    with contextlib.suppress(AttributeError, OSError, ValueError):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _first_line("/sys/fs/cgroup/memory.max")
    return min(memory, int(limit)) if limit.isdigit() and memory else memory


def process_began(now: float) -> float:
    """Return the time at which this process began; `now` where that cannot be known.

    Args:
        now: The time, in seconds as `time.time` has it.
    """
    try:
        uptime = float(_first_line("/proc/uptime").split()[0])
        fields = _first_line("/proc/self/stat").rpartition(")")[2].split()
        return now - (uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
    except (AttributeError, IndexError, OSError, ValueError):
        return now


def _describe(root: Path) -> str:
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):  # no git, or another user's checkout
        return ""
    return done.stdout.strip()


def _gpus(device: str) -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        return []
    with contextlib.suppress(Exception):  # a driver of another version, for example
        _, _, number = device.partition(":")
        numbers = [int(number)] if number else range(torch.cuda.device_count())
        names = [torch.cuda.get_device_name(number) for number in numbers]
        return [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    return []


def _processor() -> str:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(errors="replace") as lines:
        for line in lines:
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine() or "processor of unknown kind"


def _first_line(file: str) -> str:
    try:
        return Path(file).read_text().partition("\n")[0].strip()
    except (OSError, ValueError):
        return ""
