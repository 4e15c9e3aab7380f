"""Command line that detects objects in images and folders of them.

Everything heavy is imported where it is used, so that `--help` and mistakes in the arguments
answer at once.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_data.commands import program_name
from eva_data.files import make_folder
from eva_data.inputs import Job, Plan, do_jobs, plan_jobs, run_demo, save_picture, written_name
from eva_data.options import add_download_option, probability
from eva_data.suffixes import SHOWN_PICTURES

if TYPE_CHECKING:
    from eva_mmdetection.inference.predictor import Predictor

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.json"

_EPILOG = """
OUTPUT receives each picture under its own name, those of a folder as in the folder, and
predictions.json: images, categories and annotations in COCO's format, with a score each.
Files that cannot be read are named and skipped, and the exit code is then 1.

Example:

    python mmdetection/demo.py coco/cascade_mask_rcnn_eva_g_1536 eva_coco_seg.pth \\
        photo.jpg holiday/ --output output/pictures
"""


def plan(inputs: Sequence[Path], output: Path) -> Plan:
    """List what is to be done.

    Args:
        inputs: Images and folders; folders are searched through, without hidden files.
        output: Folder for the results; what lies below it is not an input.

    Returns:
        The jobs in order, and a complaint for each input that is not there or is empty.

    Raises:
        ValueError: If two inputs would be written to one file, or an input would be overwritten.
    """
    return plan_jobs(
        inputs,
        suffixes=SHOWN_PICTURES,
        targets=lambda name: [output / written_name(name)],
        results=[output],
    )


def run(predictor: "Predictor", jobs: Sequence[Job], output: Path) -> list[str]:
    """Do the jobs, with a progress bar.

    Args:
        predictor: The detector.
        jobs: Jobs from `plan`.
        output: Folder for predictions.json.

    Returns:
        A complaint for each file that could not be read.
    """
    from PIL import Image

    from eva_data.coco.predictions import writing_predictions
    from eva_data.pictures import UnreadableImageError, read_rgb

    def do(job: Job) -> str | None:
        try:
            rgb = read_rgb(job.source, upright=True)
        except ValueError as error:
            return str(error)
        try:
            found = predictor(rgb)
        except UnreadableImageError as error:
            return f"{job.source}: {error}"
        height, width = rgb.shape[:2]
        file.add(as_coco(found), file_name=job.name, height=height, width=width)
        save_picture(Image.fromarray(predictor.draw(rgb, found)), job.targets[0])
        return None

    make_folder(output)
    with writing_predictions(output / PREDICTIONS, predictor.categories) as file:
        return do_jobs(jobs, do, title="detecting")


def as_coco(found: Any) -> list[dict[str, Any]]:
    """Write detections as COCO's format has them, with the index of the class as `category_id`.

    Args:
        found: Detections as `Predictor` returns them.
    """
    import numpy as np
    import pycocotools.mask as mask_api

    detections: list[dict[str, Any]] = []
    boxes, scores, labels = (found[name].tolist() for name in ("bboxes", "scores", "labels"))
    for (x0, y0, x1, y1), score, label in zip(boxes, scores, labels, strict=True):
        box = [x0, y0, x1 - x0, y1 - y0]
        detections.append({"category_id": label, "bbox": box, "score": score})
    if "masks" in found:
        for one, mask in zip(detections, found.masks.numpy(), strict=True):
            code = mask_api.encode(np.asfortranarray(mask, np.uint8))
            one["segmentation"] = {**code, "counts": code["counts"].decode()}
    return detections


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("demo.py"),
        description="Detect objects in images and folders of them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("config", help="name of a recipe, or config file, such as the one that a run saved")
    add("weights", help="name of an official file, or path, of a complete detector")
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="image or folder of images")
    add("--output", required=True, type=Path, metavar="DIR", help="folder for the results")
    add(
        "--score-threshold",
        type=probability,
        default=0.5,
        help="least score of what is shown and written (default: %(default)s)",
    )
    add_download_option(parser)
    add("--device", help='"cuda", "cuda:1" or "cpu" (default: the GPU if there is one)')
    add("--overwrite", action="store_true", help="replace earlier results")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `demo.py`.

    Args:
        arguments: Arguments in place of those of the process.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    run_demo(
        parser,
        prepare=lambda: plan(args.inputs, args.output),
        work=lambda planned: _detect(parser, args, planned.jobs),
        overwrite=args.overwrite,
        results=[args.output / PREDICTIONS],
    )


def _detect(
    parser: argparse.ArgumentParser, args: argparse.Namespace, jobs: Sequence[Job]
) -> list[str]:
    from eva_mmdetection.inference.predictor import Predictor

    try:
        predictor = Predictor.from_config(
            args.config,
            weights=args.weights,
            score_threshold=args.score_threshold,
            device=args.device,
        )
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    problems = run(predictor, jobs, args.output)
    logger.info("Results are in %s", args.output)
    return problems


if __name__ == "__main__":
    main()
