"""Demos: their jobs, videos with annotated frames, and what is said about predictions."""

import argparse
import contextlib
import importlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from eva_data.files import printable
from eva_data.inputs import Job, JobPlan, plan_jobs, written_name
from eva_data.label_files import georeference_of
from eva_data.progress import ProgressBar, progress
from eva_data.saving import require_free, require_replaceable
from eva_data.video.streams import CameraReader, VideoReader, VideoWriter
from eva_data.writing import FORMATS, entries_of
from eva_report.drawing import Pixels, score_text
from eva_report.terminal import TerminalHandler, counted
from eva_runs.commands import Result
from eva_runs.errors import print_error
from eva_runs.options import probability

P = TypeVar("P")
FILES_NAMED = 20  # with more, only the total is said
_CLASSES_NAMED = 10
_LEAST_SHARE = 0.005  # of the pixels


class Prediction(NamedTuple):
    """A class and its probability."""

    name: str
    probability: float


class DetectionSummary:
    """Lines at the end of a demo: what was found in each file, and in all of them.

    Args:
        threshold: Least score of what counts as found.
        objects: Whether objects are counted, and not the first class of each file.
    """

    def __init__(self, threshold: float, *, objects: bool = True) -> None:
        self._threshold, self._objects = threshold, objects
        self._lines: list[list[str]] = []  # of each file
        self._counts = Counter[str]()  # of all files
        self._nothing = 0  # files where nothing was found
        self._best: list[Prediction] = []  # of those
        self._videos: list[int] = []  # frames of each

    def add(
        self,
        name: str,
        classes: Iterable[str],
        *,
        best: Prediction | None = None,
        description: str = "",
        details: Sequence[str] = (),
        frames: int | None = None,
    ) -> None:
        """Count what was found in a file: the class of each object, or the first class of all.

        `best` is the best score where nothing was found, if it is known, and its class. The line of
        the file says `description`, or the classes with their numbers, with `details` below it; a
        video has `frames`.
        """
        counts = Counter(classes)
        summary = (
            description or listed_counts(counts)
            if counts
            else describe_nothing(self._threshold, best)
        )
        of_video = "" if frames is None else f"{counted(frames, 'frame')}: "
        self._lines.append([f"{name}: {of_video}{summary}", *details])
        self._counts += counts
        self._nothing += not counts
        self._best += [best] if best is not None and not counts else []
        self._videos += [] if frames is None else [frames]

    def add_first(self, name: str, first: Prediction, *, frames: int | None = None) -> None:
        """Count the most likely class of a file; see `add`."""
        classes = [first.name] if first.probability >= self._threshold else []
        self.add(name, classes, best=first, description=format_predictions([first]), frames=frames)

    def lines(self) -> list[str]:
        """Return a line for each file, up to `FILES_NAMED`, and one for all of them.

        Where nothing was found in any of them, there is that line alone.
        """
        files, counts = len(self._lines), self._counts
        lines = list[str]()
        if files == 1 or (counts and files <= FILES_NAMED):
            lines = list(chain.from_iterable(self._lines))
        best = max(self._best, key=lambda prediction: prediction.probability, default=None)
        if files > 1:
            total = listed_counts(counts) if counts else describe_nothing(self._threshold, best)
            if counts and self._objects:
                total = f"{counted(counts.total(), 'object')}: {total}"
            elif counts and self._nothing:
                total += f", nothing in {self._nothing:,}"
            lines = [*lines, f"{self._files()}: {total}"]
        if lines and not counts and self._threshold:  # the results are there by then
            lines = [*lines[:-1], f"{lines[-1]}: lower --score-threshold, with --overwrite"]
        return [printable(line) for line in lines]

    def _files(self) -> str:
        """Count files: `2 images and 1 video (300 frames)`."""
        videos = self._videos
        images = len(self._lines) - len(videos)
        parts = [counted(images, "image")] if images else []
        if videos:
            parts.append(f"{counted(len(videos), 'video')} ({counted(sum(videos), 'frame')})")
        return " and ".join(parts)


