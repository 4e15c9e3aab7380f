"""Command line that segments images, folders of them, videos and cameras.

The frameworks are imported once the arguments are known to be right.
"""

import argparse
import io
import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from eva_data.images import save_image
from eva_data.inputs import Job, JobPlan, plan_jobs, written_name
from eva_data.saving import replace_file
from eva_data.writing import regions_of, writing_dataset
from eva_openmmlab.run_folder import require_config_of_run
from eva_report import demo_command as demo
from eva_report.demos import ShareSummary, add_format, draw_video, run_jobs
from eva_report.drawing import Pixels, label_image, overlay, with_legend
from eva_runs.commands import echo
from eva_runs.options import probability

if TYPE_CHECKING:
    from eva_segmentation.inference.predictor import Predictor

logger = logging.getLogger(__name__)

ADE20K_CLASSES = 150

_EPILOG = """
OUTPUT receives, for each image and under its name:
    overlays/  the image with the classes painted over, and a legend
    labels/    a PNG of one byte a pixel with the labels of the dataset, as label maps for training

Of a video or camera it receives overlays/ alone, as a video without a legend. The shares of the
classes are said at the end. Files that cannot be read are named and skipped, and the exit code is
then 1.

Examples:

    python segmentation/demo.py output/semantic holiday/ --output output/images

    python segmentation/demo.py segmentation/configs/ade20k/mask2former_eva_g_896_20k.py \\
        eva_sem_seg_mask2former_ade_ss61p5_ms62p3.pth holiday/ film.mp4 --output output/images

What the ADE20K test server takes, a ZIP of PNG files with the values 1 to 150:

    ... CONFIG WEIGHTS release_test/testing --output output/test --ade20k-submission test.zip
"""


def _make_parser() -> argparse.ArgumentParser:
    parser = demo.demo_parser(
        "Segment images, folders of them, videos and cameras.", _EPILOG, task="segmentation"
    )
    add = parser.add_argument
    add("--tta", action="store_true", help="several scales and flips, by the config's tta_pipeline")
    add(
        "--opacity",
        type=probability,
        default=0.5,
        help="opacity of the paint, 0 to 1 (default: %(default)s)",
    )
    add_format(parser)
    add("--ade20k-submission", type=Path, metavar="ZIP", help="also write a file for the server")
    return parser


def _plan(args: argparse.Namespace, inputs: list[Path]) -> JobPlan:
    overlays, labels = args.output / "overlays", args.output / "labels"
    made = [overlays, labels, args.output / (args.form or "labels")]

    def targets(name: Path) -> list[Path]:
        drawn = overlays / written_name(name)
        return [drawn] if drawn.suffix == ".mp4" else [drawn, labels / name.with_suffix(".png")]

    planned = plan_jobs(inputs, targets=targets, results=made, cameras=True)
    archive = args.ade20k_submission
    stems: dict[str, Path] = {}
    for job in planned.jobs if archive else ():
        other = stems.setdefault(job.source.stem, job.source)
        if other != job.source:
            raise ValueError(f"{other} and {job.source} have one name on the ADE20K server")
    return planned


def _load(args: argparse.Namespace) -> "Predictor":
    predictor: Predictor = demo.load(args, multi_scale=args.tta)
    if args.ade20k_submission and len(predictor.names) != ADE20K_CLASSES:
        raise ValueError(
            f"--ade20k-submission needs a model of {ADE20K_CLASSES} classes; that of "
            f"{args.config} has {len(predictor.names)}"
        )
    return predictor


def _segment(args: argparse.Namespace, predictor: "Predictor", planned: JobPlan) -> list[str]:
    """Do the jobs, and say what was found; return an error for each that could not be done."""
    summary, names = ShareSummary(predictor.names), predictor.names

    def paint(image: Any, job: Job) -> tuple[Pixels, Pixels]:
        classes = predictor.predict(image)
        summary.add(job.name, classes)
        rgb = predictor.draw_image(image)
        return classes, overlay(rgb, classes, predictor.colors, opacity=args.opacity)

    def do(job: Job) -> str | None:
        if job.is_video or job.is_camera:
            return draw_video(job, lambda rgb, index: paint(rgb, job)[1])[1]
        classes, painted = paint(predictor.read_image(job.source), job)
        objects = regions_of(classes, len(names)) if args.form else []
        about = {"name": job.name, "source": job.source, "size": classes.shape}
        add_labels({**about, "objects": objects})
        painted = with_legend(painted, classes, names, predictor.colors)
        labels = label_image(classes, predictor.labels, predictor.colors)
        for target, image in zip(job.targets, (Image.fromarray(painted), labels), strict=True):
            save_image(image, target)
        return None

    categories = dict(enumerate(names))
    with writing_dataset(args.output, args.form, categories, regions=True) as add_labels:
        problems = run_jobs(planned.jobs, do, title="segmenting")
    archive = args.ade20k_submission
    if archive and not (problems or planned.problems):
        _write_submission(archive, [job for job in planned.jobs if len(job.targets) > 1])
    elif archive:
        logger.error("%s was not written, because images are missing", archive)
    also = f", {args.form}/" if args.form else ""
    for line in (*summary.lines(), f"output   {args.output} (overlays{also} and labels)"):
        echo(line)
    return problems


def _write_submission(archive: Path, jobs: Sequence[Job]) -> None:
    """Write the ZIP file for the ADE20K test server from the label maps of images."""
    with replace_file(archive) as part, zipfile.ZipFile(part, "w") as file:  # PNG is compressed
        for job in jobs:
            stream = io.BytesIO()
            with Image.open(job.targets[1]) as labels:
                values = Image.frombytes("L", labels.size, labels.tobytes())  # without colours
            values.save(stream, format="PNG")
            file.writestr(f"{job.source.stem}.png", stream.getvalue())


main = demo.make_command(
    _make_parser,
    plan=_plan,
    load=_load,
    work=_segment,
    result=lambda args: args.ade20k_submission,
    config_of_run=require_config_of_run,
)
