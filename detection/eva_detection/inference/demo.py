"""Command line that detects objects in images, folders and videos.

Everything heavy is imported where it is used, so that `--help` and mistakes in the arguments
answer at once.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from eva_detection.inference.drawing import PredictionsFile
    from eva_detection.inference.predictor import Predictor

from eva_data.files import UnwritableError, find_files, make_folder, replacing
from eva_detection.inference.memory import MemoryLimitError, parse_bytes

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.json"
_KEPT = (".jpg", ".jpeg", ".png")  # pictures keep these formats; others become PNG
_IMAGES = (*_KEPT, ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")
_VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")

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


class Job(NamedTuple):
    """One file to read, one to write, and the name in predictions.json."""

    source: Path
    target: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether the source has the ending of a video."""
        return self.source.suffix.lower() in _VIDEOS


def plan(inputs: Sequence[Path], output: Path) -> tuple[list[Job], list[str]]:
    """List what is to be done.

    Args:
        inputs: Files and folders; folders are searched through, without hidden files.
        output: Folder for the results; what lies below it is no input.

    Returns:
        The jobs in order, and a complaint for each input that is not there or is empty.

    Raises:
        ValueError: If two inputs would be written to one file, or an input would be overwritten.
    """
    jobs: list[Job] = []
    problems: list[str] = []
    for path in inputs:
        if path.is_dir():
            files = _files_below(path, output)
            jobs += (_job(file, output, file.relative_to(path)) for file in files)
            if not files:
                problems.append(f"{path} holds no images and no videos")
        elif path.exists():
            jobs.append(_job(path, output, Path(path.name)))
        else:
            problems.append(f"there is no {path}")
    taken: dict[Path, Path] = {}
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.target.resolve() in sources:
            raise ValueError(f"{job.target} is an input: choose another --output")
        if job.target in taken:
            raise ValueError(
                f"{taken[job.target]} and {job.source} would both become {job.target}: give the "
                "folder that holds both, or two commands with two outputs"
            )
        taken[job.target] = job.source
    return jobs, problems


def _files_below(folder: Path, output: Path) -> list[Path]:
    output = output.resolve()
    inside = output != folder.resolve() and output.is_relative_to(folder.resolve())
    return [
        file
        for file in sorted(folder / name for name in find_files(folder, (*_IMAGES, *_VIDEOS)))
        if not (inside and file.resolve().is_relative_to(output))
    ]


def _job(source: Path, output: Path, name: Path) -> Job:
    suffix = source.suffix.lower()
    if suffix in _VIDEOS:
        ending = "" if suffix == ".mp4" else ".mp4"
    else:
        ending = "" if suffix in _KEPT else ".png"
    return Job(source, output / name.with_name(name.name + ending), name.as_posix())


def run(predictor: "Predictor", jobs: Sequence[Job], output: Path) -> list[str]:
    """Do the jobs, with a progress bar.

    Args:
        predictor: The detector.
        jobs: From `plan`.
        output: Folder for predictions.json.

    Returns:
        A complaint for each file that could not be read, or not to its end, or is too large.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from eva_detection.inference.drawing import PredictionsFile

    problems: list[str] = []
    make_folder(output)
    with (
        logging_redirect_tqdm(),
        PredictionsFile(output / PREDICTIONS, predictor.categories) as predictions,
    ):
        for job in tqdm(jobs, desc="detecting", unit="file", dynamic_ncols=True):
            make_folder(job.target.parent)
            do = _video if job.is_video else _picture
            try:
                problem = do(predictor, job, predictions)
            except MemoryLimitError as error:
                problem = f"{job.source} is too large: {error}"
            if problem:
                logger.error("%s", problem)
                problems.append(problem)
    return problems


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
    with replacing(job.target) as part:
        picture.save(part, quality=95)  # no meaning for PNG
    return None


def _video(predictor: "Predictor", job: Job, predictions: "PredictionsFile") -> str | None:
    from tqdm import tqdm

    from eva_data.video import VideoReader, VideoWriter
    from eva_detection.inference.drawing import draw

    reader = VideoReader(job.source)
    with VideoWriter(job.target) as writer, tqdm(desc=job.name, unit="frame", leave=False) as bar:
        for index, frame in enumerate(reader):
            bar.total = reader.count
            instances = predictor.with_encoded_masks(frame.rgb)
            predictions.add(instances, file_name=job.name, frame=index)
            writer.add(draw(frame.rgb, instances, predictor.class_names), frame)
            bar.update()
    return reader.error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description="Detect objects in images, folders of them and videos.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="image, video or folder of both"
    )
    parser.add_argument("--config-file", required=True, type=Path, help="the detector's recipe")
    parser.add_argument(
        "--weights", required=True, help="name of an official file, or path, of a whole detector"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for the results")
    parser.add_argument(
        "--score-threshold",
        type=_probability,
        default=0.5,
        help="least score of what is shown and written (default: %(default)s)",
    )
    parser.add_argument("--device", help='"cuda", "cuda:1" or "cpu" (default: from the recipe)')
    parser.add_argument(
        "--max-memory",
        type=_memory,
        metavar="SIZE",
        help="what weights and forward pass may take, such as 8GiB, without the libraries' 0.5 GiB "
        "(default: no limit)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY=VALUE", help="values of the recipe to change"
    )
    return parser


def _probability(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], got {text}")
    return value


def _memory(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _demand_free(targets: Sequence[Path], *, overwrite: bool) -> None:
    for target in targets:
        if target.is_dir():
            raise ValueError(f"{target} is a folder and would have to be a file")
        if target.exists() and not overwrite:
            raise ValueError(f"{target} is there already: give --overwrite or another --output")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `demo.py`.

    Args:
        arguments: In place of those of the process.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        jobs, problems = plan(args.inputs, args.output)
        targets = [job.target for job in jobs]
        _demand_free([*targets, args.output / PREDICTIONS], overwrite=args.overwrite)
    except ValueError as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for problem in problems:
        logger.error("%s", problem)
    if jobs:
        problems += _detect(parser, args, jobs)
    if problems:
        sys.exit("not everything could be read:\n" + "\n".join(f"  {text}" for text in problems))


def _detect(
    parser: argparse.ArgumentParser, args: argparse.Namespace, jobs: Sequence[Job]
) -> list[str]:
    # inside detectron2; nothing that a user could do about
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
    try:
        problems = run(predictor, jobs, args.output)
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports Ctrl-C
    except UnwritableError as error:
        sys.exit(f"demo.py: {error}")
    logger.info("Results are in %s", args.output)
    return problems
