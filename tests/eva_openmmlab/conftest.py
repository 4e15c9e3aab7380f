"""The stand-in for mmcv's operations comes before anything of mmsegmentation or mmdetection."""

import importlib

importlib.import_module("eva_mmdetection.plugin")
