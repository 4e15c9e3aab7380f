"""Command line that programs on mmengine share, and the config that it describes.

A parser answers `--help` and refuses mistakes at once: what is heavy is imported where it is used.
"""

import argparse
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_data.files import home_expanded
from eva_openmmlab.config.demo_data import demo_data
from eva_openmmlab.config.runs import config_of_run
from eva_openmmlab.config.words import SETTINGS
from eva_runs.command_line.slips import SlipError, end_program
from eva_runs.command_line.weights import MISSING, WEIGHTS, one_source
from eva_runs.options import add_download_option
from eva_runs.recipes import WEIGHTS as SUFFIXES
from eva_runs.recipes import find_recipe, name_on_own_data

if TYPE_CHECKING:
    from mmengine.config import Config

OwnData = Callable[["Config", argparse.Namespace], "Config"]


class Settings(argparse.Action):
    """`--cfg-options KEY=VALUE ...`: name -> text; `values_of` turns the texts into values."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Add settings to those of earlier flags.

        Args:
            parser: The parser, which ends the program if a setting has no value.
            namespace: Receives the settings.
            values: The words after the flag.
            option_string: The flag.
        """
        words = [values] if isinstance(values, str) else list(values or ())
        settings = dict(getattr(namespace, self.dest) or {})
        for word in words:
            name, sign, text = word.partition("=")
            if not name or not sign:
                parser.error(f"argument {option_string}: must be KEY=VALUE, got {word}")
            settings[name] = text
        setattr(namespace, self.dest, settings)


