"""Command lines of `clip/`: train, evaluate, demo, export, interpolate, and embeddings in files.

Everything that needs torch is imported after parsing.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from eva_backbone.checkpoints.registry import resolve_source
from eva_contrastive.config import (
    EXPORTED_FILES,
    MOST_VIDEO_FRAMES,
    OF_CLASSES,
    VIDEO_FRAMES,
    ContrastiveConfig,
)
from eva_contrastive.model.open_clip_files import weights_file
from eva_data.inputs import Job, JobPlan, plan_jobs
from eva_data.labelled_videos.lists import UCF101_SPLITS
from eva_data.saving import make_folder, require_replaceable
from eva_engine.commands.options import (
    add_arguments,
    add_device,
    add_max_bad_samples,
    add_weights,
    command,
    new_parser,
    parse_evaluation,
)
from eva_engine.commands.training import given_values, training_command
from eva_report.demos import log_to_terminal, run_demo
from eva_runs.commands import Command, check_outputs, lazy_import, require_data
from eva_runs.options import (
    DATA,
    EXPORT_SUFFIXES,
    add_download_option,
    add_precision,
    add_results_folder,
    integer,
    number,
    probability,
    require_form,
)
from eva_runs.output_folder import claim_number, name_of_weights
from eva_runs.recipes import require_start

_PAIRS = "shards, a table (CSV, TSV), a JSON list, a folder, a manifest or an index"
_CLASSES = "a folder of class folders"


def _check_data(config: ContrastiveConfig) -> None:
    for name, forms in (("train", _PAIRS), ("val", _PAIRS), ("zero_shot", _CLASSES)):
        location = getattr(config.data, name)
        if location:
            require_data(location, name=f"data.{name}", forms=forms)
    for source in filter(None, (config.model.init_checkpoint, config.model.text_checkpoint)):
        require_start("clip", source)


def without_other_classes(
    flags: Sequence[str], default: ContrastiveConfig
) -> tuple[list[str], str]:
    """Leave out a recipe's zero-shot classes where `--data.train` names pairs of another dataset.

    `run.best_metric` then becomes one of the pairs where it is one of the classes. What the command
    line says is never changed.

    Args:
        flags: Flags of the command line.
        default: Config of the recipe.

    Returns:
        The flags with those that follow from them, and a line on that or an empty one.
    """
    overridden, data = given_values(flags), default.data
    other_settings = {"data.zero_shot", "data.templates"} & overridden.keys() or overridden.get(
        "run.best_metric"
    ) in OF_CLASSES
    if (
        overridden.get("data.train", data.train) == data.train
        or not data.zero_shot
        or other_settings
    ):
        return [*flags], ""
    changes = ["--data.zero-shot", "", "--data.templates", *type(data).templates]
    message = f"data.zero_shot={data.zero_shot} of the recipe is left out"
    if default.run.best_metric in OF_CLASSES and "run.best_metric" not in overridden:
        share = float(overridden.get("data.val_share", data.val_share))
        best = "image_to_text_r1" if share or overridden.get("data.val", data.val) else ""
        changes += ["--run.best-metric", best]
        message += f"; the best weights are chosen by {best or 'nothing'}"
    fix = "name your own folder of class folders as --data.zero-shot to evaluate it"
    return [*flags, *changes], f"{message}; {fix}"


train = training_command(
    ContrastiveConfig,
    lazy_import("eva_contrastive.training:train"),
    program="clip/train.py",
    check=_check_data,
    adapt=without_other_classes,
    planning="eva_contrastive.training",
)


_FOLDERS = {
    "imagenet": "ImageNet-1K val: a folder for each WordNet id",
    "v2": "ImageNet-V2 matched frequency, folders 0 to 999",
    "a": "ImageNet-A",
    "r": "ImageNet-R",
    "sketch": "ImageNet-Sketch",
    "objectnet": "ObjectNet, with images and mappings",
    "cifar10": "CIFAR-10 as torchvision has put it, torchvision:CIFAR10:ROOT:test or class folders",
    "cifar100": "the same of CIFAR-100",
}
_VIDEOS = {
    "ucf101": "UCF-101, with testlist01.txt in it or beside it; or such a list",
    "k400": "Kinetics-400: list, or folder of class folders; and the folder of a list's paths",
    "k600": "Kinetics-600",
    "k700": "Kinetics-700",
    "videos": "your own videos: a folder of class folders or a list",
}
_CAPTIONS = {
    "flickr30k": "dataset_flickr30k.json#test of Karpathy, or another list; and its images",
    "coco": "dataset_coco.json#test of Karpathy, or another list; and its images",
    "pairs": "your own images with captions, as for training; and the images of a list",
}
_SETS = {**_FOLDERS, "data": _CLASSES, **_VIDEOS, **_CAPTIONS}
_EVALUATE = """
A part of the paper's Table 10b; the column EVA-CLIP-g is what eva_clip_psz14.pt should give:
    torchrun --nproc-per-node 8 clip/evaluate_zero_shot.py --weights eva_clip_psz14.pt \\
        --imagenet imagenet/val --v2 imagenetv2 --k400 k400_val.csv kinetics400/val \\
        --coco dataset_coco.json#test coco --output output/zero_shot

