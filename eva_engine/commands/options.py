"""What the commands share: their options, device and number format, and how errors are told."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import Literal

import torch

from eva_data.interruption import EXIT_KEYBOARD
from eva_engine import distributed
from eva_engine.commands.training import sentence
from eva_engine.config import MOST_WORKERS

Precision = Literal["auto", "fp32", "fp16", "bf16"]
PRECISIONS = ("auto", "fp32", "fp16", "bf16")
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def add_arguments(parser: argparse.ArgumentParser, *, batch_size: int = 64) -> None:
    """Add the options of how a model is run.

    Args:
        parser: Receives them.
        batch_size: Default.
    """
    add = parser.add_argument
    add("--batch-size", type=whole_number(1), default=batch_size, help="default: %(default)s")
    workers = min(4, os.cpu_count() or 1)
    add(
        "--workers",
        type=whole_number(0, MOST_WORKERS),
        default=workers,
        help="that load (default: %(default)s)",
    )
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--precision", choices=PRECISIONS, default="auto", help="default: fp16 on a GPU, else fp32")
    add("--local_rank", help=argparse.SUPPRESS)


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Make the type of an option that is a whole number within limits.

    Args:
        least: Smallest value.
        most: Largest one; None for no limit.

    Returns:
        For `type` of `argparse`.
    """

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        if most is not None and value > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, got {text}")
        return value

    return number


def choose_device(device: str = "auto", *, join: bool = False) -> torch.device:
    """Choose a device.

    Args:
        device: `cuda`, `cpu`, or `auto` for a GPU where there is one.
        join: Join the other processes, where `torchrun` started several.

    Returns:
        That of this process.

    Raises:
        ValueError: If there is no GPU, but one is asked for.
    """
    if join and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return distributed.start(device)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device}: this machine has no GPU; use cpu")
    return torch.device(device)


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Number format of a model: by default fp16 on a GPU, as officially, and fp32 elsewhere."""
    if precision == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return _DTYPES[precision]


def run(program: str, command: Callable[[], None]) -> None:
    """Run a command; what its user can mend ends it with a sentence.

    Args:
        program: Name in the message.
        command: Does the work.

    Raises:
        SystemExit: 1 after a message; 130 after Ctrl-C.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        command()
        distributed.stop()
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{program}: {sentence(error)}")
    except KeyboardInterrupt:
        sys.exit(EXIT_KEYBOARD)
