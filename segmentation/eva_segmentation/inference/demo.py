"""Command line that segments images and folders of them.

Everything heavy is imported where it is used, so that `--help` and mistakes in the arguments
answer at once.
"""

import argparse
import io
import logging
import sys
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from eva_data.files import UnwritableError, find_files, make_folder, replacing
from eva_data.suffixes import PICTURES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from eva_segmentation.inference.predictor import Predictor

logger = logging.getLogger(__name__)

ADE20K_CLASSES = 150
_KEPT = (".jpg", ".jpeg", ".png")  # overlays keep these formats; others become PNG

_EPILOG = """
OUTPUT receives, for each picture and under its name:
    overlays/  the picture with the classes painted over, and a legend
    labels/    a PNG of one byte a pixel with the labels of the data set, as label maps for training

Files that cannot be read are named and skipped, and the exit code is then 1.

Examples:

    python segmentation/demo.py segmentation/configs/ade20k/mask2former_eva_g_896_20k.py \\
        eva_sem_seg_mask2former_ade_ss61p5_ms62p3.pth holiday/ --output output/pictures

What the ADE20K test server takes, a ZIP of PNG files with the values 1 to 150:

    ... CONFIG WEIGHTS release_test/testing --output output/test --ade20k-submission test.zip
"""


class Job(NamedTuple):
    """A picture, and what is written of it."""

    source: Path
    overlay: Path
    labels: Path


def plan(inputs: Sequence[Path], output: Path) -> tuple[list[Job], list[str]]:
    """List what is to be done.

    Args:
        inputs: Images and folders; folders are searched through, without hidden files.
        output: Folder for the results; earlier results in it are no input.

    Returns:
        The jobs in order, and a complaint for each input that is not there or is empty.

    Raises:
        ValueError: If two inputs would be written to one file.
    """
    found: list[tuple[Path, Path]] = []  # a picture, and its name below the output
    problems: list[str] = []
    for path in inputs:
        if path.is_dir():
            files = _files_below(path, output)
            found += ((file, file.relative_to(path)) for file in files)
            if not files:
                problems.append(f"{path} holds no images")
        elif path.exists():
            found.append((path, Path(path.name)))
        else:
            problems.append(f"there is no {path}")
    taken: dict[Path, Path] = {}  # a file of the output -> the picture that it is made of
    jobs = []
    for source, name in found:
        kept = source.suffix.lower() in _KEPT
        overlay = output / "overlays" / (name if kept else name.with_name(f"{name.name}.png"))
        job = Job(source, overlay, output / "labels" / name.with_suffix(".png"))
        for target in (job.labels, job.overlay):
            if target in taken:
                raise ValueError(
                    f"{taken[target]} and {source} would both become {target}: give the folder "
                    "that holds both, or two commands with two outputs"
                )
            taken[target] = source
        jobs.append(job)
    return jobs, problems


def _files_below(folder: Path, output: Path) -> list[Path]:
    results = [output / "overlays", output / "labels"]
    return [
        file
        for file in sorted(folder / name for name in find_files(folder, PICTURES))
        if not any(file.resolve().is_relative_to(result.resolve()) for result in results)
    ]


class Submission:
    """The ZIP file for the ADE20K test server; it appears when all is well.

    Args:
        file: To write.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.complete = False

    def __enter__(self) -> "Submission":
        self._replacing = replacing(self.file)
        # PNG files are compressed already
        self._archive = zipfile.ZipFile(self._replacing.__enter__(), "w")
        return self

    def add(self, source: Path, classes: "NDArray[np.uint8]") -> None:
        """Add the prediction (H, W) of a picture: indices plus 1, at the picture's size."""
        from PIL import Image

        stream = io.BytesIO()
        Image.fromarray(classes + 1).save(stream, format="PNG")
        self._archive.writestr(f"{source.stem}.png", stream.getvalue())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and not self.complete:
            kind, error = ValueError, ValueError("pictures are missing")
        try:
            self._archive.close()
        finally:
            self._replacing.__exit__(kind, error, trace)


