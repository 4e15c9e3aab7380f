"""Mask2Former is complete whatever was imported before the plugin."""

import json
import subprocess
import sys

import pytest

from eva_openmmlab.mmcv_extension import install_stand_in

pytestmark = pytest.mark.skipif(
    not install_stand_in(), reason="mmcv's operations are compiled here"
)
ORDERS = {
    "plugin": "import eva_segmentation.plugin; import mmseg.apis, mmdet.models",
    "mmseg.apis": "import mmseg.apis; import eva_segmentation.plugin",
    "mmdet.models": "attempt('mmdet.models'); import eva_segmentation.plugin, mmseg.apis",
    "mmcv.ops": "attempt('mmcv.ops'); import eva_segmentation.plugin, mmseg.apis",
    "config": "from mmseg.apis import init_model",  # the config names the plugin
    "mmseg.models": "from mmseg.models import Mask2FormerHead as early; "
    "import eva_segmentation.plugin",
}
# One process with what all orders have before them, and a copy of it for each.
PROGRAM = """
import contextlib, importlib, json, os, sys

for name in ("matplotlib.pyplot", "mmengine.runner", "mmcv", "pandas", "scipy.optimize",
             "scipy.signal", "sklearn.mixture", "timm", "torch._dynamo", "torchvision", "wcwidth"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)

def attempt(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert error.name == "mmcv._ext", error
    else:  # with eva-mmcv-operators, whose file is in its place
        assert sys.modules["mmcv._ext"].__file__.endswith("_ext.py")

def check(config, scope):
    from mmseg.apis import init_model
    model = init_model(config, device="cpu")
    import mmcv.ops
    from eva_openmmlab.late_imports import make_up_for
    from mmdet.models.dense_heads import Mask2FormerHead, mask2former_head
    from mmseg.models import Mask2FormerHead as Segmenting
    from mmseg.registry import MODELS
    assert isinstance(model.decode_head, (Mask2FormerHead, Segmenting))
    assert issubclass(MODELS.get("Mask2FormerHead"), Mask2FormerHead)
    assert issubclass(MODELS.get("MaskFormerHead"), MODELS.get("mmdet.MaskFormerHead"))
    assert scope.get("early", Segmenting) is Segmenting is MODELS.get("Mask2FormerHead")
    assert mask2former_head.point_sample is mmcv.ops.point_sample
    assert make_up_for() == []

config, orders = sys.argv[1], json.loads(sys.argv[2])
for name, order in orders.items():
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        print("outcome", name, os.waitstatus_to_exitcode(status), flush=True)
        continue
    try:
        scope = {"attempt": attempt}
        exec(order, scope)
        check(config, scope)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
"""


def test_every_order_of_imports_gives_a_complete_mask2former(configs):
    config = configs / "demo" / "mask2former_eva_debug.py"
    command = [sys.executable, "-c", PROGRAM, str(config), json.dumps(ORDERS)]
    run = subprocess.run(command, text=True, capture_output=True, check=True)
    lines = [line.split() for line in run.stdout.splitlines() if line.startswith("outcome ")]
    assert {name: code for _, name, code in lines} == dict.fromkeys(ORDERS, "0"), run.stderr[-3000:]
    assert "Please install" not in run.stdout + run.stderr
    # mmsegmentation prints a line about a package that nobody here needs, twice
    assert run.stdout.startswith("outcome plugin ")
