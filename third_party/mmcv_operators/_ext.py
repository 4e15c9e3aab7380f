"""`mmcv._ext` where mmcv has no compiled operators: the stand-in of the EVA toolkit.

pip's mmcv lacks this module, without which neither `mmcv.ops` nor `mmdet.models` can be imported:
mmdetection's own programs end before they read a config. With this file beside mmcv's they run as
they are. A compiled `_ext.*.so` in the same folder comes first, by Python's order of suffixes.
"""

import sys

try:
    from eva_openmmlab.stand_in import STAND_IN
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "eva_openmmlab":
        raise
    raise ModuleNotFoundError(
        "mmcv's operators are not compiled, and the EVA toolkit, which stands in for them, is not "
        "installed here: install eva-toolkit, or remove this file with "
        "`pip uninstall eva-mmcv-operators`",
        name=__name__,
    ) from None

STAND_IN.__spec__ = __spec__
STAND_IN.__file__ = __file__
sys.modules[__name__] = STAND_IN
