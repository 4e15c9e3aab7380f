"""What lies in the work folder of a run: numbered checkpoints, and its record with the config.

Nothing heavy is imported: programs look here before they begin.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eva_data.files import write_text
from eva_runs.output_folder import RunSentences

SAYS = RunSentences(unit="iteration", resume="--resume", output="--work-dir")
LATEST = "last_checkpoint"  # mmengine's
RECORD = "run.json"
EVALUATED = "last_evaluation"
STEP = "step"
Entry = Mapping[str, Any]  # of a log
_NUMBER = re.compile(r"iter_(\d+)\.pth")


def checkpoints(folder: Path) -> list[Path]:
    """List the numbered checkpoints in a folder, the newest first."""
    found = [(match, path) for path in folder.glob("*") if (match := _NUMBER.fullmatch(path.name))]
    return [path for match, path in sorted(found, key=lambda pair: -int(pair[0][1]))]


def iteration_of(checkpoint: Path) -> int:
    """Return the iterations that are done in a numbered checkpoint."""
    return int(checkpoint.stem.rpartition("_")[2])


def newest_checkpoint(folder: Path) -> Path | None:
    """Find the checkpoint to continue from; the folder may have been moved or copied since.

    Returns:
        The one that `last_checkpoint` names, else the one with the highest number, or None.

    Raises:
        FileNotFoundError: If the named one is missing.
    """
    tag = folder / LATEST
    noted = tag.read_text(encoding="utf-8", errors="replace").strip() if tag.is_file() else ""
    if not noted:  # no write of it was ever finished
        return next(iter(checkpoints(folder)), None)
    here = folder / Path(noted).name
    if not here.is_file():
        raise FileNotFoundError(f"{tag} names {noted}, which is not there; name another one in it")
    return here


def has_run(folder: Path) -> bool:
    """Return whether a work folder holds a run that could be continued."""
    return (folder / LATEST).exists() or bool(checkpoints(folder))


def require_unused(folder: Path) -> None:
    """Refuse a work folder that has a run, by a ValueError."""
    if has_run(folder):
        newest = next(iter(checkpoints(folder)), None)
        raise ValueError(SAYS.used(folder, checkpoint=newest.name if newest else ""))


def what_is_saved(folder: Path) -> str:
    """Say what of a training is saved, and how to go on."""
    newest = newest_checkpoint(folder)
    if newest is None:
        return SAYS.saved("")
    return SAYS.saved(newest.name, done=iteration_of(newest))


def write_record(folder: Path, config: str) -> None:
    """Note that a run has begun, and the name of its config in its folder."""
    write_text(folder / RECORD, json.dumps({"config": config}) + "\n")


def config_of_run(place: Path) -> Path | None:
    """Find the config that the record of a run names, and no other; None without a run.

    `place` is the work folder of the run, or a file in it.
    """
    folder = place if place.is_dir() else place.parent
    try:
        name = json.loads((folder / RECORD).read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(name, str) or Path(name).name != name:
        return None
    return folder / name if (folder / name).is_file() else None


def read_scalars(folder: Path) -> list[Entry]:
    """Read `*/vis_data/scalars.json` of a run, entries with their `step` in order of iterations.

    Losses and scores of one iteration are two. A run that was stopped and continued has logged
    some iterations twice; the later start counts.
    """
    found: dict[tuple[int, bool], Entry] = {}
    for file in sorted(folder.glob("*/vis_data/scalars.json")):  # named by their time
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            # the run may have been killed in the middle of a line
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                found[entry[STEP], "loss" in entry] = entry
    return [found[place] for place in sorted(found)]
