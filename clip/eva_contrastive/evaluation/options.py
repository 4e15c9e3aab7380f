"""Options of `clip/evaluate_zero_shot.py`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from eva_contrastive.evaluation.prompts import template_sets
from eva_contrastive.model.open_clip_program import weights_file
from eva_data.captions.opening import without_effect
from eva_data.labelled_videos.ucf101 import SPLITS
from eva_data.video.source import BACKENDS
from eva_engine.commands.options import add_arguments, add_weights, new_parser, parse_with_weights
from eva_runs.options import integer
from eva_runs.required_data import require_data

FOLDERS = {
    "v2": "ImageNet-V2 matched frequency, folders 0 to 999",
    "a": "ImageNet-A",
    "r": "ImageNet-R",
    "sketch": "ImageNet-Sketch",
    "objectnet": "ObjectNet, with images and mappings",
}
VIDEOS = {
    "ucf101": "UCF-101, with testlist01.txt in it or beside it; or such a list",
    "k400": "Kinetics-400: list, or folder of class folders; and the folder of a list's paths",
    "k600": "Kinetics-600",
    "k700": "Kinetics-700",
}
PAIRS = {
    "flickr30k": "dataset_flickr30k.json#test of Karpathy, or another list; and its pictures",
    "coco": "dataset_coco.json#test of Karpathy, or another list; and its pictures",
    "pairs": "your own pictures with captions, as for training; and the pictures of a list",
}
_CLASSES = "a folder of class folders"
_FORMS = FOLDERS | VIDEOS | PAIRS
_CACHE = "text_features"
_OWNERS = 3  # that a message names
_EXAMPLES = """
The paper's Table 10b, any part of it; the column EVA-CLIP-g is what eva_clip_psz14.pt should give:
    torchrun --nproc-per-node 8 clip/evaluate_zero_shot.py --weights eva_clip_psz14.pt \\
        --imagenet imagenet/val --v2 imagenetv2 --a imagenet-a --r imagenet-r --sketch sketch \\
        --objectnet objectnet-1.0 --cifar10 cifar --cifar100 cifar --ucf101 UCF-101 \\
        --k400 k400_val.csv kinetics400/val --k600 k600_val.csv kinetics600/val \\
        --k700 k700_val.csv kinetics700/val --output output/zero_shot

Retrieval, and your own folders with your own names:
    python clip/evaluate_zero_shot.py --weights eva_clip_psz14.pt --coco dataset_coco.json#test coco
    python clip/evaluate_zero_shot.py --weights output/run/model.safetensors --data photos/val \\
        --classes names.txt --templates "a photo of a {}." "a drawing of a {}."