class ShareSummary:
    """Counts pixels of each named class, for the lines at the end of a demo."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [name.strip() for name in names]
        self._files: dict[str, Counter[int]] = {}

    def add(self, name: str, classes: NDArray[np.integer[Any]]) -> None:
        """Count (H, W) indexes of classes in an image, or in a further frame of a video."""
        indexes, pixels = np.unique(classes, return_counts=True)
        counts = dict(zip(indexes.tolist(), pixels.tolist(), strict=True))
        self._files.setdefault(name, Counter()).update(counts)

    def lines(self) -> list[str]:
        """Return a line for each file, up to `FILES_NAMED`, and one for all of them."""
        lines = [f"{name}: {self._listed(counts)}" for name, counts in self._files.items()]
        lines = lines if len(lines) <= FILES_NAMED else []
        if len(self._files) > 1:
            total = sum(self._files.values(), Counter[int]())
            lines.append(f"{len(self._files):,} files: {self._listed(total)}")
        return [printable(line) for line in lines]

    def _listed(self, counts: Counter[int]) -> str:
        """List classes, the largest first."""
        total = counts.total()
        shares = [(self._names[index], count / total) for index, count in counts.most_common()]
        seen = sum(share >= _LEAST_SHARE for _, share in shares)
        listed = [f"{name} {share:.0%}".replace("%", " %") for name, share in shares]
        listed = listed[: min(max(seen, 1), _CLASSES_NAMED)]
        more = len(shares) - len(listed)
        if more:
            listed.append(f"{more} more class{'es' if more > 1 else ''}")
        return ", ".join(listed)


def format_predictions(predictions: Sequence[Prediction]) -> str:
    """Write classes with their probabilities in a line: `jump 0.70, swim 0.20`."""
    return ", ".join(f"{_quoted(name)} {score_text(value)}" for name, value in predictions)


def describe_nothing(threshold: float, best: Prediction | None) -> str:
    """Say that no score is high enough, and which comes closest, with its class if it is known."""
    if best is None:
        return f"nothing at {threshold:g}"
    suffix = f" ({best.name})" if best.name else ""
    return f"nothing at {threshold:g}; the best score is {score_text(best.probability)}{suffix}"


def listed_counts(counts: Counter[str]) -> str:
    """List classes with their numbers, the most frequent first: `3 dog, 1 cat`."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    listed = [f"{count:,} {_quoted(name)}" for name, count in ordered[:_CLASSES_NAMED]]
    more = ordered[_CLASSES_NAMED:]
    if more:
        listed.append(f"{sum(count for _, count in more):,} of {len(more)} more classes")
    return ", ".join(listed)


def _quoted(name: str) -> str:
    """Quote the name of a class that begins like a number, as those of digits do."""
    return f'"{name}"' if name[:1].isdecimal() else name


def draw_video(job: Job, draw: Callable[[Pixels, int], Pixels]) -> tuple[int, str | None]:
    """Annotate all frames of a video, or of a camera until Ctrl-C, and write them as a video.

    `draw` takes a frame (H, W, 3) and its number, and returns the annotated one, of the same size
    for all frames.

    Returns:
        Number of frames, and an error message if it could not be read, or not to its end.
    """
    reader: Any = CameraReader(job.source) if job.is_camera else VideoReader(job.source)
    frames = iter(reader)
    first = next(frames, None)  # then the number of frames is known
    done = -1
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(VideoWriter(target)) for target in job.targets]
        bar = ProgressBar(reader.count, title=job.name, unit="frame", leave=False)
        stack.enter_context(bar)
        for done, frame in enumerate(chain([first] if first else [], frames)):
            drawn = draw(frame.rgb, done)
            for writer in writers:
                writer.add(drawn, frame)
            bar.update()
    return done + 1, reader.error


def describe_error(job: Job, error: Exception) -> str:
    """Write an error with the file of its job."""
    message = str(error)
    return message if str(job.source) in message else f"{job.source}: {message}"


