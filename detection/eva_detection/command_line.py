"""The commands of detection: options are parsed and checked before torch is imported."""

import argparse
import contextlib
import logging
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.registry import is_weights, require_known, resolve_source
from eva_backbone.checkpoints.run_folders import describe_missing, folder_of_run
from eva_data.detection import sources
from eva_data.detection.resolve import DetectionData, resolve
from eva_data.detection.sources import DataRequest
from eva_data.detection.tiles import add_slicing
from eva_data.files import expand_home, is_there, require_writable
from eva_data.inputs import JobPlan
from eva_detection.training.output_folder import check_unused, last_checkpoint
from eva_report.demos import add_detector_options, plan_detection, run_demo
from eva_report.detection_demo import PREDICTIONS, detect_files
from eva_runs.commands import Command, echo, lazy_import, program_name
from eva_runs.options import (
    EXPORT_SUFFIXES,
    SOURCES,
    add_download_option,
    add_export,
    add_export_precision,
    add_lora,
    add_precision,
    add_size_and_length,
    command_parser,
    integer,
    number,
    require_export,
    resolve_auto_batch,
)
from eva_runs.recipes import WEIGHTS, find_recipe, name_on_own_data, require_start, stated_start
from eva_runs.request import RunRequest

logger = logging.getLogger(__name__)

SAVED = "config.yaml"  # the config that a run leaves with its weights
_WEIGHTS, _OUTPUT = "train.init_checkpoint", "train.output_dir"
_EPILOG = """\
examples:
  %(prog)s coco/cascade_mask_rcnn_vitdet_eva_g_1280 --num-gpus 8 train.init_checkpoint=eva_o365.pth
  %(prog)s custom/cascade_mask_rcnn_vitdet_eva_l_24gb --data coins/data.yaml --val-share 0.1
  %(prog)s --eval-only coco/cascade_mask_rcnn_vitdet_eva_g_1536_seg

settings: train.init_checkpoint, train.output_dir, train.max_iter, optimizer.lr, and all others of
the recipe. SIGTERM, SIGUSR1 and Ctrl-C save a checkpoint and exit with 75; --resume continues.
Under torchrun or another launcher --num-gpus and --num-machines are left out."""


def _parser(program: str, description: str, **texts: Any) -> argparse.ArgumentParser:
    return command_parser(description, prog=program_name(program), **texts)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of `train_net.py`: detectron2's options, own data and `--scale-lr`."""
    parser = _parser(
        "train_net.py",
        "Train or evaluate a detector.",
        usage="%(prog)s [RECIPE] [WEIGHTS, with --eval-only] [flags] [KEY=VALUE ...]",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="RECIPE, KEY=VALUE", help="recipe by name or path, settings")
    add("--config-file", default="", metavar="RECIPE", help="the recipe, or a run's config.yaml")
    add("--resume", action="store_true", help=f"continue the run in {_OUTPUT}, if there is one")
    add_download_option(parser)
    add("--eval-only", action="store_true", help="evaluate; do not train")
    add("--weights", help=f"with --eval-only: {SOURCES}")
    add("--output", metavar="DIR", help=f"folder of the results, the setting {_OUTPUT}")
    add_precision(parser, default=None, usual="fp32, as published; with --eval-only")
    add("--num-gpus", type=int, default=1, help="processes on this machine, one for each GPU")
    add("--num-machines", type=int, default=1, help="machines of the run")
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    port = 2**15 + 2**14 + hash(os.getuid()) % 2**14  # of each user, as detectron2 chooses it
    help_text = (
        "where the processes find each other: tcp://FIRST_MACHINE:PORT (default: %(default)s)"
    )
    add("--dist-url", default=f"tcp://127.0.0.1:{port}", help=help_text)
    launched = "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
    parser.set_defaults(launched=launched)
    sources.add_arguments(parser)
    add_size_and_length(parser)
    add_lora(parser)
    help_text = "multiply optimizer.lr by the images of a step / those of a step of the recipe"
    add("--scale-lr", action="store_true", help=help_text)
    return parser


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What a command line asks of a training or an evaluation.

    Attributes:
        recipe: Name or path of a recipe, or the file that a run has saved.
        overrides: Settings of the recipe, KEY=VALUE.
        run: What is asked of every trainer.
        data: Own data, as they are named.
        evaluates: Whether weights are evaluated, and nothing is trained.
        weights: Weights that an evaluation names.
        scale_lr: Whether the learning rate grows with the images of a step.
        num_gpus: Processes of this machine; of a launcher, of all machines.
        num_machines: Machines of the run.
        machine_rank: Number of this machine.
        dist_url: Where the processes find each other.
        launched: Whether a launcher has started the processes.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    run: RunRequest = field(default_factory=RunRequest)
    data: DataRequest | None = None
    evaluates: bool = False
    weights: str | None = None
    scale_lr: bool = False
    num_gpus: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"
    launched: bool = False

    @property
    def processes(self) -> int:
        """Processes of the run on all machines."""
        return self.num_gpus * self.num_machines

    @property
    def resumes(self) -> bool:
        """Whether a training goes on, if it has a checkpoint."""
        return self.run.resume and not self.evaluates

    def value_of(self, key: str) -> str | None:
        """Return the last value that is set for a key; None without any."""
        pairs = (override.lstrip("+").partition("=") for override in self.overrides)
        return {name: value.strip("'") for name, _, value in pairs}.get(key)


