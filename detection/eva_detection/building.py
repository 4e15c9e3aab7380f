"""Parts of a config, built; an error in one sentence."""

import contextlib
import os
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf.errors import OmegaConfBaseException

_LONGEST = 600  # characters of a message; some libraries list everything they know


def build(cfg: Any, name: str, make: Callable[[Any], Any] = instantiate) -> Any:
    """Instantiate a part of a config."""
    try:
        return make(cfg)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{name} cannot be built: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """Report an error in one sentence, with its type where the message alone explains nothing."""
    text = str(error).strip()
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if "Original Traceback" in text:  # of a data worker: the last line is the error
        return text.splitlines()[-1].strip()
    line = textwrap.shorten(text, _LONGEST, placeholder=" ...")
    if isinstance(error, ValueError | OSError) and line:
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def require_device(device: str) -> None:
    """Refuse a device that is not there, before a model is built."""
    build(device, f"a model on the device {device!r}", lambda one: torch.empty(0, device=one))


@contextlib.contextmanager
def resolving() -> Iterator[None]:
    """Report a value that refers to nothing in one sentence."""
    try:
        yield
    except OmegaConfBaseException as error:
        raise ValueError(f"the config cannot be resolved: {describe(error)}") from error
