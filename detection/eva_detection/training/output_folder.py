"""The output folder of a run: its last checkpoint, and what was logged in it."""

import os
import re
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.registry import require_known
from eva_backbone.checkpoints.run_folders import adapter_of, folder_of_run
from eva_data.files import expand_home, is_there, require_regular_file
from eva_runs.output_folder import RunLogs, RunMessages, read_log

LAST, METRICS, FINAL = "last_checkpoint", "metrics.json", "model_final.pth"
RESULTS = "results.json"
SAVED = "config.yaml"  # the config that a run leaves with its weights
MESSAGES = RunMessages(unit="iteration")


def last_checkpoint(folder: Path) -> Path | None:
    """Find the checkpoint that a run continues from."""
    note = folder / LAST
    name = ""
    if note.exists():
        require_regular_file(note)
        name = note.read_text(errors="replace").strip()
    elif not checkpoints(folder):
        return None
    file = folder / name
    if not re.fullmatch(r"\w[\w.-]*\.pth", name) or not file.is_file():
        others = ", ".join(path.name for path in checkpoints(folder)[:5]) or "none"
        raise ValueError(
            f"{note} names {name!r}, which is no .pth file of that folder: write the name of a "
            f"complete one into it ({others} there), or choose another output"
        )
    return file


def final_weights(folder: Path) -> Path:
    """Name the file of the weights at the end of a training."""
    return adapter_of(folder) or folder / FINAL


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a run, the newest first; other files may be weights to begin from."""
    files = [path for path in folder.glob("model_*.pth") if path.is_file()]
    return sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def saved_progress(folder: Path | None) -> str:
    """Say what of a run is saved and how to go on, without reading weights."""
    if folder is None:
        return "nothing is saved"
    try:
        name = getattr(last_checkpoint(folder), "name", "")
    except (ValueError, OSError) as error:
        return str(error)
    number = re.fullmatch(r"model_(\d+)\.pth", name)  # of an iteration, from 0
    return MESSAGES.saved(name, done=int(number[1]) + 1 if number else None)


def candidates(folder: Path) -> list[Path]:
    """List the checkpoints that a run may continue from, that of `last_checkpoint` first."""
    last = last_checkpoint(folder)
    return [last, *(file for file in checkpoints(folder) if file != last)] if last else []


def logs_of(folder: Path) -> RunLogs:
    """Return the logs of a run."""
    return RunLogs(folder, METRICS)


def is_finished(folder: Path, max_iter: int) -> bool:
    """Return whether a run has trained to its end and was scored."""
    last = last_checkpoint(folder)
    trained = last is not None and last.name == FINAL and (folder / RESULTS).is_file()
    return trained and logs_of(folder).is_evaluated(max_iter)


def has_run(folder: Path) -> bool:
    """Return whether a folder holds a run."""
    metrics = folder / METRICS
    logged = metrics.is_file() and metrics.stat().st_size > 0
    return bool(checkpoints(folder)) or (folder / LAST).exists() or logged


def check_unused(folder: Path) -> None:
    """Refuse a folder that holds a run already."""
    if has_run(folder):
        own = checkpoints(folder)
        raise ValueError(MESSAGES.used(folder, checkpoint=own[0].name if own else ""))


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read detectron2's `metrics.json` (one JSON object a line), in order of iterations."""
    by_iteration: dict[int, dict[str, Any]] = {}
    for line in read_log(run / METRICS, "iteration"):
        by_iteration.setdefault(line["iteration"], {}).update(line)
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def config_of_run(weights: str | os.PathLike[str]) -> Path | None:
    """Find the config that a training has left with its weights."""
    path = expand_home(weights)
    if not is_there(str(path)):
        return None
    file = folder_of_run(path) / SAVED
    return file if file.is_file() else None


def require_config(
    config_file: str | os.PathLike[str] | None, weights: str | os.PathLike[str]
) -> str | os.PathLike[str]:
    """Return the config of a detector: the one that is given, or that of the run of its weights."""
    config = config_file or config_of_run(weights)
    if config:
        return config
    require_known(weights)
    raise ValueError(
        f"no {SAVED} of a training lies with {weights}: name the recipe (--config-file)"
    )
