"""What `import eva_backbone` gives, and what it does not drag in."""

import subprocess
import sys
from pathlib import Path

import pytest

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
