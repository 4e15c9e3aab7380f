"""The names of `eva_backbone` are imported when they are used, and editors see them all."""

import ast
import subprocess
import sys
from pathlib import Path

import eva_backbone

SCRIPT = """
import sys, eva_backbone, eva_backbone.variants
assert not {"torch", "numpy"} & {*sys.modules}
assert set(eva_backbone.__all__) <= set(dir(eva_backbone))
assert eva_backbone.VARIANTS["eva_debug"].depth == 5
from eva_backbone.checkpoints.registry import resolve_source
resolve_source("eva_debug")
assert "torch" not in sys.modules
from eva_backbone import *
assert VisionTransformer is eva_backbone.vit.VisionTransformer
others = {"timm", "detectron2", "mmengine", "mmcv", "deepspeed", "torchvision", "scipy", "pandas"}
assert not others & {*sys.modules}
"""


def test_nothing_is_loaded_before_it_is_used():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


def test_every_name_leads_to_its_module():
    """The same as in the block that type checkers and editors read."""
    tree = ast.parse(Path(eva_backbone.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    homes = {name.name: node.module for node in block.body for name in node.names}
    assert homes.keys() == set(eva_backbone.__all__)
    for name, module in homes.items():
        assert getattr(eva_backbone, name) is getattr(sys.modules[module], name)
