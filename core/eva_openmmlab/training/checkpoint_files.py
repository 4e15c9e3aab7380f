"""The checkpoint that a run continues from: found, and read as data.

mmengine's `Runner.resume` runs the text of a config that the file holds, unpickles what it cannot
read safely, and loads what fits. None of its reading is used here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.logging.history_buffer import HistoryBuffer

from eva_backbone.checkpoints.reading import read_torch_file
from eva_data.files import write_text
from eva_openmmlab.config.runs import LATEST, checkpoints
from eva_openmmlab.weights import METADATA

EVALUATED = "last_evaluation.json"
RUN = "eva_run"  # key of the place in the data
_BEST = re.compile(r"best_(score|ckpt)(_\w+)?")


class UnfitCheckpointError(ValueError):
    """A checkpoint that cannot be continued from; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The latest evaluation of a run.

    Attributes:
        iteration: Iteration after which it took place.
        best: Notes of mmengine's hook about the best one so far.
    """

    iteration: int
    best: dict[str, Any] = field(default_factory=dict)


def newest_checkpoint(work_dir: Path, folder: Path) -> Path | None:
    """Find the checkpoint to continue from; the folder may have been moved or copied since.

    Args:
        work_dir: Work folder of the run.
        folder: Folder of its checkpoints, usually the same.

    Returns:
        The one that `last_checkpoint` names, else the one with the highest number; None for a
        folder without any.

    Raises:
        FileNotFoundError: If the named one is missing.
    """
    tag = work_dir / LATEST
    noted = ""
    if tag.is_file():
        noted = tag.read_text(encoding="utf-8", errors="replace").strip()
    if not noted:  # no write of it was ever finished
        return next(iter(checkpoints(folder)), None)
    here = folder / Path(noted).name
    if not here.is_file():
        raise FileNotFoundError(
            f"{tag} names {noted}, which is not there; name another checkpoint in it"
            f"{_others(folder, here)}, or remove it to begin from the start"
        )
    return here


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read the checkpoint of a run without running any code in it.

    Args:
        file: Checkpoint as `EVARunner` or mmengine's runner wrote it.

    Returns:
        The content, with all parts that a run continues from.

    Raises:
        UnfitCheckpointError: If it is damaged or lacks a part; complete older ones are named.
    """
    try:
        content = read_torch_file(file, allowed=METADATA)
        _check_parts(content)
    except (ValueError, OSError) as error:
        raise UnfitCheckpointError(
            f"{file} cannot be continued from: {error}{_others(file.parent, file)}"
        ) from error
    return dict(content)


def _others(folder: Path, bad: Path) -> str:
    complete = []
    for path in checkpoints(folder):
        if path != bad:
            try:
                _check_parts(read_torch_file(path, allowed=METADATA, mapped=True))
            except (ValueError, OSError):
                continue
            complete.append(path.name)
    if not complete:
        return ""
    return f" ({', '.join(complete)} in the same folder is complete: write its name to {LATEST})"


def _check_parts(content: Any) -> None:
    if not isinstance(content, Mapping):
        raise ValueError("it is not the checkpoint of a run")
    parts = ("meta", "state_dict", "message_hub", "optimizer")
    wrong = [name for name in parts if not isinstance(content.get(name), Mapping)]
    if wrong:
        raise ValueError(f"it is not the checkpoint of a run, it has no {', '.join(wrong)}")
    for name, value in {"epoch": 0, **content["meta"]}.items():
        if name in ("iter", "epoch", "seed") and value is not None and not _is_count(value):
            raise ValueError(f"its meta.{name} is {value!r}")
    if not _is_count(content["meta"].get("iter")):
        raise ValueError("it does not say its iteration")
    hub = content["message_hub"]
    for name in ("log_scalars", "runtime_info", "resumed_keys"):
        if not isinstance(hub.get(name), Mapping):
            raise ValueError(f"its message_hub has no {name}")
    if not all(isinstance(buffer, HistoryBuffer) for buffer in hub["log_scalars"].values()):
        raise ValueError("its message_hub has a scalar without a history")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Note that an evaluation is finished, so that a continued run does not repeat it."""
    text = json.dumps({"iteration": evaluation.iteration, "best": evaluation.best})
    write_text(folder / EVALUATED, text)


def read_evaluation(folder: Path) -> Evaluation:
    """Read what `write_evaluation` noted; iteration -1 if there is nothing that can be read."""
    try:
        content = json.loads((folder / EVALUATED).read_text(encoding="utf-8"))
        best, iteration = content["best"], content["iteration"]
        fits = all(_BEST.fullmatch(name) for name in best)
        if _is_count(iteration) and fits:
            return Evaluation(iteration=iteration, best=dict(best))
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return Evaluation(iteration=-1)
