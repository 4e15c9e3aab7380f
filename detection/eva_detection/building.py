"""Parts of a config, built; an error says which part it is about."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.utils.registry import locate
from omegaconf.errors import OmegaConfBaseException

from eva_runs.errors import one_line


def target_of(node: Any) -> Any:
    """Return the class or function that a node of a config builds; None for another node."""
    target = node.get("_target_")
    return locate(target) if isinstance(target, str) else target


@contextlib.contextmanager
def naming(
    what: str, kinds: type[Exception] | tuple[type[Exception], ...] = Exception
) -> Iterator[None]:
    """Let errors of a block be ValueErrors that say what they are about, but for those of files."""
    try:
        yield
    except kinds as error:
        if isinstance(error, OSError | MemoryError):
            raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{what}: {kind}{one_line(error)}") from error


def build(cfg: Any, name: str, make: Callable[[Any], Any] = instantiate) -> Any:
    """Instantiate a part of a config; an error names the part."""
    with naming(f"{name} cannot be built"):
        return make(cfg)


def resolving() -> contextlib.AbstractContextManager[None]:
    """Let a value that is missing, or refers to nothing, be a ValueError."""
    return naming("the config cannot be resolved", OmegaConfBaseException)


def require_device(device: str) -> None:
    """Refuse a device that is not there, before a model is built."""
    build(device, f"a model on the device {device!r}", lambda one: torch.empty(0, device=one))
