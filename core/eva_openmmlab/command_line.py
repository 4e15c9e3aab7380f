"""Command lines of training and evaluation on mmengine, read before any framework is imported."""

import argparse
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from eva_data.files import home_expanded
from eva_openmmlab.run_folder import config_of_run
from eva_runs.commands import program_name
from eva_runs.options import add_download_option
from eva_runs.recipes import find_recipe

if TYPE_CHECKING:
    from mmengine.config import Config

WEIGHTS = (
    "folder of a run, path of a file, name of an official one (`eva weights list`), or "
    "hf://ORG/REPOSITORY/FILE"
)
_SETTING = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=")


def train(
    arguments: Sequence[str] | None, own_data: ModuleType, *, task: str, what: str, examples: str
) -> None:
    """Train `what` ("a segmentor") as a command line describes; None for that of the process.

    `own_data` is the project's module for own data, with `add_arguments`, `check` and `apply`; the
    help ends with the `examples`.
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
    args = parser.read(arguments, check=own_data.check)
    from eva_openmmlab.programs import run

    run(args, own_data.apply, task=task)


def test_parser(task: str, own_data: ModuleType, *, what: str) -> "RunParser":
    """Make the parser of an evaluation; arguments as for `train`."""
    about = f"Score {what}."
    parser = RunParser(task, "test.py", usage="[CONFIG] WEIGHTS", about=about, scored=True)
    parser.add_argument("--weights", help=f"{WEIGHTS}; the folder of a run brings its config along")
    own_data.add_arguments(parser, training=False)
    return parser


def evaluate(
    parser: "RunParser",
    arguments: Sequence[str] | None,
    own_data: ModuleType,
    *,
    change: Callable[["Config", argparse.Namespace], None],
) -> None:
    """Score weights as a command line describes; `change` applies the project's own flags."""
    args = parser.read(arguments, check=own_data.check)
    from eva_openmmlab.programs import run

    run(args, own_data.apply, task=parser.task, change=change)


class RunParser(argparse.ArgumentParser):
    """A command line with a config, settings KEY=VALUE anywhere, and flags.

    `usage` has the words besides those; weights that are `scored` bring the config of their run.
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
        self.task, self._scored = task, scored
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
        """Read the command line and look for the files that it names; `check` is for own data.

        `config` of the result is a file, `of_run` says whether of a run, and `settings` are
        name -> text.
        """
        args = self.parse_intermixed_args(arguments)
        loose = [*args.words, *args.cfg_options]
        settings = [one for one in loose if _SETTING.match(one) and not Path(one).exists()]
        args.settings = {key: value for key, _, value in (one.partition("=") for one in settings)}
        words = [one for one in loose if one not in settings]
        if self._scored and args.weights is None:
            args.weights = words.pop() if words else self.error("name the weights")
        if len(words) > 1 or not (words or self._scored):
            fault = f"one word too many: {words[1]}" if words else "name a config or recipe"
            self.error(f"{fault}; settings are written KEY=VALUE")
        args.of_run = not words
        try:
            args.config = find_recipe(self.task, words[0]) if words else run_config(args.weights)
            if args.data_root is not None and not Path(args.data_root).is_dir():
                raise FileNotFoundError(f"--data-root {args.data_root} is not a folder")
            check(args)
        except (ValueError, OSError) as error:
            self.exit(1, f"{self.prog}: {error}\n")
        return args


def run_config(weights: str) -> Path:
    """Return the config of the run that weights are of; ValueError if they are of none."""
    config = config_of_run(home_expanded(weights))
    if config is None:
        raise ValueError(f"{weights} has no config of a run: name its config or recipe before it")
    return config


def require_empty(folder: Path) -> None:
    """Refuse a folder of results that has anything in it, by a ValueError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--out {folder} is there already and not empty; name another folder")