OUTPUT receives results.json (after each set), table.md, report.html, and of --data and --videos
per_class.csv and confusion.png.
"""


def _parse_evaluate(arguments: Sequence[str]) -> argparse.Namespace:
    parser = new_parser(
        "clip/evaluate_zero_shot.py",
        "Evaluate a CLIP by the names of classes, without training, and by retrieval.",
        epilog=_EVALUATE,
    )
    add_weights(parser, kinds="or a folder of open_clip", alone=True)
    add = parser.add_argument
    add("--crop-pct", type=float, help="share of the resized image (default: 1)")
    for name, help_text in _FOLDERS.items():
        add(f"--{name}", type=Path, metavar="DIR", help=help_text)
    own_data = parser.add_mutually_exclusive_group()
    own_data.add_argument(
        "--data",
        help="your own images: a folder of class folders, "
        "torchvision:NAME:ROOT:SPLIT or hf:NAME:SPLIT",
    )
    for name, help_text in (_VIDEOS | _CAPTIONS).items():
        group = own_data if name == "videos" else parser
        group.add_argument(f"--{name}", nargs="+", metavar=("DATA", "ROOT"), help=help_text)
    add("--ucf101-split", type=int, choices=UCF101_SPLITS, default=1, help="default: 1")
    add("--image-column", help="of --pairs, a table's with the images (default: found)")
    add("--caption-column", help="of --pairs, with the captions (default: found)")
    add(
        "--classes",
        help="text file of names: those of the folders of --data, or what to call "
        "each in their order, numbers by value (default: the folders', _ as space)",
    )
    add(
        "--templates",
        nargs="+",
        metavar="TEXT",
        help="sentences with {} for --data, a file of "
        "them, or imagenet, cifar, ucf101, kinetics or simple (default: simple)",
    )
    add_max_bad_samples(parser, unit="samples of a set")
    add_arguments(parser)
    options = parse_evaluation(parser, arguments)
    values = vars(options)
    for name in (*_VIDEOS, *_CAPTIONS):
        if len(values[name] or ()) > 2:
            parser.error(f"--{name} takes the data and the folder of a list's paths, no more")
    if not any(values[name] for name in _SETS):
        parser.error(f"nothing to evaluate: give any of --{', --'.join(_SETS)}")
    if (options.classes or options.templates) and not (options.data or options.videos):
        parser.error("--classes and --templates belong to --data or --videos")
    weights_file(options.weights)
    for name, forms in _SETS.items():
        value = values[name]
        for location in value if isinstance(value, list) else filter(None, [value]):
            require_data(str(location), name=f"--{name}", forms=forms)
    return options


evaluate = command(
    "clip/evaluate_zero_shot.py",
    _parse_evaluate,
    lazy_import("eva_contrastive.evaluation.evaluating:evaluate"),
)


_DEMO = """
    python clip/demo.py rank cat.jpg dive.mp4 --weights eva_clip_psz14.pt \\
        --text "a photo of a cat" "a person who dives"
    python clip/demo.py search holiday/ --weights eva_clip_psz14.pt --output output/found \\
        --cache output/library --text "a dog in the snow" --like cat.jpg

