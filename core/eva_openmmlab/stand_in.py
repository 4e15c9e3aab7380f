"""The module that stands in for mmcv's compiled operations, which a plain `pip install` leaves out.

With it `mmcv.ops`, `mmdet.models` and mmseg's Mask2Former head can be imported; what mmdetection's
detectors call (NMS, RoIAlign, focal loss, deformable attention) runs by torchvision and PyTorch,
and of the rest only an operation that is really called raises. Importing this changes nothing
and imports nothing of mmcv: the file `mmcv/_ext.py` of eva-mmcv-operators does so halfway through
the import of `mmcv.ops`.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from eva_openmmlab.operators import OPERATORS

EXTENSION = "mmcv._ext"
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


STAND_IN = MissingExtension(EXTENSION, "Stand-in for mmcv's compiled operations.")
