"""The Python of detection/README.md for users of detectron2 runs as it stands there."""

import re

import pytest
import torch
from detectron2.config import instantiate
from detectron2.engine import DefaultTrainer
from detectron2.modeling import GeneralizedRCNN, build_model

from eva_detection.model.backbone import EVAViTDet
from eva_detection.model.rcnn import EVARCNN

START, END = "## From detectron2's side", "### Weights"


@pytest.fixture
def run(repository, monkeypatch):
    """Function: run the block with this text; returns its variables."""
    text = (repository / "detection" / "README.md").read_text()
    section = text[text.index(START) : text.index(END)]
    blocks = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert len(blocks) == 4
    monkeypatch.chdir(repository)

    def run_block(marker):
        (block,) = [one for one in blocks if marker in one]
        variables = {}
        exec(compile(block, "README.md", "exec"), variables)
        return variables

    return run_block


def test_model_zoo(run):
    found = run("get_checkpoint_url")
    assert found["cfg"].train.init_checkpoint == "eva_coco_det.pth"
    assert found["url"].endswith("/eva_lvis.pth")
    assert type(found["model"]) is EVARCNN


@pytest.mark.parametrize(
    ("marker", "kind", "width", "side"),
    [
        ("model_zoo.get_config(\"coco/cascade_mask_rcnn_vitdet_eva_g_1280.py\").model.b",
         GeneralizedRCNN, 1408, 1280),
        ("eva_l_patch16", EVARCNN, 1024, 1024),
    ],
)  # fmt: skip
def test_a_lazy_config(run, marker, kind, width, side):
    with torch.device("meta"):
        model = instantiate(run(marker)["model"])
    assert type(model) is kind
    assert type(model.backbone) is EVAViTDet
    assert model.backbone.net.embed_dim == width
    assert model.backbone.square_pad == side
    assert set(model.proposal_generator.in_features) <= set(model.backbone.output_shape())


def test_yacs(run):
    found = run("add_eva_config(cfg)")
    assert issubclass(found["Trainer"], DefaultTrainer)
    found["cfg"].MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(found["cfg"])
    optimizer = found["Trainer"].build_optimizer(found["cfg"], model)
    assert type(optimizer) is torch.optim.AdamW
