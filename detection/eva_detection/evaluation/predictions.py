"""Predictions of an evaluation, kept on disk: one JSON line for each image and process."""

import json
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from eva_data.detection.scoring import Detection
from eva_data.files import replacing, write_text

WAIT_FOR_FILES = 30.0  # seconds that a network file system may take to show another machine's file


def _file(folder: Path, name: str, rank: int) -> Path:
    return folder / f"{name}.rank{rank}.jsonl"


class PredictionWriter:
    """Appends the predictions of one process to its file, which starts empty."""

    def __init__(self, folder: Path, name: str, *, rank: int):
        self._file = _file(folder, name, rank)
        self._file.unlink(missing_ok=True)
        self._file.touch()
        self._size = 0

    def append(self, detections: Iterable[list[Detection]], *, masks: bool) -> None:
        """Append one line for each image."""
        with self._file.open("a", encoding="utf-8") as file:
            if file.tell() != self._size:
                raise ValueError(
                    f"something else writes to {self._file}: "
                    "give every evaluator and every run an output_dir of its own"
                )
            for image in detections:
                file.write(json.dumps({"masks": masks, "detections": image}) + "\n")
            self._size = file.tell()


class Predictions:
    """The predictions of all processes, read image by image until they are closed.

    Once this exists, processes may begin to write new files.

    Args:
        folder: Folder of the writers.
        name: Name of the evaluation.
        ranks: Numbers of the processes, which have written everything.

    Raises:
        ValueError: If the file of a process is not there, as the folder is not shared.
    """

    def __init__(self, folder: Path, name: str, *, ranks: Iterable[int]):
        paths = [_file(folder, name, rank) for rank in ranks]
        for path in paths:
            _wait_for(path)
        self._stack = ExitStack()
        self._files: list[TextIO] = []
        for path in paths:
            self._files.append(self._stack.enter_context(path.open(encoding="utf-8")))
            path.unlink()  # an open file stays readable

    def close(self) -> None:
        """Close and delete the files."""
        self._stack.close()

    def _lines(self) -> Iterator[dict[str, Any]]:
        for file in self._files:
            file.seek(0)
            yield from map(json.loads, file)

    def __iter__(self) -> Iterator[list[Detection]]:
        """Yield the detections of one image after another."""
        return (line["detections"] for line in self._lines())

    def summarize(self, output: Path | None) -> tuple[int, int, bool]:
        """Count, and write everything as one file, completely or not at all."""
        images = total = 0
        masks = False
        with ExitStack() as stack:
            file = None
            if output:
                part = stack.enter_context(replacing(output))
                file = stack.enter_context(part.open("w", encoding="utf-8"))
                file.write("[")
            for line in self._lines():
                if file and line["detections"]:
                    file.write((", " if total else "") + json.dumps(line["detections"])[1:-1])
                images += 1
                total += len(line["detections"])
                masks = masks or line["masks"]
            if file:
                file.write("]")
        return images, total, masks


def _wait_for(path: Path) -> None:
    end = time.monotonic() + WAIT_FOR_FILES
    while not path.exists():
        if time.monotonic() > end:
            raise ValueError(
                f"{path} is not there: all processes must see the same folder, so set the "
                "evaluator's output_dir to one on a file system that all machines share"
            )
        time.sleep(0.05)


def cap_per_class(
    images: Callable[[], Iterable[list[Detection]]], limit: int
) -> Iterator[list[Detection]]:
    """Keep the highest scores of each class over the entire set (arXiv 2102.01066)."""
    scores: dict[int, array[float]] = defaultdict(lambda: array("d"))
    for image in images():
        for one in image:
            scores[one["category_id"]].append(one["score"])
    lowest: dict[int, float] = {}
    ties: dict[int, int] = {}  # how many of the lowest score are kept
    for category, values in scores.items():
        if len(values) > limit:
            found = np.frombuffer(values)
            lowest[category] = float(np.partition(found, -limit)[-limit])
            ties[category] = limit - int((found > lowest[category]).sum())

    def keep(one: Detection) -> bool:
        category = one["category_id"]
        if category not in lowest or one["score"] > lowest[category]:
            return True
        if one["score"] < lowest[category] or not ties[category]:
            return False
        ties[category] -= 1
        return True

    for image in images():
        yield [one for one in image if keep(one)]


def write_results(results: Any, file: Path) -> None:
    """Write an evaluator's results as JSON, which has no NaN: None."""
    write_text(file, json.dumps(_without_nan(results), indent=2) + "\n")


def _without_nan(results: Any) -> Any:
    if isinstance(results, dict):
        return {name: _without_nan(value) for name, value in results.items()}
    return None if results != results else results
