"""Command line of a project: a recipe, and its values as options."""

import argparse
import json
import logging
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm

from eva_engine import distributed
from eva_engine.config import as_plain
from eva_engine.data import TooManyBadSamplesError

C = TypeVar("C")

logger = logging.getLogger(__name__)

_SENTENCE_IS_ENOUGH = (ValueError, OSError, FloatingPointError, TooManyBadSamplesError)


def load_recipe(file: str | Path, kind: type[C]) -> C:
    """Read the `config` of a recipe.

    Args:
        file: A Python file that defines `config`.
        kind: The class that it must have.

    Returns:
        The config.

    Raises:
        ValueError: If there is no such file, or no such config in it.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"no recipe {str(file)!r}")
    config = runpy.run_path(str(path)).get("config")
    if not isinstance(config, kind):
        raise ValueError(f"{path.name} defines no `config` of {kind.__name__}")
    return config


def parse(kind: type[C], arguments: Sequence[str] | None = None, *, program: str) -> tuple[C, bool]:
    """Parse `RECIPE [--print-config] [--name.of.value VALUE ...]`.

    Args:
        kind: Class of the config.
        arguments: Those of the command line by default.
        program: Name in the help.

    Returns:
        The config with its overrides, and whether it is only to be printed.

    Raises:
        SystemExit: With a sentence for a recipe that is none; 2 after a message on a wrong option
            or value; 0 after `--help`.
    """
    import tyro

    first = argparse.ArgumentParser(
        prog=program,
        usage=f"{program} RECIPE [--print-config] [--name VALUE ...]",
        description="Train from a recipe, a Python file that defines `config`. With a recipe, "
        "--help lists all its values.",
        add_help=False,
        allow_abbrev=False,
    )
    first.add_argument("recipe", nargs="?", help="file below configs/")
    first.add_argument("--print-config", action="store_true", help="print the config and stop")
    # the launcher `deepspeed` adds it; the variable LOCAL_RANK, which it sets too, is what counts
    first.add_argument("--local_rank", help=argparse.SUPPRESS)
    known, rest = first.parse_known_args(arguments)
    if known.recipe is None:
        first.print_help()
        sys.exit(0 if {"-h", "--help"} & set(rest) else 2)
    try:
        default = load_recipe(known.recipe, kind)
        config = tyro.cli(
            kind, default=default, args=rest, prog=f"{program} {Path(known.recipe).name}"
        )
    except ValueError as error:
        sys.exit(f"{program}: {error}")
    return config, known.print_config


def main(
    kind: type[C],
    train: Callable[[C, torch.device], None],
    *,
    program: str,
    device: Callable[[C], str],
    output: Callable[[C], Path],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run a project's training from the command line.

    Args:
        kind: Class of its configs.
        train: Trains, given config and device.
        program: Name in the help.
        device: The device that a config asks for.
        output: The output folder of a config.
        arguments: Those of the command line by default.

    Raises:
        SystemExit: 75 after a signal and a checkpoint, see `eva_engine.signals`; 1 with one
            sentence for a wrong setting or a run that cannot go on, whose traceback is in
            `log.txt`; 130 after Ctrl-C.
    """
    config, only_print = parse(kind, arguments, program=program)
    if only_print:
        sys.stdout.write(json.dumps(as_plain(config), indent=2) + "\n")
        return
    # After an error the process group is left as it is: taking it down needs all processes, and
    # the end of this one is what tells the others.
    try:
        place = distributed.start(device(config))
        _log_to(output(config), main=distributed.rank() == 0)
        train(config, place)
        distributed.stop()
    except _SENTENCE_IS_ENOUGH as error:
        logger.debug("ended by an error", exc_info=True)
        sys.exit(f"{program}: {error}")
    except KeyboardInterrupt:
        logger.info("stopped by the keyboard; the newest checkpoint is what `resume` takes")
        sys.exit(130)
    except Exception:
        logger.debug("ended by an error", exc_info=True)
        raise
    except SystemExit:  # on all processes alike
        distributed.stop()
        raise


class _Terminal(logging.Handler):
    """Writes above a progress bar, where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def _log_to(folder: Path, *, main: bool) -> None:
    """Main process: terminal and `log.txt`; others: warnings to the terminal."""
    terminal = _Terminal(level=logging.INFO)
    handlers: list[logging.Handler] = [terminal]
    logger.setLevel(logging.DEBUG)  # the traceback of an error: to the file only
    if main:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(folder / "log.txt", encoding="utf-8"))
    logging.basicConfig(
        level=logging.INFO if main else logging.WARNING,
        format="%(asctime)s %(levelname).1s %(message)s",
        datefmt="%m-%d %H:%M:%S",
        handlers=handlers,
        force=True,
    )
