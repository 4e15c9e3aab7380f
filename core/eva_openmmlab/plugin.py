"""Registers what the frameworks on mmengine share; the plug-ins of the projects import it.

It registers in mmengine's own registries, to which those of mmsegmentation and mmdetection fall
back.
"""

from eva_openmmlab import backbone, external_configs, flops, mmcv_extension, pictures, weights
from eva_openmmlab.config import files
from eva_openmmlab.training import (
    checkpoint_hook,
    loops,
    optimizer,
    runner,
    step_guard,
)

__all__ = [
    "backbone",
    "checkpoint_hook",
    "external_configs",
    "files",
    "flops",
    "loops",
    "mmcv_extension",
    "optimizer",
    "pictures",
    "runner",
    "step_guard",
    "weights",
]