def run_jobs(jobs: Sequence[Job], do: Callable[[Job], str | None], *, title: str) -> list[str]:
    """Do jobs one after another; `do` returns or raises (ValueError) why a file cannot be used.

    Returns:
        The reasons, for the end of the program; after Ctrl-C they are said at once.
    """
    problems: list[str] = []
    try:
        for job in progress(jobs, total=len(jobs), title=title, unit="file"):
            try:
                problems += filter(None, [do(job)])
            except ValueError as error:
                problems.append(describe_error(job, error))
    except KeyboardInterrupt:
        for problem in problems:
            print_error(printable(problem))
        raise
    return problems


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Add `--score-threshold`, `--track` and `--to`."""
    help_text = "least score of what is shown (default: the best of the run's evaluation, or 0.5)"
    parser.add_argument("--score-threshold", type=probability, help=help_text)
    help_text = "follow objects of videos: ids, also in a MOT text file beside each video"
    parser.add_argument("--track", action="store_true", help=help_text)
    add_format(parser)


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add `--to`."""
    help_text = (
        "also write OUTPUT/FORMAT, a dataset of the images (not of videos) to edit or train on"
    )
    parser.add_argument("--to", choices=FORMATS, dest="form", help=help_text)


def plan_detection(args: argparse.Namespace, inputs: list[Path]) -> JobPlan:
    """Plan the jobs of a detector; to `track` images is an error, as is a missing package."""
    output = args.output
    planned = plan_jobs(
        inputs, targets=lambda name: [output / written_name(name)], results=[output], cameras=True
    )
    for job in planned.jobs if args.track else ():
        if not (job.is_video or job.is_camera):
            raise ValueError(f"--track is for videos, and {job.source} is an image")
        importlib.import_module("trackers")
    return planned


def require_format(args: argparse.Namespace, jobs: Sequence[Job] = ()) -> None:
    """Refuse a dataset of `--to` that is there, or that could have none of the jobs' images.

    To overwrite a folder with other files is refused, too.
    """
    form = getattr(args, "form", None)
    if not form:
        return
    require_replaceable(args.output / form, entries_of(form), overwrite=args.overwrite)
    images = [job.source for job in jobs if not (job.is_video or job.is_camera)]
    if jobs and not images:
        raise ValueError(f"--to {form} writes a dataset of images, and {jobs[0].source} is a video")
    if form == "geojson" and images and not any(map(georeference_of, images)):
        raise ValueError(f"--to {form} needs georeferenced images, and {images[0]} is none")


def run_demo(
    args: argparse.Namespace,
    *,
    prepare: Callable[[], JobPlan],
    load: Callable[[argparse.Namespace], P],
    work: Callable[[argparse.Namespace, P, JobPlan], list[str]],
    results: Sequence[Path] = (),
) -> int:
    """Process every readable input and report the rest; the terminal gets warnings alone.

    `prepare` plans and checks, `load` makes a predictor if there are jobs; `work` does the jobs
    with it, and returns a sentence for each file that could not be used. Besides the targets of the
    jobs, files `results` are written, and the dataset of `--to`, of demos that have it.

    Returns:
        1, and one sentence for each input that could not be used, or 0; with the JSON file of
        `results`, if there is one.
    """
    plan = prepare()
    targets = [target for job in plan.jobs for target in job.targets]
    require_free([*targets, *results], overwrite=args.overwrite)
    require_format(args, plan.jobs)
    log_to_terminal()
    problems = list(plan.problems)
    if plan.jobs:
        problems += work(args, load(args), plan)
    elif len(problems) == 1:
        raise ValueError(problems[0])
    if problems:
        print_error(printable("\n  ".join(["not everything could be read:", *problems])))
    table = next((file for file in results if file.suffix == ".json"), None)
    return Result(table, int(bool(problems)))


def log_to_terminal() -> None:
    """Let warnings of the log reach the terminal, and what is meant for it, and nothing else."""
    logging.basicConfig(level=logging.INFO, handlers=[TerminalHandler()])