def run(
    predictor: "Predictor",
    jobs: Sequence[Job],
    *,
    opacity: float = 0.5,
    submission: Path | None = None,
) -> list[str]:
    """Do the jobs, with a progress bar.

    Args:
        predictor: The segmentor.
        jobs: From `plan`.
        opacity: Of the paint in overlays.
        submission: ZIP file to write for the ADE20K test server.

    Returns:
        A complaint for each file that could not be read or segmented.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from eva_data.pictures import read_rgb

    problems: list[str] = []
    with logging_redirect_tqdm(), ExitStack() as stack:
        archive = stack.enter_context(Submission(submission)) if submission else None
        for job in tqdm(jobs, desc="segmenting", unit="picture", dynamic_ncols=True):
            try:
                rgb = read_rgb(job.source, upright=True)
                classes = predictor(rgb)
            except ValueError as error:
                text = str(error)
                problem = text if str(job.source) in text else f"{job.source}: {text}"
                logger.error("%s", problem)
                problems.append(problem)
                continue
            _write(job, rgb, classes, predictor, opacity)
            if archive:
                archive.add(job.source, classes)
        if archive and not problems:
            archive.complete = True
    return problems


def _write(
    job: Job,
    rgb: "NDArray[np.uint8]",
    classes: "NDArray[np.uint8]",
    predictor: "Predictor",
    opacity: float,
) -> None:
    from PIL import Image

    from eva_segmentation.inference.drawing import label_image, overlay, with_legend

    painted = overlay(rgb, classes, predictor.colors, opacity=opacity)
    painted = with_legend(painted, classes, predictor.names, predictor.colors)
    labels = label_image(classes, predictor.labels, predictor.colors)
    for target, picture in ((job.overlay, Image.fromarray(painted)), (job.labels, labels)):
        make_folder(target.parent)
        with replacing(target) as part:
            picture.save(part, quality=95)  # no meaning for PNG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description="Segment images and folders of them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("config", type=Path, help="config file, or the one that a run saved")
    add("weights", help="name of an official file, or path, of a whole segmentor")
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="image or folder of images")
    add("--output", required=True, type=Path, metavar="DIR", help="folder for the results")
    add("--tta", action="store_true", help="several scales and flips, by the config's tta_pipeline")
    add("--opacity", type=_share, default=0.5, help="of the paint, 0 to 1 (default: %(default)s)")
    add("--device", help='"cuda", "cuda:1" or "cpu" (default: the GPU if there is one)')
    add("--ade20k-submission", type=Path, metavar="ZIP", help="also write a file for the server")
    add("--overwrite", action="store_true", help="replace earlier results")
    return parser


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], got {text}")
    return value


def _demand_free(targets: Sequence[Path], *, overwrite: bool) -> None:
    for target in targets:
        if file := next((folder for folder in target.parents if folder.is_file()), None):
            raise ValueError(f"{file} is a file and would have to be a folder")
        if target.is_dir():
            raise ValueError(f"{target} is a folder and would have to be a file")
        if target.exists() and not overwrite:
            raise ValueError(f"{target} is there already: give --overwrite or another name")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `demo.py`.

    Args:
        arguments: In place of those of the process.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    archive = args.ade20k_submission
    try:
        jobs, problems = plan(args.inputs, args.output)
        targets = [target for job in jobs for target in (job.overlay, job.labels)]
        _demand_free([*targets, *([archive] if archive else [])], overwrite=args.overwrite)
        if archive:
            _check_submission(archive, jobs)
    except ValueError as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for problem in problems:
        logger.error("%s", problem)
    if jobs:
        problems += _segment(parser, args, jobs, complete=not problems)
    if problems:
        text = "\n".join(f"  {problem}" for problem in problems)
        sys.exit(f"not everything could be read:\n{text}")


def _check_submission(archive: Path, jobs: Sequence[Job]) -> None:
    if not archive.absolute().parent.is_dir():
        raise ValueError(f"{archive} is no place for a file: name one in an existing folder")
    stems: dict[str, Path] = {}
    for job in jobs:
        other = stems.setdefault(job.source.stem, job.source)
        if other != job.source:
            raise ValueError(f"{other} and {job.source} have one name on the ADE20K server")


def _segment(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    jobs: Sequence[Job],
    *,
    complete: bool,
) -> list[str]:
    from eva_segmentation.inference.predictor import Predictor

    archive = args.ade20k_submission if complete else None
    try:
        predictor = Predictor.from_config(
            args.config, weights=args.weights, device=args.device, multi_scale=args.tta
        )
        if archive and len(predictor.names) != ADE20K_CLASSES:
            raise ValueError(
                f"--ade20k-submission needs a model of {ADE20K_CLASSES} classes; that of "
                f"{args.config} has {len(predictor.names)}"
            )
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    try:
        problems = run(predictor, jobs, opacity=args.opacity, submission=archive)
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports Ctrl-C
    except UnwritableError as error:
        sys.exit(f"demo.py: {error}")
    logger.info("Results are in %s", args.output)
    if args.ade20k_submission and (problems or not complete):
        logger.error("%s was not written, because pictures are missing", args.ade20k_submission)
    return problems
