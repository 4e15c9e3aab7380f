"""The module that stands in for mmcv's compiled operations, which a plain `pip install` leaves out.

What mmdetection's detectors call (NMS, RoIAlign, focal loss) runs by torchvision, deformable
attention by mmcv's own PyTorch form; of the rest only an operation that is really called raises.
Importing this imports nothing of mmcv: the file `mmcv/_ext.py` of eva-mmcv-operators does so
halfway through `mmcv.ops`. The plug-ins call `install_stand_in` before anything of mmseg or mmdet.
"""

import contextlib
import importlib
import importlib.util
import io
import logging
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any

from eva_openmmlab.operators import OPERATORS

logger = logging.getLogger(__name__)

EXTENSION = "mmcv._ext"
ATTENTION = "mmcv.ops.multi_scale_deform_attn"
NO_CUDA = "not available"  # what mmcv's own build without CUDA says


class MissingExtension(ModuleType):
    """The module `mmcv._ext` where it was not compiled: a few functions, the others raise."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

        def missing(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError(
                f"mmcv's operation {name!r} is not compiled in this environment: compile mmcv "
                "(scripts/build_mmcv_ops.sh), or use a model that does without it"
            )

        return missing


STAND_IN = MissingExtension(EXTENSION, "Stand-in for mmcv's compiled operations.")
vars(STAND_IN).update(
    OPERATORS,
    get_compiler_version=lambda: "not compiled",  # the environment's listing of a run asks
    get_compiling_cuda_version=lambda: NO_CUDA,
)


def install_stand_in() -> bool:
    """Put the stand-in in place unless mmcv's operations are compiled; return whether it is there.

    Without operations for a GPU, mmcv's own deformable attention takes its PyTorch form there too.
    """
    there = sys.modules.get(EXTENSION) is STAND_IN  # by an earlier call, or the file beside mmcv's
    spec = None if there else importlib.util.find_spec(EXTENSION)
    stands_in = spec is None or isinstance(spec.loader, SourceFileLoader)
    if stands_in and not there:
        # mmengine looks for the module with find_spec, which wants one
        STAND_IN.__spec__ = spec or ModuleSpec(EXTENSION, loader=None)
        sys.modules[EXTENSION] = STAND_IN
        logger.info("mmcv's operations are not compiled; torchvision and PyTorch stand in for them")
    build: Any = importlib.import_module("mmcv.ops.info")
    if build.get_compiling_cuda_version() == NO_CUDA:
        attention: Any = importlib.import_module(ATTENTION)
        attention.IS_CUDA_AVAILABLE = False
    return stands_in


def import_datasets(package: str) -> None:
    """Import `mmseg.datasets` or `mmdet.datasets` without what they print of a missing package."""
    with contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module(package)