def add_shared_arguments(
    parser: argparse.ArgumentParser, *, task: str, scored: bool = False
) -> None:
    """Add what training and evaluation have in common.

    Args:
        parser: Receives the arguments.
        task: Task of the recipes, one of `eva_runs.recipes.TASKS`.
        scored: Whether weights are scored, which are then an argument too.
    """
    add = parser.add_argument
    add(
        "config",
        nargs="?" if scored else None,
        metavar="CONFIG",
        help=f"config file, or name of a recipe: `eva recipes {task}` or {task}/configs"
        + ("; not needed with the folder of a run, which has its own" if scored else ""),
    )
    if scored:
        add("source", nargs="?", metavar="WEIGHTS", help="the same as --weights")
        add("--weights", help=f"{WEIGHTS}; the folder of a run brings its config along")
    add("--work-dir", metavar="DIR", help="folder of logs and checkpoints")
    add("--data-root", metavar="DIR", help="folder of the data set, in place of the config's")
    add(
        SETTINGS,
        nargs="+",
        action=Settings,
        metavar="KEY=VALUE",
        help="settings of the config to replace, such as train_cfg.max_iters=5000; they may stand "
        "anywhere, also without this flag",
    )
    # torchrun says in the environment that it started the process
    add(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="pytorch" if "TORCHELASTIC_RUN_ID" in os.environ else "none",
        help="what started the processes (default: found out for torchrun)",
    )
    add_download_option(parser)
    add("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only training has.

    Args:
        parser: Receives the arguments.
    """
    parser.add_argument(
        "--load-from",
        metavar="WEIGHTS",
        help="weights to start from, in place of the config's: folder of a run, path of a file, or "
        "name of an official one",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run of the work folder, if there is one"
    )


def parse(
    parser: argparse.ArgumentParser,
    words: Sequence[str] | None,
    *,
    task: str,
    check: Callable[[argparse.Namespace], object] | None = None,
) -> argparse.Namespace:
    """Read the command line and look for the files that it names.

    Args:
        parser: Parser with the flags of `add_shared_arguments`; its `prog` begins a refusal.
        words: Command line; None for the one of the process.
        task: Task of the recipes.
        check: Further check, without heavy imports, that raises ValueError or OSError: of own data.

    Returns:
        The arguments; `config` is the path of a file.

    Raises:
        SystemExit: With one sentence, if a recipe, a folder or a file is missing.
    """
    args = parser.parse_args(words)
    try:
        args.config = str(_config(args, task))
        if args.data_root is not None and not Path(args.data_root).is_dir():
            fix = demo_data(Path(args.data_root))
            more = f"; {fix}" if fix else ""
            raise ValueError(f"--data-root {args.data_root} is not a folder{more}")
        if check is not None:
            check(args)
    except (ValueError, OSError) as error:
        raise end_program(parser.prog, error) from error
    return args


def _config(args: argparse.Namespace, task: str) -> Path:
    """Find the config, which weights from the folder of a run bring along."""
    if hasattr(args, "source"):
        _take_weights(args)
    args.of_run = args.config is None
    if args.config is not None:
        return find_recipe(task, args.config)
    saved = config_of_run(home_expanded(args.weights))
    if saved is None:
        raise SlipError(
            f"{args.weights} is alone and not the folder of a run: name its recipe or config "
            "before it"
        )
    return saved


def _take_weights(args: argparse.Namespace) -> None:
    """Let `[CONFIG] WEIGHTS` and `[CONFIG] --weights WEIGHTS` mean the same."""
    word, args.source = args.source, None
    if args.config is not None and word is None:
        place = home_expanded(args.config)
        if args.weights is None or place.is_dir() or place.suffix in SUFFIXES:
            word, args.config = args.config, None
    args.weights = one_source(word, args.weights)
    if args.weights is None:
        raise SlipError(MISSING)


def values_of(settings: Mapping[str, str] | None) -> dict[str, Any]:
    """Turn the texts of settings into values, as mmengine's own programs do.

    Args:
        settings: Name -> text of `--cfg-options`; None for none.

    Returns:
        Name -> number, truth value, None, text, or list or tuple of them.
    """
    from mmengine.config import DictAction

    values = argparse.Namespace()
    words = [f"{name}={text}" for name, text in (settings or {}).items()]
    action = DictAction(option_strings=["--cfg-options"], dest="options")
    action(argparse.ArgumentParser(), values, words)
    return dict(values.options)


def configure(args: argparse.Namespace, own_data: OwnData) -> "Config":
    """Read the config and apply the shared arguments.

    Args:
        args: Command line with the flags of `add_shared_arguments`.
        own_data: Function that puts the project's flags for own data into a config and returns a
            new one, or the same if there are no flags.

    Returns:
        The config.

    Raises:
        FileNotFoundError: If the config or a file of own data does not exist.
        ValueError: If an option does not belong to the config, or own data are wrong.
    """
    from eva_openmmlab.config.options import load_config, set_data_root

    for known in ("The draw is False", "torch.meshgrid"):  # a user cannot do anything about them
        warnings.filterwarnings("ignore", message=known)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = load_config(args.config, values_of(args.cfg_options), plugins=False)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif name := _own_name(args):
        cfg.work_dir = str(Path("work_dirs") / name)
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(args.config).stem)
    own = own_data(cfg, args)
    if args.data_root is not None:
        if own is not cfg:
            raise ValueError(
                f"--data-root {args.data_root} has no use beside folders of your own data"
            )
        set_data_root(cfg, args.data_root)
    return own


def _own_name(args: argparse.Namespace) -> str:
    """Name the work folder of a run of a recipe on own data; empty without such data."""
    flags = ("data", "train_annotations", "train_images", "val_annotations", "val_images")
    place = next((value for name in flags if (value := getattr(args, name, None))), None)
    return "" if place is None else name_on_own_data(args.config, place)


def configure_training(args: argparse.Namespace, own_data: OwnData) -> "Config":
    """Do the same for training.

    Args:
        args: Command line, also with the flags of `add_training_arguments`.
        own_data: As for `configure`.

    Returns:
        The config, with the weights to start from.
    """
    cfg = configure(args, own_data)
    if args.resume:
        cfg.resume = True
    if args.load_from is not None:
        cfg.load_from = args.load_from
    return cfg


def configure_test(args: argparse.Namespace, own_data: OwnData) -> "Config":
    """Do the same for evaluation, in a folder below that of the training.

    Args:
        args: Command line, also with `weights`.
        own_data: As for `configure`.

    Returns:
        The config, with the weights to score.

    Raises:
        ValueError: If the runner, which writes the config into its folder, would replace it.
    """
    cfg = configure(args, own_data)
    cfg.load_from, cfg.resume = args.weights, False
    if args.work_dir is None:
        folder = Path(cfg.work_dir)
        if args.of_run:  # which may have been moved since
            given = home_expanded(args.weights)
            folder = given if given.is_dir() else given.parent
        cfg.work_dir = str(folder / "test")
    copy = Path(cfg.work_dir) / Path(args.config).name
    if copy.exists() and copy.samefile(args.config):
        raise ValueError(
            f"--work-dir {cfg.work_dir} holds {args.config}, which would be overwritten; name "
            "another folder"
        )
    return cfg
