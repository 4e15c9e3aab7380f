"""The distribution eva-mmcv-operators: one file, by which mmcv has operators from the start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eva_openmmlab.stand_in import install_stand_in

FOLDER = Path(__file__).parents[2] / "third_party" / "mmcv_operators"
ORDERS = {
    "mmdet.apis": "import mmdet.apis",
    "mmseg.apis": "import mmseg.apis; import mmcv.ops",
}
# One process with what all orders have before them, and a copy of it for each.
PROGRAM = """
import contextlib, importlib, json, os, sys

for name in ("matplotlib.pyplot", "mmengine.runner", "mmcv", "pandas", "scipy.optimize", "timm",
             "scipy.signal", "sklearn.mixture", "torch._dynamo", "torchvision", "wcwidth"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
assert not [name for name in sys.modules if name.startswith("eva_") or name == "mmcv._ext"]

def check(name):
    import torch
    import mmcv.ops
    from mmcv.ops import multi_scale_deform_attn as attention
    from eva_openmmlab.stand_in import STAND_IN
    assert sys.modules["mmcv._ext"] is STAND_IN
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]])
    _, kept = mmcv.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5)
    assert kept.tolist() == [1, 2]
    attention.IS_CUDA_AVAILABLE = True  # as on a GPU
    from eva_openmmlab.stand_in import install_stand_in
    assert install_stand_in() is True
    assert attention.IS_CUDA_AVAILABLE is False
    assert sys.modules["mmcv._ext"] is mmcv.ops.info.ext_module is STAND_IN
    assert importlib.util.find_spec("mmcv._ext").origin.endswith("mmcv/_ext.py")
    from mmdet.models.dense_heads import Mask2FormerHead, mask2former_head
    from mmseg.models import Mask2FormerHead as Segmenting
    assert issubclass(Segmenting, Mask2FormerHead)
    assert mask2former_head.point_sample is mmcv.ops.point_sample

for name, order in json.loads(sys.argv[1]).items():
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        print("outcome", name, os.waitstatus_to_exitcode(status), flush=True)
        continue
    try:
        exec(order)
        check(name)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not install_stand_in(), reason="mmcv's operations are compiled here")
def test_what_is_imported_first_does_not_matter(mmengine_runs, tmp_path):
    environment = mmengine_runs.environment(tmp_path)
    words = [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(ORDERS)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("outcome ")]
    assert {name: code for _, name, code in lines} == dict.fromkeys(ORDERS, "0"), done.stderr[
        -3000:
    ]


def test_pip_installs_one_file_without_network(tmp_path):
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    before = sorted(FOLDER.iterdir())
    subprocess.run([*command, "--no-compile", "--target", tmp_path, FOLDER], check=True)
    files = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert {name for name in files if ".dist-info/" not in name} == {"mmcv/_ext.py"}
    assert (tmp_path / "mmcv" / "_ext.py").read_bytes() == (FOLDER / "_ext.py").read_bytes()
    after = sorted(path for path in FOLDER.iterdir() if path.name != "__pycache__")
    assert after == [path for path in before if path.name != "__pycache__"]
