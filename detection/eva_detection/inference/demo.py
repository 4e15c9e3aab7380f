"""Command line that detects objects in images, folders and videos.

Everything heavy is imported where it is used, so that `--help` and mistakes in the arguments
answer at once.
"""

import argparse
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eva_detection.inference.drawing import PredictionsFile
    from eva_detection.inference.predictor import Predictor

from eva_data.commands import program_name
from eva_data.files import make_folder
from eva_data.inputs import Job, Plan, do_jobs, plan_jobs, run_demo, save_picture, written_name
from eva_data.options import add_download_option, probability
from eva_data.suffixes import SHOWN_PICTURES, VIDEOS
from eva_detection.inference.memory import MemoryLimitError, parse_bytes

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.json"

_EPILOG = """
OUTPUT receives each picture and video under its own name, those of a folder as in the folder, and
predictions.json: images, categories and annotations in COCO's format, with a score each.
Files that cannot be read are named and skipped, and the exit code is then 1.

Examples:

    python detection/demo.py --config-file \\
        detection/configs/coco/cascade_mask_rcnn_vitdet_eva_g_1536.py \\
        --weights eva_coco_seg.pth --output output/pictures photo.jpg holiday/ film.mp4

    ... --opts model.roi_heads.maskness_thresh=0.5 model.backbone.square_pad=1024
"""


def plan(inputs: Sequence[Path], output: Path) -> Plan:
    """List what is to be done.

    Args:
        inputs: Files and folders; folders are searched through, without hidden files.
        output: Folder for the results; what lies below it is not an input.

    Returns:
        The jobs in order, and a complaint for each input that is not there or is empty.

    Raises:
        ValueError: If two inputs would be written to one file, or an input would be overwritten.
    """
    return plan_jobs(
        inputs,
        suffixes=SHOWN_PICTURES | VIDEOS,
        targets=lambda name: [output / written_name(name)],
        results=[output],
        kinds="images and no videos",
    )


def run(predictor: "Predictor", jobs: Sequence[Job], output: Path) -> list[str]:
    """Do the jobs, with a progress bar.

    Args:
        predictor: The detector.
        jobs: Jobs from `plan`.
        output: Folder for predictions.json.

    Returns:
        A complaint for each file that could not be read, or not to its end, or is too large.
    """
    from eva_detection.inference.drawing import writing_predictions

    def do(job: Job) -> str | None:
        work = _video if job.is_video else _picture
        try:
            return work(predictor, job, predictions)
        except MemoryLimitError as error:
            return f"{job.source} is too large: {error}"

    make_folder(output)
    with writing_predictions(output / PREDICTIONS, predictor.categories) as predictions:
        return do_jobs(jobs, do, title="detecting")


def _picture(predictor: "Predictor", job: Job, predictions: "PredictionsFile") -> str | None:
    from PIL import Image

    from eva_data.pictures import read_rgb
    from eva_detection.inference.drawing import draw

    try:
        image = read_rgb(job.source, upright=True)
    except ValueError as error:
        return str(error)
    instances = predictor.with_encoded_masks(image)
    predictions.add(instances, file_name=job.name)
    try:
        picture = Image.fromarray(draw(image, instances, predictor.class_names))
    except ValueError as error:
        return f"{job.source}: {error}"
    save_picture(picture, job.targets[0])
    return None


def _video(predictor: "Predictor", job: Job, predictions: "PredictionsFile") -> str | None:
    from tqdm import tqdm

    from eva_data.video.frame_stream import VideoReader
    from eva_data.video.writer import VideoWriter
    from eva_detection.inference.drawing import draw

    make_folder(job.targets[0].parent)
    reader = VideoReader(job.source)
    with (
        VideoWriter(job.targets[0]) as writer,
        tqdm(desc=job.name, unit="frame", leave=False) as bar,
    ):
        for index, frame in enumerate(reader):
            bar.total = reader.count
            instances = predictor.with_encoded_masks(frame.rgb)
            predictions.add(instances, file_name=job.name, frame=index)
            writer.add(draw(frame.rgb, instances, predictor.class_names), frame)
            bar.update()
    return reader.error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("demo.py"),
        description="Detect objects in images, folders of them and videos.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="image, video or folder of both"
    )
    parser.add_argument("--config-file", required=True, type=Path, help="the detector's recipe")
    parser.add_argument(
        "--weights", required=True, help="name of an official file, or path, of a complete detector"
    )
    add_download_option(parser)
    parser.add_argument("--output", required=True, type=Path, help="folder for the results")
    parser.add_argument(
        "--score-threshold",
        type=probability,
        default=0.5,
        help="least score of what is shown and written (default: %(default)s)",
    )
    parser.add_argument("--device", help='"cuda", "cuda:1" or "cpu" (default: from the recipe)')
    parser.add_argument(
        "--max-memory",
        type=_memory,
        metavar="SIZE",
        help="memory for weights and forward pass, such as 8GiB, without the libraries' 0.5 GiB "
        "(default: no limit)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY=VALUE", help="values of the recipe to change"
    )
    return parser


def _memory(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `demo.py`.

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
    # inside detectron2; the user cannot do anything about them
    warnings.filterwarnings("ignore", message="torch.meshgrid")
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    from eva_detection.inference.predictor import Predictor

    try:
        predictor = Predictor.from_config(
            args.config_file,
            weights=args.weights,
            score_threshold=args.score_threshold,
            device=args.device,
            overrides=args.opts,
            max_memory=args.max_memory,
        )
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    problems = run(predictor, jobs, args.output)
    logger.info("Results are in %s", args.output)
    return problems


if __name__ == "__main__":
    main()
