"""The output folder of a run: who may use it, its last checkpoint, and what was logged in it.

Everything heavy is imported where it is used: a command line is checked before.
"""

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eva_data.detection.spec import FOLDER as PLACED
from eva_data.detection.spec import DetectionData
from eva_data.files import make_folder, require_regular_file
from eva_runs.messages import RunSentences
from eva_runs.output_folder import clean_if_refused, locked
from eva_runs.record import STARTS, record_start

logger = logging.getLogger(__name__)

LAST, METRICS, FINAL = "last_checkpoint", "metrics.json", "model_final.pth"
RESULTS = "results.json"
# what a run makes before it begins, and own data that were not in COCO's format
_TRACES = (STARTS, "config.yaml", "log.txt", "log.txt.rank*", PLACED)
SAYS = RunSentences(unit="iteration", resume="--resume", output="train.output_dir")
_CHECKPOINT = re.compile(r"\w[\w.-]*\.pth")
_SCORE = re.compile(r"(bbox|segm|boundary)(-\w+)?/")  # also rpn/num_pos_anchors has a slash
_ITERATION = re.compile(r"model_(\d+)\.pth")


@contextlib.contextmanager
def claimed(folder: Path, *, trains: bool, resume: bool) -> Iterator[None]:
    """Reserve the output folder for this run while the block runs.

    Args:
        folder: The folder.
        trains: False for an evaluation, which may write into any run's folder.
        resume: Continue a run in it.

    Raises:
        ValueError: If another run uses it, or has used it and this is not its continuation.
        UnwritableError: If it is a file, or nothing can be written in it.
        OtherProcessError: On the other processes.
    """
    from detectron2.utils import comm

    from eva_detection.training.agreement import together

    with contextlib.ExitStack() as stack:
        if comm.is_main_process():
            begun = (folder / (METRICS if trains else RESULTS)).exists
            stack.enter_context(clean_if_refused(folder, _TRACES, begun=begun))

        def claim() -> None:
            if not comm.is_main_process():
                return
            if not trains:
                make_folder(folder)
                record_start(folder, "evaluation")
                return
            stack.enter_context(locked(folder))
            if not resume:
                check_unused(folder)
            repair_metrics(folder)
            goes_on = resume and last_checkpoint(folder) is not None
            record_start(folder, "training", continues=goes_on)

        together(claim)
        yield


def write_data(data: DetectionData, folder: Path, *, goes_on: bool) -> None:
    """Write own data that are not a file in COCO format yet; each process holds them already.

    Args:
        data: The data of the run.
        folder: The output folder, which is this run's.
        goes_on: Whether a run may be continued, whose data must be what they were.

    Raises:
        ValueError: If they are not.
        UnwritableError: If they cannot be written.
        OtherProcessError: On the other processes.
    """
    from detectron2.utils import comm

    from eva_detection.training.agreement import together

    def write() -> None:
        if comm.is_main_process():
            data.write(continues=goes_on and last_checkpoint(folder) is not None)

    together(write)


def last_checkpoint(folder: Path) -> Path | None:
    """Find the checkpoint that a run continues from.

    Args:
        folder: The run's output folder.

    Returns:
        The file that `last_checkpoint` names, or None if there are no checkpoints at all.

    Raises:
        ValueError: If that is not a file of the folder, or checkpoints are there and nothing says
            which is the last.
        OSError: If the folder or the file cannot be read.
    """
    note, others = folder / LAST, checkpoints(folder)
    if not note.exists() and not note.is_symlink():
        if others:
            raise ValueError(f"{folder} has checkpoints, but no {LAST}: {_choose(note, others)}")
        return None
    require_regular_file(note)
    with note.open("rb") as stream:
        name = stream.read(300).decode(errors="replace").strip()
    if not _CHECKPOINT.fullmatch(name):
        raise ValueError(
            f"{note} names {name!r}, which is not a .pth file of that folder: "
            f"{_choose(note, others)}"
        )
    file = folder / name
    if not file.is_file():
        raise ValueError(f"{note} names {name}, which is not there: {_choose(note, others)}")
    return file


def checkpoints(folder: Path) -> list[Path]:
    """List the files of a folder that look like checkpoints, the newest first."""
    found = [path for path in folder.glob("*.pth") if not path.name.startswith(".")]
    found = [path for path in found if path.is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _choose(note: Path, others: list[Path]) -> str:
    if not others:
        return f"no other checkpoint is there; remove {note} to start from the beginning"
    names = ", ".join(path.name for path in others[:5])
    return f"write the name of a complete one into it ({names}), or choose another output"


def saved_progress(folder: Path) -> str:
    """Say what of a run is saved and how to go on, without reading weights.

    Args:
        folder: The run's output folder.
    """
    try:
        file = last_checkpoint(folder)
    except (ValueError, OSError) as error:
        return str(error)
    if file is None:
        return SAYS.saved("")
    number = _ITERATION.fullmatch(file.name)  # of an iteration, from 0
    return SAYS.saved(file.name, done=int(number[1]) + 1 if number else None)


def is_finished(folder: Path, max_iter: int) -> bool:
    """Return whether a run has trained to its end and was scored.

    Args:
        folder: The run's output folder.
        max_iter: Iterations that are wanted; a run of fewer goes on.

    Raises:
        ValueError: As for `last_checkpoint`.
        OSError: As for `last_checkpoint`.
    """
    last = last_checkpoint(folder)
    if last is None or last.name != FINAL or not (folder / RESULTS).is_file():
        return False
    return was_logged(folder, max_iter, scores=True)


def check_unused(folder: Path) -> None:
    """Refuse a folder that holds a run already.

    Args:
        folder: The output folder of a new run, which need not exist.

    Raises:
        ValueError: If another run has left checkpoints or metrics in it.
    """
    metrics = folder / METRICS
    own = [path for path in checkpoints(folder) if path.name.startswith("model_")]
    used = (folder / LAST).exists() or bool(own)  # other files may be weights to begin from
    if used or (metrics.is_file() and metrics.stat().st_size):
        raise ValueError(SAYS.used(folder, checkpoint=own[0].name if own else ""))


def repair_metrics(folder: Path) -> None:
    """Remove the end of `metrics.json` that a killed run left without a line's end.

    Args:
        folder: The run's output folder; the caller is the single writer in it.
    """
    file = folder / METRICS
    if not file.is_file():
        return
    with file.open("r+b") as stream:
        complete = kept = stream.seek(0, os.SEEK_END)
        while kept:
            stream.seek(max(kept - 65536, 0))
            block = stream.read(kept - stream.tell())
            if b"\n" in block:
                kept -= len(block) - block.rindex(b"\n") - 1
                break
            kept -= len(block)
        if kept < complete:
            logger.warning("%s: removed the last line, which was not complete", file)
            stream.truncate(kept)


def was_logged(folder: Path, iteration: int, *, scores: bool = False) -> bool:
    """Find out whether `metrics.json` has a line of an iteration.

    Args:
        folder: The run's output folder.
        iteration: The iteration.
        scores: Only a line with scores of an evaluation, such as `bbox/AP`, counts.
    """
    file = folder / METRICS
    if not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="replace") as lines:
        return any(_is_of(line, iteration, scores=scores) for line in lines)


def _is_of(line: str, iteration: int, *, scores: bool) -> bool:
    try:
        entry: Any = json.loads(line)
    except ValueError:
        return False
    if not isinstance(entry, dict) or entry.get("iteration") != iteration:
        return False
    return any(bool(_SCORE.match(name)) == scores for name in entry if name != "iteration")