@dataclass
class Launch:
    """A checked command line, and the own data that were read with it until a run takes them."""

    request: TrainingRequest
    data: DetectionData | None = None

    def take_data(self) -> DetectionData | None:
        """Give the data away: their memory belongs to the run."""
        data, self.data = self.data, None
        return data


def parse(arguments: Sequence[str]) -> TrainingRequest:
    """Parse as detectron2's parser does.

    Of weights that `--eval-only` is given, a setting is made; those of a run bring its config, and
    results go to a folder of their own beside it.
    """
    parser = make_parser()
    args = parser.parse_intermixed_args(arguments)
    if args.launched:  # by torchrun, for example
        if args.num_gpus * args.num_machines > 1:
            parser.error("--num-gpus and --num-machines are not for processes of a launcher")
        args.num_gpus = int(os.environ["WORLD_SIZE"])
    settings = [word for word in args.words if "=" in word and not is_there(word)]
    names = [word for word in args.words if word not in settings]
    keys = [override.partition("=")[0] for override in settings]
    _check_flags(parser, args, keys)
    if args.eval_only and names and not args.weights:
        last = Path(names[-1])
        if len(names) == 2 or args.config_file or last.suffix in WEIGHTS or config_of_run(last):
            args.weights = names.pop()
    if len(names) + bool(args.config_file) > 1:
        parser.error(f"name one recipe, got {', '.join(filter(None, [args.config_file, *names]))}")
    recipe = args.config_file or "".join(names)
    pairs = (word.split("=", 1) for word in settings)  # shells leave a `~` behind `=`
    overrides = [
        setting(key, str(expand_home(value))) if value.startswith("~/") else f"{key}={value}"
        for key, value in pairs
    ]
    overrides += slice_settings(args.slice, args.overlap)
    if args.output:
        overrides.append(setting(_OUTPUT, str(expand_home(args.output))))
    if args.weights:
        if _WEIGHTS in keys:
            parser.error(f"two weights are given, {args.weights} and {_WEIGHTS}=...")
        overrides.append(setting(_WEIGHTS, args.weights))
        saved = config_of_run(args.weights)
        if saved and not recipe:
            recipe = str(saved)
            if _OUTPUT not in keys and not args.output:
                overrides.append(setting(_OUTPUT, str(saved.parent / "evaluation")))
    data = sources.read_request(args, training=not args.eval_only)
    shared = ("num_gpus", "num_machines", "machine_rank", "dist_url", "launched", "scale_lr")
    return TrainingRequest(
        recipe=recipe,
        overrides=tuple(overrides),
        run=RunRequest.from_options(args, output=None, data=None),
        data=data,
        evaluates=args.eval_only,
        weights=args.weights,
        **{name: getattr(args, name) for name in shared},
    )


def _check_flags(
    parser: argparse.ArgumentParser, args: argparse.Namespace, keys: Sequence[str]
) -> None:
    """Refuse flags that contradict each other, or a setting of these keys."""
    if args.output and _OUTPUT in keys:
        parser.error(f"two folders are given, --output and {_OUTPUT}=...")
    if args.weights and not args.eval_only:
        parser.error(f"--weights is for --eval-only: a training begins with {_WEIGHTS}=WEIGHTS")
    if args.precision and not args.eval_only:
        parser.error("--precision is for --eval-only: a training has train.amp.precision")
    if args.epochs and "train.max_iter" in keys:
        parser.error("--epochs sets train.max_iter: leave one of them out")
    of_training = {name: getattr(args, name) for name in ("epochs", "batch", "tile", "lora")}
    if args.eval_only and any(of_training.values()):
        parser.error(f"--{', --'.join(of_training)} are for a training, not for --eval-only")