OUTPUT receives results.json (after each set), table.md, table.csv, retrieval.csv, and of --data and
--videos per_class.csv and confusion.png.
"""


def parse(program: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments.

    Args:
        program: Name in the help.
        arguments: Arguments; None for those of the command line.

    Returns:
        The options.
    """
    parser = new_parser(
        program,
        "Evaluate a CLIP by the names of classes, without training, and by retrieval.",
        epilog=_EXAMPLES,
    )
    add_weights(parser, kinds="or a folder of open_clip", alone=True)
    add = parser.add_argument
    one = integer(1)
    add("--text-heads", type=one, help="attention heads, if the size of the text tower is unusual")
    add("--crop-pct", type=float, help="share of the resized picture (default: 1)")
    add("--imagenet", metavar="DIR", help="ImageNet-1K val: a folder for each WordNet id, or "
        "torchvision:ImageNet:ROOT:val")  # fmt: skip
    for name, text in FOLDERS.items():
        add(f"--{name}", type=Path, metavar="DIR", help=text)
    for number in (10, 100):
        add(f"--cifar{number}", metavar="DIR", help=f"CIFAR-{number}: where torchvision has put "
            f"it, torchvision:CIFAR{number}:ROOT:test, or class folders")  # fmt: skip
    for name, text in (VIDEOS | PAIRS).items():
        add(f"--{name}", nargs="+", metavar=("DATA", "ROOT"), help=text)
    add("--ucf101-split", type=int, choices=SPLITS, help="default: 1")
    add("--backend", choices=BACKENDS, help=f"decoder of videos (default: {BACKENDS[0]})")
    add("--image-column", help="of --pairs, a table's with the pictures (default: found)")
    add("--caption-column", help="of --pairs, with the captions (default: found)")
    own = parser.add_mutually_exclusive_group()
    own.add_argument("--data", help="your own pictures: a folder of class folders, "
                     "torchvision:NAME:ROOT:SPLIT or hf:NAME:SPLIT")  # fmt: skip
    own.add_argument("--videos", nargs="+", metavar=("DATA", "ROOT"),
                     help="your own videos: a folder of class folders or a list")  # fmt: skip
    add("--classes", help="text file of names: those of the folders of --data, or what to call "
        "each in their order, numbers by value (default: the folders', _ as space)")  # fmt: skip
    add("--templates", nargs="+", metavar="TEXT", help="sentences with {} for --data, a file of "
        f"them, or one of {', '.join(template_sets())} (default: simple)")  # fmt: skip
    add("--skip-unreadable", action="store_true", help="leave out and name what cannot be read")
    add_arguments(parser)
    add("--cache", type=Path, help=f"folder of text features (default: {_CACHE} beside OUTPUT)")
    add("--output", type=Path, help="folder of the results")
    options = parse_with_weights(parser, arguments)
    _check(parser, options)
    return options


def check_paths(options: argparse.Namespace) -> None:
    """Refuse weights and data that are not there, before torch is imported.

    Args:
        options: Options of `parse`.

    Raises:
        ValueError: If something is not there.
        FileNotFoundError: If the weights are not.
    """
    weights_file(options.weights)
    given = vars(options)
    for name in ("imagenet", *FOLDERS, "cifar10", "cifar100", "data", *VIDEOS, "videos", *PAIRS):
        places = given[name] if isinstance(given[name], list) else [given[name]]
        for place in filter(None, places):
            require_data(str(place), name=f"--{name}", forms=_FORMS.get(name, _CLASSES))
    for name in PAIRS:
        place, *root = given[name] or [""]
        columns = ("image_column", "caption_column") if name == "pairs" else ()
        asked = {"root": " ".join(root)} | {key: given[key] for key in columns}
        for key in without_effect(place) if place else ():
            if asked.get(key):
                what = "the folder" if key == "root" else f"--{key.replace('_', '-')}"
                raise ValueError(
                    f"--{name}: {what} {asked[key]} has no effect on {place}: leave it out"
                )


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options that have no effect, and fill in those that depend on others."""
    given = vars(options)
    for name in (*VIDEOS, *PAIRS, "videos"):
        if given[name] is not None and len(given[name]) > 2:
            parser.error(
                f"--{name} takes the data and the folder of a list's paths, no more; "
                "weights stand before all flags, or behind --weights"
            )
    own, videos = ("data", "videos"), (*VIDEOS, "videos")
    classes = ("imagenet", *FOLDERS, "cifar10", "cifar100", *VIDEOS, *own)
    for name, owners in (("classes", own), ("templates", own), ("ucf101_split", ("ucf101",)),
                         ("image_column", ("pairs",)), ("caption_column", ("pairs",)),
                         ("backend", videos), ("cache", classes)):  # fmt: skip
        if given[name] is not None and not any(given[owner] for owner in owners):
            option = name.replace("_", "-")
            first = " or ".join(f"--{owner}" for owner in owners[:_OWNERS])
            more = ", for example" if len(owners) > _OWNERS else ""
            parser.error(f"--{option} belongs to {first}{more}")
    sets = (*classes, *PAIRS)
    if not any(given[name] for name in sets):
        parser.error(f"nothing to evaluate: give any of --{', --'.join(sets)}")
    options.backend = options.backend or BACKENDS[0]
    if options.cache is None and options.output is not None:
        options.cache = options.output.absolute().parent / _CACHE
