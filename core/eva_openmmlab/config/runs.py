"""What lies in the work folder of a run: numbered checkpoints and the saved config.

Nothing heavy is imported: programs look here before they begin.
"""

import re
from pathlib import Path

from eva_runs.messages import RunSentences

SAYS = RunSentences(unit="iteration", resume="--resume", output="--work-dir")
LATEST = "last_checkpoint"  # mmengine's
_NUMBER = re.compile(r"iter_(\d+)\.pth")
_CONFIGS = (".py", ".yaml", ".yml")


def checkpoints(folder: Path) -> list[Path]:
    """List the numbered checkpoints in a folder, the newest first."""
    found = [(match, path) for path in folder.glob("*") if (match := _NUMBER.fullmatch(path.name))]
    return [path for match, path in sorted(found, key=lambda pair: -int(pair[0][1]))]


def has_run(folder: Path) -> bool:
    """Return whether a work folder holds a run that could be continued."""
    return (folder / LATEST).exists() or bool(checkpoints(folder))


def used(folder: Path) -> str:
    """Explain that a run would be written over another."""
    newest = next(iter(checkpoints(folder)), None)
    return SAYS.used(folder, checkpoint=newest.name if newest else "")


def config_of_run(place: Path) -> Path | None:
    """Find the config that a run saved.

    Args:
        place: Work folder of the run, or a checkpoint in it.

    Returns:
        The newest config of the folder; None if it has none, or is not a run's.
    """
    folder = place if place.is_dir() else place.parent
    if not (has_run(folder) or place.is_file()):
        return None
    for suffix in _CONFIGS:
        saved = [path for path in folder.glob(f"*{suffix}") if path.is_file()]
        if saved:
            return max(saved, key=lambda path: path.stat().st_mtime)
    copies = sorted(folder.glob("*/vis_data/config.py"))  # folders are named by their time
    return copies[-1] if copies else None
