"""Registers what the frameworks on mmengine share; the plug-ins of the projects import it.

It registers in mmengine's own registries, to which those of mmsegmentation and mmdetection fall
back. The stand-in for mmcv's operators comes first.
"""

from eva_openmmlab.stand_in import install_stand_in

install_stand_in()

from eva_openmmlab import backbone, config, hooks, images, loop, optimizer, weights  # noqa: E402

__all__ = ["backbone", "config", "hooks", "images", "loop", "optimizer", "weights"]
