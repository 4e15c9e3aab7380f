"""Both backbones in mmsegmentation: registry, weights, freezing, refusals."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from eva_backbone import VisionTransformer
from eva_backbone.resample import resample_patch_embed, resample_pos_embed

VIT = {"embed_dim": 32, "depth": 4, "num_heads": 2, "mlp_dim": 48, "img_size": 64}
ADAPTER = VIT | {"type": "EVAViTAdapter", "conv_inplane": 8, "deform_num_heads": 2}
PYRAMID = VIT | {"type": "EVAViT", "out_channels": 32}
BOTH = pytest.mark.parametrize("backbone", [ADAPTER, PYRAMID], ids=["adapter", "pyramid"])


def _segmentor(backbone, **changes):
    config = {
        "type": "EncoderDecoder",
        "data_preprocessor": {"type": "SegDataPreProcessor", "size": (64, 96)},
        "backbone": backbone,
        "decode_head": {
            "type": "UPerHead",
            "in_channels": [32] * 4,
            "in_index": [0, 1, 2, 3],
            "channels": 16,
            "num_classes": 3,
            "norm_cfg": {"type": "SyncBN"},
            "loss_decode": {"type": "CrossEntropyLoss", "avg_non_ignore": True},
        },
        "train_cfg": {},
        "test_cfg": {"mode": "whole"},
    }
    return MODELS.build(ConfigDict(config | changes))


def _samples(size=(64, 96), batch=2):
    labels = (PixelData(data=torch.randint(0, 3, (1, *size))) for _ in range(batch))
    return [
        SegDataSample(gt_sem_seg=label, metainfo={"img_shape": size, "ori_shape": size})
        for label in labels
    ]


@BOTH
def test_trains_and_predicts_inside_a_stock_segmentor(backbone):
    model = revert_sync_batchnorm(_segmentor(backbone | {"activation_checkpointing": True}))
    model.init_weights()
    before = {name: p.detach().clone() for name, p in model.backbone.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = {"inputs": [torch.rand(3, 64, 96) for _ in range(2)], "data_samples": _samples()}
    losses = model.train()(**model.data_preprocessor(batch, training=True), mode="loss")
    losses["decode.loss_ce"].backward()
    optimizer.step()
    changed = {n for n, p in model.backbone.named_parameters() if not torch.equal(p, before[n])}
    assert {"blocks.3.mlp.fc1.weight", "net.blocks.3.mlp.fc1.weight"} & changed
    with torch.no_grad():
        results = model.eval().predict(torch.rand(1, 3, 64, 96), _samples(batch=1))
    assert results[0].pred_sem_seg.data.shape == (1, 64, 96)


@pytest.mark.parametrize(("indices", "kept"), [((0, 3), (0, 3)), ((1, 2), (1, 2)), (-1, (3,))])
def test_the_adapter_returns_the_maps_of_out_indices(randomise, indices, kept):
    """All parameters are there, and those that no output reads ask for no gradient."""
    whole = revert_sync_batchnorm(MODELS.build(ADAPTER))
    model = revert_sync_batchnorm(MODELS.build(ADAPTER | {"out_indices": indices}))
    model.load_state_dict(randomise(whole, std=0.1).state_dict())
    images = torch.randn(2, 3, 64, 64)
    expected = whole.eval()(images)
    maps = model.eval()(images)
    assert all(torch.equal(expected[i], x) for i, x in zip(kept, maps, strict=True))
    sum(x.square().sum() for x in model.train()(images)).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad != (p.grad is not None)] == []


@pytest.fixture
def pretrained_file(tmp_path, make_vit):
    """A pre-trained ViT of patch 14 in the official container, with what nothing needs."""
    vit = make_vit(img_size=56, depth=4, extra_tokens=("cls", "mask"))
    vit.lm_head = torch.nn.Linear(32, 8)
    path = tmp_path / "pretrained.pt"
    torch.save({"module": vit.state_dict()}, path)
    return path, vit.state_dict()


@BOTH
@pytest.mark.parametrize("way", ["pretrained", "init_cfg"])
def test_a_pretrained_vit_is_resampled_when_the_weights_are_initialised(
    backbone, way, pretrained_file
):
    path, state = pretrained_file
    named = str(path) if way == "pretrained" else {"type": "Pretrained", "checkpoint": str(path)}
    model = _segmentor(backbone | {way: named})
    vit = model.backbone if backbone is ADAPTER else model.backbone.net
    head = {n: p.clone() for n, p in model.backbone.named_parameters() if "blocks" not in n}
    assert not torch.equal(vit.blocks[2].attn.qkv.weight, state["blocks.2.attn.qkv.weight"])
    model.init_weights()
    assert torch.equal(vit.blocks[2].attn.qkv.weight, state["blocks.2.attn.qkv.weight"])
    kernel = resample_patch_embed(state["patch_embed.proj.weight"], 16)
    assert torch.equal(vit.patch_embed.proj.weight, kernel)
    assert torch.equal(vit.pos_embed, resample_pos_embed(state["pos_embed"], (4, 4)))
    name = "level_embed" if backbone is ADAPTER else "simfp_4.0.weight"
    assert torch.equal(model.backbone.get_parameter(name), head[name]), "what the file lacks stays"


@BOTH
def test_freezing(backbone):
    model = MODELS.build(backbone | {"freeze_blocks": 2})
    frozen = {n.removeprefix("net.") for n, p in model.named_parameters() if not p.requires_grad}
    vit = VisionTransformer(**VIT, patch_size=16, final_norm=False)
    expected = {n for n, _ in vit.named_parameters() if not n.startswith(("blocks.2", "blocks.3"))}
    assert frozen == expected
    model.train()
    sum(feature_map.mean() for feature_map in model(torch.randn(1, 3, 64, 64))).backward()
    patches = MODELS.build(backbone | {"freeze_patch_embed": True})
    frozen = {n.removeprefix("net.") for n, p in patches.named_parameters() if not p.requires_grad}
    assert frozen == {"patch_embed.proj.weight", "patch_embed.proj.bias"}