Files that cannot be read are named and skipped, and the exit code is then 1.
"""
_RANK = """
OUTPUT receives ranking.json with the probability of each caption among all captions, and their
cosines. Of a video, frames spread over it are averaged; the time is that of the best one.
"""
_SEARCH = """
OUTPUT receives results.json, results.csv and contact_sheet.jpg. A score is the cosine of query and
image, or of query and best frame of a video. Features of the files are kept in the folder CACHE:
the next search computes new and changed files only, also after an interruption. INPUT may also be
the output of eva batch features --kind embedding, or of eva index build, by the same weights.
"""


def _parse_demo(arguments: Sequence[str]) -> argparse.Namespace:
    parser = new_parser("clip/demo.py", "Compare images, videos and sentences.", epilog=_DEMO)
    commands = parser.add_subparsers(dest="command", required=True, metavar="rank | search")
    rank = commands.add_parser("rank", help="rank captions for images and videos", epilog=_RANK)
    search = commands.add_parser(
        "search", help="search folders by sentences and images", epilog=_SEARCH
    )
    for demo_parser in (rank, search):
        demo_parser.formatter_class = argparse.RawDescriptionHelpFormatter
        demo_parser.set_defaults(parser=demo_parser)
        add = demo_parser.add_argument
        add(
            "inputs",
            nargs="+",
            type=Path,
            metavar="INPUT",
            help="image, video, folder of both, or pattern",
        )
        add_weights(demo_parser, kinds="of a complete EVA-CLIP")
        add("--text", nargs="+", action="extend", default=[], help="sentences")
        add(
            "--frames",
            type=integer(1, MOST_VIDEO_FRAMES),
            default=VIDEO_FRAMES,
            help="of a video (default: %(default)s)",
        )
        add("--overwrite", action="store_true", help="replace earlier results")
    add = rank.add_argument
    add("--output", type=Path, help="folder for ranking.json (default: only the lines)")
    add("--top", type=integer(1), default=10, help="captions of a file (default: %(default)s)")
    add("--batch-size", type=integer(1), default=32, help="default: %(default)s")
    add_device(rank)
    add = search.add_argument
    add(
        "--like",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="FILE",
        help="images or videos",
    )
    add("--together", action="store_true", help="all sentences and images are one query")
    add_results_folder(search)
    add("--cache", type=Path, help="folder of the library (default: OUTPUT)")
    add("--top", type=integer(1, 1000), default=20, help="hits (default: %(default)s)")
    add_arguments(search, batch_size=32, published=False)
    rank.set_defaults(like=[], cache=None, results=["ranking.json"])
    search.set_defaults(results=["results.json", "results.csv", "contact_sheet.jpg"])
    options = parser.parse_args(arguments)
    if not options.text and not options.like:
        options.parser.error("nothing to compare with: give --text, or for a search --like")
    return options


def has_features(folder: Path) -> bool:
    """Return whether a folder is an index, or the output of `eva batch`."""
    pairs = ("index.json", "features.npy"), ("manifest.json", "parts")
    return any(all((folder / name).exists() for name in pair) for pair in pairs)


def _plan(options: argparse.Namespace) -> JobPlan:
    for file in options.like:
        file.stat()
    options.cache = options.cache or options.output
    options.index = options.command == "search" and any(map(has_features, options.inputs))
    if options.index:
        if len(options.inputs) > 1:
            raise ValueError(f"give one index or folder of features, not {len(options.inputs)}")
        return JobPlan([Job(options.inputs[0], "features", ())], [])
    results = [*filter(None, (options.output, options.cache))]
    return plan_jobs(options.inputs, targets=lambda name: [], results=results, arrays=False)


def _show(options: argparse.Namespace, jobs: Sequence[Job]) -> list[str]:
    from eva_contrastive.inference.demo import load, rank_files, search_files, search_index

    searching = search_index if options.index else search_files
    work = rank_files if options.command == "rank" else searching
    return work(load(options), options, jobs)


def _demo(options: argparse.Namespace) -> int:
    return run_demo(
        options,
        prepare=lambda: _plan(options),
        load=lambda options: weights_file(options.weights),
        work=lambda options, _, planned: _show(options, planned.jobs),
        results=[options.output / name for name in options.results if options.output is not None],
    )


demo = Command("clip/demo.py", _parse_demo, _demo)


_EXPORT = """
    eva clip export --weights eva_clip_psz14.pt --format onnx --output eva_clip_onnx

