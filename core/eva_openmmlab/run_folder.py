"""What lies in the work folder of a run: numbered checkpoints, and its record with the config.

Nothing heavy is imported: programs look here before they begin.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.registry import require_known
from eva_backbone.checkpoints.run_folders import folder_of_run, is_mmengine_run, last_of_mmengine
from eva_data.files import expand_home
from eva_data.saving import write_text
from eva_runs.output_folder import RunLogs, RunMessages, read_log

MESSAGES = RunMessages(unit="iteration")
LATEST = "last_checkpoint"  # mmengine's
RECORD = "run.json"
STEP = "step"
Entry = Mapping[str, Any]  # of a log


def iteration_of(checkpoint: Path) -> int:
    """Return the iterations that are done in a numbered checkpoint."""
    return int(checkpoint.stem.rpartition("_")[2])


def newest_checkpoint(folder: Path) -> Path | None:
    """Find the checkpoint that `last_checkpoint` names, else the one with the highest number."""
    return last_of_mmengine(folder) if is_mmengine_run(folder) else None


def checkpoints_of(folder: Path) -> list[Path]:
    """List the checkpoints that a run may continue from, that of `last_checkpoint` first."""
    newest = newest_checkpoint(folder)
    numbered = sorted(folder.glob("iter_*.pth"), key=iteration_of, reverse=True)
    return [newest, *(file for file in numbered if file != newest)] if newest else []


def has_run(folder: Path) -> bool:
    """Return whether a work folder holds a run that could be continued."""
    return (folder / LATEST).exists() or newest_checkpoint(folder) is not None


def require_unused(folder: Path) -> None:
    """Refuse a work folder that has a run, by a ValueError."""
    if has_run(folder):
        raise ValueError(MESSAGES.used(folder))


def describe_saved(folder: Path) -> str:
    """Say what of a training is saved, and how to go on."""
    newest = newest_checkpoint(folder)
    return MESSAGES.saved(newest.name, done=iteration_of(newest)) if newest else MESSAGES.saved("")


def write_record(folder: Path, config: str) -> None:
    """Note that a run has begun, and the name of its config in its folder."""
    write_text(folder / RECORD, json.dumps({"config": config}) + "\n")


def config_of_run(path: str | os.PathLike[str]) -> Path | None:
    """Find the config that the record of a run names, by its folder or a file in it; else None."""
    folder = folder_of_run(expand_home(path))
    try:
        name = json.loads((folder / RECORD).read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    inside = isinstance(name, str) and Path(name).name == name
    return folder / name if inside and (folder / name).is_file() else None


def require_config_of_run(weights: str | os.PathLike[str]) -> Path:
    """Find the config of the run that weights are of; a ValueError if they are of none."""
    require_known(weights)
    config = config_of_run(weights)
    if config is None:
        raise ValueError(f"{weights} has no config of a run: name its config or recipe before it")
    return config


def logs_of(runner: Any) -> RunLogs:
    """Return the logs of a run."""
    return RunLogs(Path(runner.work_dir), "*/vis_data/*.json")


def read_scalars(folder: Path) -> list[Entry]:
    """Read `*/vis_data/scalars.json` of a run, entries with their `step` in order of iterations.

    Losses and scores of one iteration are two. Of those of several starts the last one counts.
    """
    entries: dict[tuple[int, bool], Entry] = {}
    for file in sorted(folder.glob("*/vis_data/scalars.json")):  # named by their time
        for entry in read_log(file, STEP):
            entries[entry[STEP], "loss" in entry] = entry
    return [entries[key] for key in sorted(entries)]