def slice_settings(size: int | str | None, overlap: float) -> list[str]:
    """Write the settings of tiles."""
    return [] if size is None else [f"test.slice={size}", f"test.overlap={overlap}"]


def setting(key: str, path: str) -> str:
    """Write a setting whose value is a path, in quotes where hydra's grammar asks for them."""
    if re.fullmatch(r"[\w./:+@%-]+", path, re.ASCII):
        return f"{key}={path}"
    escaped = re.sub(
        r"(\\*)('|$)", lambda match: 2 * match[1] + "\\" * bool(match[2]) + match[2], path
    )
    return f"{key}='{escaped}'"


def check(request: TrainingRequest) -> Launch:
    """Check that recipe, own data, weights and a free output folder are there.

    A run on own data without an output folder gets one, named by the data and the recipe.
    """
    recipe = find_recipe("detection", request.recipe)
    named, output = request.data and request.data.first_path, request.value_of(_OUTPUT)
    if named and output is None and (name := name_on_own_data(recipe, named)):
        output = f"./output/{name}"
        request = replace(request, overrides=(*request.overrides, f"{_OUTPUT}={output}"))
    data = resolve(request.data) if request.data else None
    folder = Path(output) if output is not None else None
    if folder:
        require_writable(folder)
    if folder and not request.evaluates and not request.run.resume:
        check_unused(folder)
    continues = request.run.resume and (not folder or last_checkpoint(folder))
    source = request.value_of(_WEIGHTS)
    source = stated_start(recipe) if source is None else source
    if source and not continues and "${" not in source and "://" not in source:
        require_start("detection", source)
    return Launch(request, data)


def config_of_run(weights: str | os.PathLike[str]) -> Path | None:
    """Find the config that a training has left with its weights."""
    path = expand_home(weights)
    if not is_there(str(path)):
        return None
    file = folder_of_run(path) / SAVED
    return file if file.is_file() else None


def require_config(
    config_file: str | os.PathLike[str] | None, weights: str | os.PathLike[str]
) -> str | os.PathLike[str]:
    """Return the config of a detector: the one that is given, or that of the run of its weights."""
    config = config_file or config_of_run(weights)
    if config:
        return config
    require_known(weights)
    raise ValueError(
        f"no {SAVED} of a training lies with {weights}: name the recipe (--config-file)"
    )


def _parse_training(arguments: Sequence[str]) -> Launch:
    arguments, line = resolve_auto_batch(arguments, "eva_detection.planning")
    request = parse(arguments)
    if line:
        echo(line)
    return check(request)


# exits with 75 if a signal stopped it after a checkpoint
train = Command(
    "train_net.py",
    _parse_training,
    lazy_import("eva_detection.training.train:start"),
    error_code=1,
)


_DEMO = """\
INPUT is an image, a video, a folder of both, a pattern in quotes ("photos/*.jpg"), or the number
of a camera, which is recorded until Ctrl-C. OUTPUT receives images and videos by name, and
predictions.json in COCO's format. Unreadable files are named and skipped, with exit code 1.

examples:
  %(prog)s output/mine holiday/ --output output/images
  %(prog)s coco/cascade_mask_rcnn_vitdet_eva_g_1536 eva_coco_seg.pth photo.jpg --output drawn"""


def _demo_parser() -> argparse.ArgumentParser:
    parser = _parser("demo.py", "Detect objects in images and videos.", epilog=_DEMO)
    add = parser.add_argument
    help_text = (
        "image, video, folder, pattern or camera; before them the folder of a training, or a "
    )
    help_text += "recipe and weights"
    add("inputs", nargs="+", type=Path, metavar="INPUT", help=help_text)
    _add_model(parser)
    add("--output", required=True, type=Path, help="folder for the results")
    add("--device", help='"cuda", "cuda:1" or "cpu" (default: from the recipe)')
    add_precision(parser, default="fp32", usual="fp32, as published")
    add_detector_options(parser)
    add_slicing(parser)
    add("--overwrite", action="store_true", help="replace earlier results")
    return parser