OUTPUT receives image.onnx and text.onnx (or .pt2), clip.json and the tokenizer's vocabulary.
"""
_TOWERS = ("image", "text")


def _parse_export(arguments: Sequence[str]) -> argparse.Namespace:
    parser = new_parser(
        "eva clip export",
        "Write the towers of an EVA-CLIP (normalised images or tokens in, features out) for "
        "programs without this toolkit. Each file is compared with its tower before it is kept.",
        epilog=_EXPORT,
    )
    add_weights(parser, kinds="of a complete EVA-CLIP")
    add = parser.add_argument
    forms = ("onnx", "torch-export")
    add("--format", default="onnx", choices=forms, dest="form", help="default: %(default)s")
    help_text = "folder (default: output/NAME_export, or NAME_export-2 where it is there)"
    add("--output", type=Path, help=help_text)
    add("--towers", nargs="+", choices=_TOWERS, default=_TOWERS, help="(default: both)")
    add("--normalize", action="store_true", help="features of unit length")
    add_precision(parser, default="fp32", usual="fp32; int8 is for torch-export")
    add("--device", default="cpu", help="where a torch.export program will run (default: cpu)")
    add("--tolerance", type=number(0), help="largest difference, as a share of the largest value")
    add("--overwrite", action="store_true", help="replace an earlier folder")
    options = parser.parse_args(arguments)
    if options.form == "onnx" and options.device != "cpu":
        parser.error("onnxruntime runs here on a CPU")
    if options.output is None:
        folder = Path("output") / f"{name_of_weights(options.weights)}_export"
        options.output = claim_number(folder)
    return options


def _export(options: argparse.Namespace) -> int:
    names = [
        f"{tower}{end}" for tower in _TOWERS for end in (*EXPORT_SUFFIXES.values(), f".onnx{DATA}")
    ]
    require_form(options.form, options.precision)
    require_replaceable(options.output, [*names, *EXPORTED_FILES], overwrite=options.overwrite)
    weights_file(options.weights)
    log_to_terminal()
    lazy_import("eva_contrastive.inference.export:export")(options)
    return 0


export = Command("eva clip export", _parse_export, _export)


_INTERPOLATE = """
    eva clip interpolate eva_clip_psz14.pt output/eva_clip_own_pairs \\
        --share 0.25 0.5 0.75 --output output/between

START and END are files of a complete CLIP, official names, or folders of runs. Each share of END
gives a file `share_0.5.safetensors` in float32, with the notes of END. Evaluate several, keep one.
"""


def _parse_interpolate(arguments: Sequence[str]) -> argparse.Namespace:
    parser = new_parser(
        "eva clip interpolate",
        "Weights between those that a training began with and those that it ended with (WiSE-FT, "
        "https://arxiv.org/abs/2109.01903).",
        epilog=_INTERPOLATE,
    )
    add = parser.add_argument
    add("start", help="weights that the training began with")
    add("end", help="weights that it ended with, or the folder of its run")
    add("--share", type=probability, nargs="+", default=[0.5], help="shares of END (default: 0.5)")
    add("--output", required=True, type=Path, metavar="DIR", help="their folder")
    add("--overwrite", action="store_true", help="replace earlier files")
    add_download_option(parser)
    return parser.parse_args(arguments)


def _interpolate(options: argparse.Namespace) -> int:
    sources = {name: resolve_source(getattr(options, name)) for name in ("start", "end")}
    make_folder(options.output)
    options.files = [options.output / f"share_{share:g}.safetensors" for share in options.share]
    check_outputs(options.files, overwrite=options.overwrite, inputs=sources)
    lazy_import("eva_contrastive.inference.export:write_mixtures")(options, sources)
    return 0


interpolate = Command("eva clip interpolate", _parse_interpolate, _interpolate)
