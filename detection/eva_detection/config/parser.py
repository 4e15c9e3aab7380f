"""The options of `train_net.py`, without anything heavy, so that `--help` answers at once."""

import argparse
import os
import sys

from eva_data.detection import spec
from eva_detection.config.words import USUAL_SETTINGS, AnyOrderParser
from eva_runs.command_line.weights import WEIGHTS
from eva_runs.commands import program_name
from eva_runs.options import add_download_option

_EPILOG = """
Examples:

Fine-tune on COCO with 8 GPUs:
    python detection/train_net.py coco/cascade_mask_rcnn_vitdet_eva_g_1280 --num-gpus 8 \\
        train.init_checkpoint=eva_o365.pth train.output_dir=output/coco

Train on your own data in COCO format (classes, masks or boxes as in the files):
    python detection/train_net.py --train-annotations train.json --train-images photos/train \\
        --val-annotations val.json --val-images photos/val \\
        --config-file custom/cascade_mask_rcnn_vitdet_eva_g_24gb.py \\
        train.init_checkpoint=eva_o365.pth train.output_dir=output/mine

Continue a run after an interruption:
    the same command with --resume; SIGTERM and SIGUSR1 save a checkpoint and exit with code 75

Evaluate:
    python detection/train_net.py --num-gpus 8 --eval-only \\
        --config-file coco/cascade_mask_rcnn_vitdet_eva_g_1536.py \\
        train.init_checkpoint=eva_coco_seg.pth
"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser: the options of detectron2's programs, own data and `--scale-lr`.

    Flags, settings and the recipe may stand in any order.
    """
    parser = AnyOrderParser(
        prog=program_name("train_net.py"),
        usage="%(prog)s [RECIPE] [WEIGHTS, with --eval-only] [flags] [KEY=VALUE ...]",
        description="Train or evaluate a detector.",
        settings=USUAL_SETTINGS,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--config-file",
        default="",
        metavar="RECIPE",
        help="recipe, by path or by name (a path below detection/configs), or a run's config.yaml; "
        "the name alone, without the flag, does too",
    )
    add(
        "--resume",
        action="store_true",
        help="continue the run in train.output_dir, if there is one",
    )
    add_download_option(parser)
    add("--eval-only", action="store_true", help="evaluate; do not train")
    add(
        "--weights",
        help=f"with --eval-only, as a word of its own too: {WEIGHTS}; the folder of a run brings "
        "its recipe along",
    )
    add("--num-gpus", type=int, default=1, help="processes on this machine, one for each GPU")
    add("--num-machines", type=int, default=1, help="machines of the run")
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    add(
        "--dist-url",
        default=f"tcp://127.0.0.1:{_port()}",
        help="where the processes find each other: tcp://FIRST_MACHINE:PORT (default: %(default)s)",
    )
    spec.add_arguments(parser)
    add(
        "--scale-lr",
        action="store_true",
        help="multiply optimizer.lr by the images of a step / those of a step of the recipe",
    )
    add(
        "opts",
        default=None,
        nargs=argparse.REMAINDER,
        metavar="KEY=VALUE",
        help="values of the recipe to change",
    )
    return parser


def _port() -> int:
    """Choose a port for each user, as detectron2 does: processes left behind then show."""
    user = os.getuid() if sys.platform != "win32" else 1
    return 2**15 + 2**14 + hash(user) % 2**14
