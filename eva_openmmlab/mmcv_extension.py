"""A stand-in for mmcv's compiled operations, which a plain `pip install` leaves out.

Without them `mmcv.ops` cannot be imported, and with it neither `mmdet.models` nor mmseg's
Mask2Former head. With the stand-in everything imports; what mmdetection's detectors call (NMS,
RoIAlign, focal loss, deformable attention) runs by torchvision and PyTorch, and of the rest only an
operation that is really called raises. Importing this module puts it in place where it is needed.
"""

import importlib
import importlib.machinery
import importlib.util
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from eva_openmmlab.late_imports import make_up_for
from eva_openmmlab.operators import OPERATORS

logger = logging.getLogger(__name__)

EXTENSION = "mmcv._ext"
ATTENTION = "mmcv.ops.multi_scale_deform_attn"
NO_CUDA = "not available"  # what mmcv's own build without CUDA says

# What mmcv reports about its build; the environment's listing at the start of a run asks for it.
_BUILD = {"get_compiler_version": "not compiled", "get_compiling_cuda_version": NO_CUDA}


class MissingExtension(ModuleType):
    """The module `mmcv._ext` where it was not compiled: a few functions, the others raise."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name in _BUILD:
            return lambda: _BUILD[name]
        if name in OPERATORS:
            return OPERATORS[name]

        def missing(*args: Any, **kwargs: Any) -> None:
            del args, kwargs
            raise RuntimeError(
                f"mmcv's operation {name!r} is not compiled in this environment; compile mmcv "
                "with `pip install --force-reinstall --no-deps --no-build-isolation --no-binary "
                "onedl-mmcv onedl-mmcv==2.3.6` (with a CUDA compiler for the GPU), or use a model "
                "that does without it"
            )

        return missing


def install_stand_in() -> bool:
    """Put the stand-in in place unless mmcv's operations are compiled.

    `eva_openmmlab.plugin` sees to it. mmcv's own deformable attention then takes its PyTorch form
    on a GPU too. What mmseg and mmdet lack because they were imported earlier is added to them.

    Returns:
        Whether the stand-in is in place, now or from an earlier call.
    """
    if importlib.util.find_spec(EXTENSION) is not None:
        stands_in = isinstance(sys.modules.get(EXTENSION), MissingExtension)
        if not stands_in and not has_cuda_operations():  # compiled, but for CPUs alone
            _without_cuda()
        return stands_in
    module = MissingExtension(EXTENSION, "Stand-in for mmcv's compiled operations.")
    # mmengine looks for the module with find_spec, which wants one
    module.__spec__ = importlib.machinery.ModuleSpec(EXTENSION, loader=None)
    sys.modules[EXTENSION] = module
    _without_cuda()
    late = make_up_for()
    if late:
        logger.info("mmseg or mmdet was imported earlier; added to it: %s", ", ".join(late))
    logger.info("mmcv's operations are not compiled; torchvision and PyTorch stand in for them")
    return True


def _without_cuda() -> None:
    """Keep mmcv's own deformable attention from calling an operation that is missing."""
    attention: Any = importlib.import_module(ATTENTION)
    attention.IS_CUDA_AVAILABLE = False


def has_cuda_operations() -> bool:
    """Return whether mmcv's operations are compiled for the GPU."""
    build = importlib.import_module("mmcv.ops.info")
    return bool(build.get_compiling_cuda_version() != NO_CUDA)


install_stand_in()
