"""Command lines of pre-training and its tokenizer; what needs torch is imported after parsing."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from eva_engine.commands.training import has_run, training_command
from eva_pretrain.config import PretrainConfig, TokenizerConfig
from eva_runs.commands import Command, echo, lazy_import, require_data
from eva_runs.options import command_parser
from eva_runs.output_folder import number_folder
from eva_runs.recipes import require_start

_STUDENTS = ("eva_ti_patch16", "eva_s_patch16", "eva_b_patch16", "eva_debug_small")
_FORMS = "a manifest (.toml), a folder of images, or tar shards"


def _check(config: PretrainConfig) -> None:
    _check_data(config)
    if config.student.init_checkpoint:
        require_start("pretrain", config.student.init_checkpoint)
    if config.tokenizer:
        require_data(config.tokenizer, name="tokenizer", forms="the output of train_tokenizer.py")


def _check_data(config: PretrainConfig | TokenizerConfig) -> None:
    for name in ("train", "val"):
        location = getattr(config.data, name)
        if location:
            require_data(location, name=f"data.{name}", forms=_FORMS)
    if config.teacher.library == "eva":  # the other libraries know their own names
        require_start("pretrain", config.teacher.weights)


train = training_command(
    PretrainConfig,
    lazy_import("eva_pretrain.training:train"),
    program="pretrain/train.py",
    check=_check,
    planning="eva_pretrain.training",
)
train_tokenizer = training_command(
    TokenizerConfig,
    lazy_import("eva_pretrain.tokenizer:train_tokenizer"),
    program="pretrain/train_tokenizer.py",
    check=_check_data,
)


def _parse_distill(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser("""Let a small ViT learn the features of a large one on images without
labels. They are computed once, then the training begins, whose command is printed; further
arguments are its own. The same command with --resume continues both.""")
    add = parser.add_argument
    add("images", metavar="IMAGES", help=_FORMS)
    add("--teacher", required=True, help="official name, file or run, of any task")
    add("--student", choices=_STUDENTS, default="eva_s_patch16", help="default: %(default)s")
    help_text = "folder of the run, and of the features (default: output/NAME, or NAME-2)"
    add("--output", help=help_text)
    options, rest = parser.parse_known_args(arguments)
    options.rest = rest
    if options.output is None:
        resume = any(word.strip("-").startswith(("resume", "run.resume")) for word in rest)
        folder = Path("output") / f"{Path(options.images).stem}_{options.student}"
        options.output = str(number_folder(folder, has_run, resume=resume))
    return options


def _distill(options: argparse.Namespace) -> int:
    words = [
        f"{options.student}_student",
        "--data.train",
        options.images,
        "--teacher.weights",
        options.teacher,
        "--teacher.cache",
        f"{options.output}/features",
        "--output",
        options.output,
        *options.rest,
    ]
    echo(f"$ eva pretrain train {shlex.join(words)}")
    return train(words)


distill = Command("eva distill", _parse_distill, _distill)
