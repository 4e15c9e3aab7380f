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
    import numpy as np
    from numpy.typing import NDArray

    from eva_detection.inference.predictor import Predictor

from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES
from eva_data.inputs import Job, Plan, plan_jobs, written_name
from eva_detection.config.saved import config_of_run, require_config, require_detector
from eva_detection.inference.memory import parse_bytes
from eva_report.demos import refuse, run_demo
from eva_runs.command_line.parsing import Parser
from eva_runs.command_line.weights import WEIGHTS
from eva_runs.commands import program_name
from eva_runs.options import add_download_option, probability

PREDICTIONS = "predictions.json"
_WEIGHTS = (".pt", ".pth", ".safetensors")

_EPILOG = """
INPUT is a picture, a video, a folder of both, a pattern in quotes ("photos/*.jpg"), or the number
of a camera, which is recorded until Ctrl-C. OUTPUT receives each picture and video under its own
name, those of a folder as in the folder, and predictions.json: images, categories and annotations
in COCO's format, with a score each. What was found is said at the end.
Files that cannot be read are named and skipped, and the exit code is then 1.

Examples:

    python detection/demo.py output/mine holiday/ --output output/pictures   # of your own training

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
        suffixes=DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES,
        targets=lambda name: [output / written_name(name)],
        results=[output],
        kinds="images and no videos",
        cameras=True,
    )


def run(predictor: "Predictor", jobs: Sequence[Job], output: Path) -> list[str]:
    """Do the jobs, with a progress bar; then say what was found.

    Args:
        predictor: The detector.
        jobs: Jobs from `plan`.
        output: Folder for predictions.json.

    Returns:
        A complaint for each file that could not be read, or not to its end, or is too large.
    """
    from eva_detection.inference.coco_format import as_coco
    from eva_report.detection_demo import Detections, detect_files

    def detect(rgb: "NDArray[np.uint8]") -> Detections:
        found = as_coco(predictor.with_encoded_masks(rgb))
        return Detections(found, lambda: predictor.best_score(rgb))

    categories = dict(predictor.categories)
    least = predictor.score_threshold
    return detect_files(detect, jobs, output, categories=categories, threshold=least)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program_name("demo.py"),
        description="Detect objects in images, folders of them and videos.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="image, video, folder of both, pattern or camera; without --weights the first one is "
        "the folder of a training, or the first two are a recipe and weights",
    )
    parser.add_argument(
        "--config-file",
        type=Path,
        help="the detector's recipe (default: the config.yaml that lies with the weights)",
    )
    parser.add_argument("--weights", help=f"of a complete detector: {WEIGHTS}")
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
    args = parser.parse_intermixed_args(arguments)
    _take_model(args)
    if args.weights is None or not args.inputs:
        refuse(parser, "give --weights, or the folder of a training as the first INPUT")
    run_demo(
        parser,
        prepare=lambda: _prepare(args),
        work=lambda planned: _detect(parser, args, planned.jobs),
        overwrite=args.overwrite,
        results=[args.output / PREDICTIONS],
    )


def _take_model(args: argparse.Namespace) -> None:
    """Take a recipe and weights that stand before the pictures, as in `mmdetection/demo.py`."""
    words = args.inputs
    if args.config_file is None and len(words) > 1 and _is_recipe(words[0]):
        args.config_file = words.pop(0)
    if args.weights is None and len(words) > 1 and _are_weights(words[0]):
        args.weights = str(words.pop(0))


def _is_recipe(word: Path) -> bool:
    from eva_runs.recipes import find_recipe

    if word.suffix not in ("", ".py", ".yaml") or (not word.suffix and word.exists()):
        return False
    try:
        find_recipe("detection", word)
    except (OSError, ValueError):
        return False
    return True


def _are_weights(word: Path) -> bool:
    from eva_backbone.checkpoints.registry import BUNDLED_FILES, list_official_files

    if word.is_dir() or word.suffix not in ("", *_WEIGHTS):
        return config_of_run(word) is not None
    known = {name for one in list_official_files() for name in (one.name, one.stem)}
    known |= {one.name for one in BUNDLED_FILES}
    return word.suffix in _WEIGHTS or str(word) in known


def _prepare(args: argparse.Namespace) -> Plan:
    from eva_backbone.checkpoints.registry import resolve_source
    from eva_runs.recipes import find_recipe

    planned = plan(args.inputs, args.output)
    if planned.jobs:  # mistyped names are answered before torch is imported
        args.config_file = find_recipe(
            "detection", require_config(args.config_file, args.weights, option="--config-file")
        )
        require_detector(args.weights)
        resolve_source(args.weights)
    return planned


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
        refuse(parser, error)
    return run(predictor, jobs, args.output)


if __name__ == "__main__":
    main()
