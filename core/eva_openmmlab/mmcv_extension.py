"""The stand-in for mmcv's compiled operations, put in place where they are missing.

Importing this module does it. It finds mmcv in one of three states: compiled, without `mmcv._ext`,
or with the file of eva-mmcv-operators in its place, which hands over to the same stand-in.
"""

import importlib
import importlib.util
import logging
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from typing import Any

from eva_openmmlab.late_imports import make_up_for
from eva_openmmlab.stand_in import EXTENSION, NO_CUDA, STAND_IN

logger = logging.getLogger(__name__)

ATTENTION = "mmcv.ops.multi_scale_deform_attn"


def install_stand_in() -> bool:
    """Put the stand-in in place unless mmcv's operations are compiled.

    `eva_openmmlab.plugin` sees to it. mmcv's own deformable attention then takes its PyTorch form
    on a GPU too. What mmseg and mmdet lack because they were imported earlier is added to them.

    Returns:
        Whether the stand-in is in place, now or from earlier on.
    """
    if sys.modules.get(EXTENSION) is STAND_IN:  # by an earlier call, or by the file beside mmcv's
        _without_cuda()
        return True
    spec = importlib.util.find_spec(EXTENSION)
    if spec is not None and not isinstance(spec.loader, SourceFileLoader):
        if not has_cuda_operations():  # compiled, but for CPUs alone
            _without_cuda()
        return False
    # mmengine looks for the module with find_spec, which wants one
    STAND_IN.__spec__ = spec or ModuleSpec(EXTENSION, loader=None)
    sys.modules[EXTENSION] = STAND_IN
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
