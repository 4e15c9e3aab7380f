"""What `import eva_backbone` gives, and what it does not drag in."""

import subprocess
import sys
from pathlib import Path

import pytest

import eva_backbone

REPOSITORY = Path(__file__).parents[2]
LISTING = "import sys, eva_backbone; print(*sys.modules)"
FORBIDDEN = (
    "timm",
    "detectron2",
    "mmengine",
    "mmcv",
    "mmseg",
    "deepspeed",
    "open_clip",
    "torchvision",
    "safetensors",
    "scipy",
    "pandas",
    "matplotlib",
    "fvcore",
    "huggingface_hub",
)


@pytest.fixture(scope="module")
def imported():
    """Top-level modules that a fresh interpreter holds after the import."""
    result = subprocess.run(
        [sys.executable, "-c", LISTING], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    return {name.partition(".")[0] for name in result.stdout.split()}


def test_the_import_is_light(imported):
    assert "eva_backbone" in imported
    assert not imported & set(FORBIDDEN)


def test_nothing_but_torch_and_what_torch_brings(imported):
    """Whatever is new compared to `import torch` is eva_backbone or the standard library."""
    result = subprocess.run(
        [sys.executable, "-c", "import sys, torch, torch.utils.checkpoint; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    torch_brings = {name.partition(".")[0] for name in result.stdout.split()}
    assert imported - torch_brings - set(sys.stdlib_module_names) == {"eva_backbone"}


def test_every_public_name_exists():
    assert len(set(eva_backbone.__all__)) == len(eva_backbone.__all__)
    for name in eva_backbone.__all__:
        assert getattr(eva_backbone, name) is not None
