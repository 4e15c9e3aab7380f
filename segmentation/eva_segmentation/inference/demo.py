"""Command line that segments images, folders of them, videos and cameras.

Everything heavy is imported where it is used, so that `--help` and mistakes in the arguments
answer at once.
"""

import argparse
import io
import logging
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES, replacing
from eva_data.images import save_image
from eva_data.inputs import Job, Plan, plan_jobs, written_name
from eva_openmmlab.command_line import Model, demo_parser, named_model
from eva_report.demos import do_jobs, refuse, run_demo
from eva_runs.commands import say
from eva_runs.options import probability

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from eva_report.demos import FoundShares
    from eva_segmentation.inference.predictor import Predictor

logger = logging.getLogger(__name__)

ADE20K_CLASSES = 150
TASK = "segmentation"

_EPILOG = """
OUTPUT receives, for each picture and under its name:
    overlays/  the picture with the classes painted over, and a legend
    labels/    a PNG of one byte a pixel with the labels of the data set, as label maps for training

Of a video or camera it receives overlays/ alone, as a video without a legend. The shares of the
classes are said at the end. Files that cannot be read are named and skipped, and the exit code is
then 1.

Examples:

    python segmentation/demo.py output/semantic holiday/ --output output/pictures

    python segmentation/demo.py segmentation/configs/ade20k/mask2former_eva_g_896_20k.py \\
        eva_sem_seg_mask2former_ade_ss61p5_ms62p3.pth holiday/ film.mp4 --output output/pictures

What the ADE20K test server takes, a ZIP of PNG files with the values 1 to 150:

    ... CONFIG WEIGHTS release_test/testing --output output/test --ade20k-submission test.zip
"""


def plan(inputs: Sequence[Path], output: Path) -> Plan:
    """List what is to be done.

    Args:
        inputs: Images, videos, folders, patterns, numbers of cameras; folders are searched through,
            without hidden files.
        output: Folder for the results; earlier results in it are not inputs.

    Returns:
        The jobs in order, with overlay and labels to write, and a complaint for each input that
        is not there or is empty.

    Raises:
        ValueError: If two inputs would be written to one file, or an input would be overwritten.
    """
    overlays, labels = output / "overlays", output / "labels"

    def targets(name: Path) -> list[Path]:
        drawn = overlays / written_name(name)
        return [drawn] if drawn.suffix == ".mp4" else [drawn, labels / name.with_suffix(".png")]

    return plan_jobs(
        inputs,
        suffixes=DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES,
        targets=targets,
        results=[overlays, labels],
        kinds="images and no videos",
        cameras=True,
    )


def run(
    predictor: "Predictor",
    jobs: Sequence[Job],
    *,
    opacity: float = 0.5,
    submission: Path | None = None,
) -> list[str]:
    """Do the jobs, with a progress bar, and say what was found.

    Args:
        predictor: The segmentor.
        jobs: Jobs from `plan`.
        opacity: Opacity of the paint in overlays.
        submission: ZIP file to write for the ADE20K test server, if all could be segmented.

    Returns:
        A complaint for each file that could not be read or segmented.
    """
    from eva_report.demos import FoundShares

    found = FoundShares(predictor.names)

    def do(job: Job) -> str | None:
        try:
            if job.is_video or job.is_camera:
                return _video(predictor, job, opacity, found)
            found.add(job.name, _picture(predictor, job, opacity))
        except ValueError as error:
            text = str(error)
            return text if str(job.source) in text else f"{job.source}: {text}"
        return None

    problems = do_jobs(jobs, do, title="segmenting")
    if submission and not problems:
        write_submission(submission, [job for job in jobs if len(job.targets) > 1])
    for line in found.lines():
        say(line)
    return problems


