"""What lies in the work folder of a run: numbered checkpoints, and its record with the config.

Nothing heavy is imported: programs look here before they begin.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_backbone.checkpoints.run_folders import folder_of_run
from eva_data.files import expand_home
from eva_data.saving import write_text
from eva_runs.output_folder import evaluation_folder, number_folder
from eva_runs.recipes import name_on_own_data
from eva_runs.run_folder import RunFolder, require_config
from eva_runs.run_logs import read_log

if TYPE_CHECKING:
    from mmengine.config import Config

    from eva_openmmlab.command_line import RunnerRequest

RECORD = "run.json"
RUN = "eva_run"  # key of the place in the data, in a checkpoint
CONFIGURED_BATCH_SIZE = "configured_batch_size"  # key in both: images of a process before --batch
STEP = "step"
Entry = Mapping[str, Any]  # of a log


def iteration_of(checkpoint: Path) -> int:
    """Return the iterations that are done in a numbered checkpoint."""
    return int(checkpoint.stem.rpartition("_")[2])


def run_folder(path: str | os.PathLike[str]) -> RunFolder:
    """Return the work folder of a run."""
    return RunFolder(
        Path(path),
        checkpoints="iter_*.pth",
        foreign="model_*.pth",
        logs="*/vis_data/*.json",
        order=iteration_of,
    )


def choose_folder(cfg: "Config", request: "RunnerRequest") -> Path:
    """Choose the folder of a run: as named, else by data and recipe; see `evaluation_folder`."""
    if request.output is not None:
        return request.output
    if "work_dir" in request.settings:
        return Path(cfg.work_dir)
    if request.evaluates:
        weights = str(request.weights)
        run = folder_of_run(expand_home(weights)) if request.of_run else None
        return evaluation_folder(run, weights, shared=request.launcher != "none")
    if path := request.first_path:
        folder = Path("output") / (name_on_own_data(request.config, path) or request.config.stem)
    else:
        folder = Path(cfg.get("work_dir") or Path("output") / request.config.stem)
    resume = bool(cfg.get("resume")) or request.resume
    return number_folder(folder, lambda path: run_folder(path).is_used(), resume=resume)


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
    return require_config(config_of_run(weights), weights)


def read_scalars(folder: Path) -> list[Entry]:
    """Read `*/vis_data/scalars.json` of a run, entries with their `step` in order of iterations.

    Losses and scores of one iteration are two. Of those of several starts the last one counts.
    """
    entries: dict[tuple[int, bool], Entry] = {}
    for file in sorted(folder.glob("*/vis_data/scalars.json")):  # named by their time
        for entry in read_log(file, STEP):
            entries[entry[STEP], "loss" in entry] = entry
    return [entries[key] for key in sorted(entries)]
