"""Command lines of the programs on mmengine, read before any framework is imported."""

import argparse
import contextlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from eva_data.files import home_expanded
from eva_openmmlab.run_folder import config_of_run
from eva_runs.commands import program_name
from eva_runs.options import add_download_option
from eva_runs.recipes import SUFFIXES as RECIPES
from eva_runs.recipes import WEIGHTS as SUFFIXES
from eva_runs.recipes import find_recipe

WEIGHTS = (
    "folder of a run, path of a file, name of an official one (`eva weights list`), or "
    "hf://ORG/REPOSITORY/FILE"
)
_SETTING = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=")


def training_parser(task: str, own_data: ModuleType, *, what: str, examples: str) -> "RunParser":
    """Make the parser of a training.

    Args:
        task: Task of the recipes, one of `eva_runs.recipes.TASKS`.
        own_data: The project's module for own data, with `add_arguments` and `check`.
        what: What is trained: "a segmentor".
        examples: Commands, for the end of the help.
    """
    parser = RunParser(task, "train.py", usage="CONFIG", about=f"Train {what}.", epilog=examples)
    add = parser.add_argument
    add(
        "--load-from",
        metavar="WEIGHTS",
        help=f"weights to start from, in place of the config's: {WEIGHTS}",
    )
    add("--resume", action="store_true", help="continue the run of the work folder, if it has one")
    add("--amp", action="store_true", help="train in mixed precision (GPU)")
    own_data.add_arguments(parser)
    return parser


def test_parser(task: str, own_data: ModuleType, *, what: str) -> "RunParser":
    """Make the parser of an evaluation; arguments as for `training_parser`."""
    about = f"Score {what}."
    parser = RunParser(task, "test.py", usage="[CONFIG] WEIGHTS", about=about, scored=True)
    parser.add_argument("--weights", help=f"{WEIGHTS}; the folder of a run brings its config along")
    own_data.add_arguments(parser, training=False)
    return parser


