"""Command line of a project: a recipe, and its values as options."""

import argparse
import contextlib
import json
import logging
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm

from eva_data.interruption import EXIT_KEYBOARD
from eva_engine import distributed
from eva_engine.checkpoints.output_folder import reserved
from eva_engine.checkpoints.run_checkpoint import RunCheckpoints
from eva_engine.config import as_plain
from eva_engine.data.order import SampleError, TooManyBadSamplesError

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
        SystemExit: 75 after a signal and a checkpoint, see `eva_data.interruption`; 1 with one
            sentence for a wrong setting or a run that cannot go on, whose traceback is in the
            log; 130 after Ctrl-C.
    """
    config, only_print = parse(kind, arguments, program=program)
    if only_print:
        sys.stdout.write(json.dumps(as_plain(config), indent=2) + "\n")
        return
    # After an error the process group is left as it is: taking it down needs all processes, and
    # the others notice the end of this one.
    folder = output(config)
    try:
        place = distributed.start(device(config))
        with reserved(folder):
            _log_to(folder)
            _reported(train, config, place)
        distributed.stop()
    except SystemExit:  # on all processes alike
        distributed.stop()
        raise
    except KeyboardInterrupt:
        if distributed.rank() == 0:
            sys.stderr.write(f"{program}: stopped by the keyboard; {_what_is_saved(folder)}\n")
        sys.exit(EXIT_KEYBOARD)
    except _SENTENCE_IS_ENOUGH as error:
        sys.exit(f"{program}: {sentence(error)}")
    except RuntimeError as error:
        if isinstance(error, SampleError) or not _is_end_of_another(error):
            raise
        sys.exit(
            f"{program}: process {distributed.rank()} lost another one, or the connection to it "
            f"({sentence(error)[:200]}); if that one has ended, its own message, log.txt or "
            f"log_rankN.txt in {folder} says why"
        )


def sentence(error: BaseException) -> str:
    """The message of an error in one line; of one in a loader's process without its traceback."""
    text = str(error).strip()
    if not text:
        return repr(error)
    if "Original Traceback" not in text:
        return " ".join(text.split())
    return text.splitlines()[-1].partition(": ")[2]


def _reported(train: Callable[[C, torch.device], None], config: C, place: torch.device) -> None:
    """Train; the traceback of an error goes to the log, and to the launcher if it is torchrun."""
    work = train
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import record

        work = record(train)
    try:
        work(config, place)
    except Exception:
        logger.debug("ended by an error", exc_info=True)
        raise


def _is_end_of_another(error: RuntimeError) -> bool:
    """Whether an exchange failed because its other side has ended."""
    text = str(error)
    return distributed.world_size() > 1 and (
        isinstance(error, torch.distributed.DistError) or "gloo" in text or "Connection" in text
    )


def _what_is_saved(folder: Path) -> str:
    complete = RunCheckpoints(folder, keep=1).complete()
    if not complete:
        return f"nothing is saved in {folder}: the run begins at step 1 again"
    step = int(complete[-1].name.rpartition("_")[2])
    return f"step {step} is saved, the same command with --run.resume continues after it"


class _Terminal(logging.Handler):
    """Writes above a progress bar, where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class _LogFile(logging.FileHandler):
    """A file that appears with its first line; if it cannot be written, that is said once."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", delay=True)
        self._failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Called inside the handling of an error."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._failed:
            self._failed = True
            tqdm.write(f"{self.baseFilename} cannot be written: {error.strerror}", file=sys.stderr)

    def close(self) -> None:
        """Close the file, also if its last lines find no space."""
        with contextlib.suppress(OSError):
            super().close()


def _log_to(folder: Path) -> None:
    """Main process: terminal and `log.txt`; others: warnings, and to `log_rankN.txt`."""
    rank = distributed.rank()
    file = folder / (f"log_rank{rank}.txt" if rank else "log.txt")
    logger.setLevel(logging.DEBUG)  # the traceback of an error: to the file only
    logging.basicConfig(
        level=logging.WARNING if rank else logging.INFO,
        format="%(asctime)s %(levelname).1s %(message)s",
        datefmt="%m-%d %H:%M:%S",
        handlers=[_Terminal(level=logging.INFO), _LogFile(file)],
        force=True,
    )