def write_submission(archive: Path, jobs: Sequence[Job]) -> None:
    """Write the file for the ADE20K test server from the label maps of jobs.

    Args:
        archive: ZIP file, of PNG files with the values 1 to 150.
        jobs: Jobs of pictures that are done.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    from PIL import Image

    with replacing(archive) as part, zipfile.ZipFile(part, "w") as file:  # PNG is compressed
        for job in jobs:
            stream = io.BytesIO()
            with Image.open(job.targets[1]) as labels:
                values = Image.frombytes("L", labels.size, labels.tobytes())  # without colours
            values.save(stream, format="PNG")
            file.writestr(f"{job.source.stem}.png", stream.getvalue())


def _picture(predictor: "Predictor", job: Job, opacity: float) -> "NDArray[np.uint8]":
    """Segment a picture; returns its classes."""
    from PIL import Image

    from eva_data.images import read_rgb
    from eva_report.drawing import label_image, overlay, with_legend

    rgb = read_rgb(job.source, upright=True)
    classes = predictor.classes_of(rgb)
    painted = overlay(rgb, classes, predictor.colors, opacity=opacity)
    painted = with_legend(painted, classes, predictor.names, predictor.colors)
    labels = label_image(classes, predictor.labels, predictor.colors)
    for target, picture in zip(job.targets, (Image.fromarray(painted), labels), strict=True):
        save_image(picture, target)
    return classes


def _video(predictor: "Predictor", job: Job, opacity: float, found: "FoundShares") -> str | None:
    from eva_report.demos import draw_video
    from eva_report.drawing import overlay

    def draw(rgb: "NDArray[np.uint8]", index: int) -> "NDArray[np.uint8]":
        del index
        classes = predictor.classes_of(rgb)
        found.add(job.name, classes)
        return overlay(rgb, classes, predictor.colors, opacity=opacity)

    _, problem = draw_video(job, draw)
    return problem


def _parser() -> argparse.ArgumentParser:
    parser = demo_parser("Segment images, folders of them, videos and cameras.", _EPILOG, task=TASK)
    add = parser.add_argument
    add("--tta", action="store_true", help="several scales and flips, by the config's tta_pipeline")
    add(
        "--opacity",
        type=probability,
        default=0.5,
        help="opacity of the paint, 0 to 1 (default: %(default)s)",
    )
    add("--ade20k-submission", type=Path, metavar="ZIP", help="also write a file for the server")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `demo.py`.

    Args:
        arguments: Arguments in place of those of the process.
    """
    parser = _parser()
    args = parser.parse_intermixed_args(arguments)
    archive = args.ade20k_submission

    def prepare() -> Plan:
        args.model = named_model(args.words, task=TASK, named=args.weights)
        planned = plan(args.model.inputs, args.output)
        if archive:
            _check_submission(archive, planned.jobs)
        if planned.jobs:
            from eva_backbone.checkpoints.registry import resolve_source

            resolve_source(args.model.weights)
        return planned

    run_demo(
        parser,
        prepare=prepare,
        work=lambda planned: _segment(parser, args, planned),
        overwrite=args.overwrite,
        results=[archive] if archive else [],
    )


def _check_submission(archive: Path, jobs: Sequence[Job]) -> None:
    if not archive.absolute().parent.is_dir():
        raise ValueError(f"{archive} is not in an existing folder: name a file in one")
    stems: dict[str, Path] = {}
    for job in jobs:
        other = stems.setdefault(job.source.stem, job.source)
        if other != job.source:
            raise ValueError(f"{other} and {job.source} have one name on the ADE20K server")


def _segment(parser: argparse.ArgumentParser, args: argparse.Namespace, planned: Plan) -> list[str]:
    complete = not planned.problems
    archive = args.ade20k_submission if complete else None
    model: Model = args.model
    warnings.filterwarnings("ignore", message="torch.meshgrid")  # inside mmsegmentation
    from eva_segmentation.inference.predictor import Predictor

    try:
        predictor = Predictor.from_config(
            model.config, weights=model.weights, device=args.device, multi_scale=args.tta
        )
        if archive and len(predictor.names) != ADE20K_CLASSES:
            raise ValueError(
                f"--ade20k-submission needs a model of {ADE20K_CLASSES} classes; that of "
                f"{model.config} has {len(predictor.names)}"
            )
    except (ValueError, FileNotFoundError) as error:
        refuse(parser, error)
    problems = run(predictor, planned.jobs, opacity=args.opacity, submission=archive)
    say(f"output   {args.output} (overlays and labels)")
    if args.ade20k_submission and (problems or not complete):
        logger.error("%s was not written, because pictures are missing", args.ade20k_submission)
    return problems