class RunParser(argparse.ArgumentParser):
    """A command line with a config, settings KEY=VALUE anywhere, and flags.

    Args:
        task: Task of the recipes.
        program: Name of the program in a checkout, below the folder of the task.
        usage: Words besides flags and settings.
        about: What the program does.
        epilog: End of the help.
        scored: Whether weights are scored, which bring the config of their run along.
    """

    def __init__(
        self,
        task: str,
        program: str,
        *,
        usage: str,
        about: str,
        epilog: str = "",
        scored: bool = False,
    ) -> None:
        super().__init__(
            prog=program_name(program),
            usage=f"%(prog)s {usage} [flags] [KEY=VALUE ...]",
            description=about,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._task, self._scored = task, scored
        add = self.add_argument
        add(
            "words",
            nargs="*",
            metavar=usage,
            help=f"CONFIG is a config file, or the name of a recipe: `eva recipes {task}`"
            + ("; the folder of a run has its own" if scored else ""),
        )
        add(
            "--cfg-options",
            nargs="+",
            action="extend",
            default=[],
            metavar="KEY=VALUE",
            help="settings of the config to replace, such as train_cfg.max_iters=5000, "
            "optim_wrapper.optimizer.lr=1e-5 or train_dataloader.batch_size=2; they may stand "
            "anywhere, also without this flag",
        )
        add("--work-dir", metavar="DIR", help="folder of logs and checkpoints")
        add("--data-root", metavar="DIR", help="folder of the dataset, in place of the config's")
        add(
            "--launcher",
            choices=["none", "pytorch", "slurm", "mpi"],
            # torchrun says in the environment that it started the process
            default="pytorch" if "TORCHELASTIC_RUN_ID" in os.environ else "none",
            help="what started the processes (default: found out for torchrun)",
        )
        add_download_option(self)
        add("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)

    def read(
        self, arguments: Sequence[str] | None, *, check: Callable[[argparse.Namespace], object]
    ) -> argparse.Namespace:
        """Read the command line and look for the files that it names.

        Args:
            arguments: Command line; None for the one of the process.
            check: Further check, of own data.

        Returns:
            The arguments; `config` is a file and `settings` name -> text.

        Raises:
            SystemExit: With code 2, if the command line is wrong; with 1, if a recipe, a folder or
                a file is missing.
        """
        args = self.parse_intermixed_args(arguments)
        loose = [*args.words, *args.cfg_options]
        settings = [one for one in loose if _SETTING.match(one) and not Path(one).exists()]
        args.settings = {key: value for key, _, value in (one.partition("=") for one in settings)}
        words = [one for one in loose if one not in settings]
        try:
            args.of_run = False
            self._take(args, words)
            if args.data_root is not None and not Path(args.data_root).is_dir():
                raise FileNotFoundError(f"--data-root {args.data_root} is not a folder")
            check(args)
        except (ValueError, OSError) as error:
            self.exit(1, f"{self.prog}: {error}\n")
        return args

    def _take(self, args: argparse.Namespace, words: list[str]) -> None:
        """Take config and weights from the words that are not settings."""
        if self._scored and args.weights is None:
            args.weights = words.pop() if words else None
        if self._scored and args.weights is None:
            self.error("name the weights: the folder of a run, a file")
        if len(words) > 1 or not (words or self._scored):
            fault = f"one word too many: {words[1]}" if words else "name a config or recipe"
            self.error(f"{fault}; settings are written KEY=VALUE")
        if words:
            args.config = find_recipe(self._task, words[0])
            return
        args.config, args.of_run = config_of_run(home_expanded(args.weights)), True
        if args.config is None:
            raise ValueError(f"{args.weights} has no config of a run: name its recipe before it")


class Model(NamedTuple):
    """What the command line of a demo names.

    Attributes:
        config: Path of the config.
        weights: Folder of a run, path of a file, or name of an official one.
        inputs: Images, videos, folders, patterns, numbers of cameras.
    """

    config: Path
    weights: str
    inputs: list[Path]


def demo_parser(description: str, epilog: str, *, task: str) -> argparse.ArgumentParser:
    """Make the parser of a demo, to be read by `parse_intermixed_args`.

    Args:
        description: What it does.
        epilog: What it writes, with examples.
        task: Task of the recipes, such as "segmentation".
    """
    parser = argparse.ArgumentParser(
        prog=program_name("demo.py"),
        usage="%(prog)s [CONFIG] WEIGHTS INPUT ... --output DIR [flags]",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "words",
        nargs="+",
        metavar="[CONFIG] WEIGHTS INPUT",
        help=f"the folder of a run; or a config, or the name of a recipe (`eva recipes {task}`), "
        "and weights: a path, or the name of an official file. Then images, videos, folders of "
        'them, patterns in quotes ("photos/*.jpg"), or the number of a camera, which Ctrl-C ends',
    )
    add("--weights", help=f"{WEIGHTS}; the other words are then [CONFIG] INPUT")
    add("--output", required=True, type=Path, metavar="DIR", help="folder for the results")
    add("--device", help='"cuda", "cuda:1" or "cpu" (default: the GPU if there is one)')
    add("--overwrite", action="store_true", help="replace earlier results")
    add_download_option(parser)
    return parser


def named_model(words: Sequence[str], *, task: str, named: str | None = None) -> Model:
    """Find out which words name a model, and which the inputs.

    Args:
        words: Words of the command line besides flags.
        task: Task of the recipes.
        named: Weights behind `--weights`; the words are then `[CONFIG] INPUT ...`.

    Returns:
        The model and the inputs.

    Raises:
        ValueError: If a recipe, the weights or the inputs are missing.
    """
    rest, config = list(words), None
    first = home_expanded(rest[0])
    if named is None and not first.is_dir() and first.suffix not in SUFFIXES:
        config = find_recipe(task, rest.pop(0))
    elif named is not None and (first.suffix in RECIPES or not first.exists()):
        with contextlib.suppress(ValueError):
            config = find_recipe(task, rest[0])
            rest.pop(0)
    weights = named or (rest.pop(0) if rest else None)
    if weights is None or not rest:
        raise ValueError(f"name weights and images behind {words[0]}: files, folders, patterns")
    config = config or config_of_run(home_expanded(weights))
    if config is None:
        raise ValueError(
            f"{weights} has no config of a run: name the config or recipe of these weights before "
            f"them; `eva recipes {task}` lists all"
        )
    return Model(config, weights, [Path(word) for word in rest])
