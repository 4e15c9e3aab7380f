"""mmdetection's own detectors on the stand-in for mmcv's operators, with EVA as their backbone."""

from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

from eva_openmmlab.backbone import EVAViT

pytestmark = [
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:The arguments `dropout` in Multihead:DeprecationWarning"),
]
STOCK = Path(mmdet.__file__).parent / ".mim" / "configs"
NET = dict(
    type="EVAViT",
    img_size=64,
    embed_dim=32,
    depth=2,
    num_heads=2,
    mlp_dim=64,
    pretrain_img_size=64,
    window_size=2,
    global_attn_indexes=[1],
    rel_pos="vitdet",
    out_channels=256,
)


def _small(name):
    model = Config.fromfile(STOCK / f"{name}.py").model
    model.backbone = dict(NET, extra_levels=1)
    if "neck" in model and model.neck.type == "FPN":
        model.neck = None
        heads = model.roi_head.bbox_head
        for head in heads if isinstance(heads, list) else [heads]:
            head.fc_out_channels = 32
        stages = model.train_cfg.rcnn
        for stage in stages if isinstance(stages, list) else [stages]:
            stage.sampler.num = 32
        model.test_cfg.rpn.max_per_img = 30
        model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5)  # the weights are random
        masks = model.roi_head.mask_head
        for head in masks if isinstance(masks, list) else [masks]:
            head.num_convs = 1
        return model
    # a detector with a transformer: its neck takes three levels
    model.backbone = dict(NET, scale_factors=(2.0, 1.0, 0.5))
    model.neck.in_channels = [256] * 3
    model.num_queries = 20
    for part in (model.encoder, model.decoder):
        part.num_layers = 1
        part.layer_cfg.ffn_cfg.feedforward_channels = 32
    model.bbox_head.loss_cls = dict(type="FocalLoss", use_sigmoid=True, loss_weight=1.0)
    return model


@pytest.mark.parametrize(
    "name",
    ["cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco", "dino/dino-4scale_r50_8xb2-12e_coco"],
    ids=["cascade-mask-rcnn", "dino"],
)
def test_a_step_and_a_detection(name):
    torch.manual_seed(0)
    config = _small(name)
    config.data_preprocessor.pad_size_divisor = 32
    model = MODELS.build(config)
    model.init_weights()
    data = demo_mm_inputs(2, [[3, 60, 64], [3, 64, 50]], with_mask=True)
    losses = model(**model.data_preprocessor(data, training=True), mode="loss")
    terms = [v for k, v in losses.items() if "loss" in k]
    total = sum(sum(term) if isinstance(term, list) else term.sum() for term in terms)
    total.backward()
    assert total.isfinite()
    assert isinstance(model.backbone, EVAViT)
    assert model.backbone.net.patch_embed.proj.weight.grad.abs().sum() > 0
    model.eval()
    data = model.data_preprocessor(demo_mm_inputs(1, [[3, 60, 64]]), training=False)
    with torch.no_grad():
        found = model(**data, mode="predict")[0].pred_instances
    assert len(found) > 0
    assert found.scores.isfinite().all()