def _add_model(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    help_text = "the detector's recipe (default: the config.yaml that lies with the weights)"
    parser.add_argument("--config-file", metavar="RECIPE", help=help_text)
    parser.add_argument("--weights", required=required, help=SOURCES)
    add_download_option(parser)
    help_text = "values of the recipe to change"
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY=VALUE", help=help_text)


def _parse_demo(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _demo_parser()
    args = parser.parse_intermixed_args(arguments)
    args.opts += slice_settings(args.slice, args.overlap)
    _take_model(parser, args)
    return args


def _demo(args: argparse.Namespace) -> int:
    """Detect objects in images, folders and videos."""

    def prepare() -> JobPlan:
        planned = plan_detection(args, args.inputs)
        if planned.jobs:
            config = require_config(args.config_file, args.weights)
            args.config_file = find_recipe("detection", config)
            resolve_source(args.weights)
        return planned

    def load(args: argparse.Namespace) -> Any:
        _hush()
        return lazy_import("eva_detection.inference.predictor:named_predictor")(args)

    results = [args.output / PREDICTIONS]
    return run_demo(args, prepare=prepare, load=load, work=detect_files, results=results)


demo = Command("demo.py", _parse_demo, _demo, error_code=1)


def _take_model(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Take recipe and weights from the words before the first input, unless options name them."""
    words, first = args.inputs, args.inputs[0]
    is_name = first.suffix in ("", ".py", ".yaml") and not config_of_run(first)
    if args.config_file is None and len(words) > 1 and is_name:
        with contextlib.suppress(OSError, ValueError):
            args.config_file = find_recipe("detection", first)
            words.pop(0)
    if args.weights is None:
        first = words[0]
        if len(words) < 2 or not is_weights(first):
            message = describe_missing(first) or f"{first} is not the folder of a training"
            parser.error(f"{message}: name weights before the first INPUT, or with --weights")
        args.weights = str(words.pop(0))


def _hush() -> None:
    """Silence what detectron2, torch and ONNX say of themselves."""
    warnings.filterwarnings("ignore", message="torch.meshgrid")
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    for name in ("onnx_ir", "onnxscript"):  # hundreds of lines on their optimisations
        logging.getLogger(name).setLevel(logging.WARNING)


_FORMS = EXPORT_SUFFIXES | {"torchscript": ".ts"}


def _export_parser() -> argparse.ArgumentParser:
    parser = _parser(
        "export.py",
        "Write a detector for programs without this toolkit: with --image complete, as ONNX or\n"
        "TorchScript (one image in; boxes, classes, masks, scores out), else its ViT and pyramid\n"
        "(normalised images in, p2 ... out). It is compared with the model before it is kept.",
    )
    _add_model(parser, required=True)
    add = parser.add_argument
    add_export(parser, _FORMS, size="the recipe's canvas; any with --image")
    help_text = "export the complete detector: an image that it detects something in"
    add("--image", type=Path, help=help_text)
    add("--score-threshold", type=number(0), default=0.05, help="with --image: default %(default)s")
    size = integer(1)
    add(
        "--batch-size",
        type=lambda value: None if value == "any" else size(value),
        default=1,
        help='fixed, or "any" (default: %(default)s)',
    )
    add_export_precision(parser)
    add("--device", default="cpu", help="where a torch.export program will run (default: cpu)")
    return parser


def _export(args: argparse.Namespace) -> None:
    """Write a detector, or its backbone, for other programs."""
    args.config_file = find_recipe("detection", require_config(args.config_file, args.weights))
    require_export(args, _FORMS)
    scripted = args.form == "torchscript"
    other = args.batch_size != 1 or args.precision != "fp32" or args.device != "cpu"
    other |= scripted and args.size is not None
    if scripted if args.image is None else (other or args.form == "torch-export"):
        raise ValueError(
            f"--format {args.form}, --precision {args.precision}, --device {args.device}: a "
            "complete detector is onnx or torchscript, in fp32, of one image, on the CPU, "
            "with --image; --size is for onnx"
        )
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    _hush()
    outputs = lazy_import("eva_detection.inference.export:export_from_config")(args)
    for name, difference in outputs.items():
        logger.info("%s differs from the model by at most %.2g", name, difference)
    logger.info("wrote %s, %.1f MiB", args.output, args.output.stat().st_size / 2**20)


export = Command(
    "export.py", lambda words: _export_parser().parse_args(words), _export, error_code=1
)
