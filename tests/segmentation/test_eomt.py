"""EoMT in segmentation: on every plain ViT, trained, continued, with adapters, and exported."""

import shutil

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from eva_backbone.eomt import annealed
from eva_backbone.layer_decay import param_groups_layer_decay
from eva_backbone.lora import LoraSettings, add_adapters
from eva_backbone.variants import dense_arguments
from eva_openmmlab import config as configuration
from eva_segmentation.commands import train
from eva_segmentation.inference.export import export_segmentor
from eva_segmentation.inference.predictor import Predictor

SIDE = 32
SMALL = dict(img_size=SIDE, pretrain_img_size=SIDE, embed_dim=32, num_heads=2, mlp_dim=48)
FAMILIES = ("eva", "eva02", "dinov2", "dinov3", "pe_core", "siglip2", "sam3")


@pytest.fixture
def tiny_eomt(load_config):
    """Function: the debug recipe at 32 px and a small width, for three iterations."""

    def make(name="demo/eomt_eva_debug", **backbone):
        cfg = load_config(name)
        cfg.pop("randomness")
        cfg.load_from, cfg.log_level = None, "WARNING"
        cfg.model.data_preprocessor.size = (SIDE, SIDE)
        cfg.model.backbone.update(SMALL | dict(num_queries=4, depth=3) | backbone)
        cfg.model.decode_head.update(in_channels=32, num_points=64)
        cfg.model.test_cfg.update(crop_size=(SIDE, SIDE), stride=(SIDE, SIDE))
        for loader in configuration.LOADERS:
            cfg[loader].update(batch_size=2, num_workers=0, persistent_workers=False)
            for step in cfg[loader].dataset.pipeline:
                if "scale" in step:
                    step.scale = (SIDE, SIDE) if step.type == "RandomResize" else (4 * SIDE, SIDE)
                if "crop_size" in step:
                    step.crop_size = (SIDE, SIDE)
        cfg.train_cfg.update(max_iters=3, val_interval=3)
        cfg.default_hooks.logger.interval = cfg.default_hooks.checkpoint.interval = 1
        cfg.default_hooks.checkpoint.max_keep_ckpts = -1
        return cfg

    return make


def batch():
    """Two images whose halves are two classes, and their label maps."""
    labels = torch.zeros(1, SIDE, SIDE, dtype=torch.int64)
    labels[:, :, SIDE // 2 :] = 3
    images = torch.randn(2, 3, SIDE, SIDE) * 0.1 + labels.float()
    meta = {"img_shape": (SIDE, SIDE)}
    return images, [SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta)] * 2


def step_of(model, images, samples):
    return model.parse_losses(model(images, samples, mode="loss"))[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_plain_vit_has_queries(family, tiny_eomt):
    arguments = dense_arguments(f"{family}_debug") | SMALL | dict(final_norm=True, depth=3)
    model = MODELS.build(tiny_eomt(**arguments).model).train()
    images, samples = batch()
    step_of(model, images, samples).backward()
    assert model.backbone.query.grad.abs().max() > 0
    assert model.backbone.net.blocks[0].attn.qkv.weight.grad.abs().max() > 0
    scores = model.eval()(images[:, :, :16], [s.clone() for s in samples], mode="tensor")
    assert [part.shape for part in scores[1]] == [(2, 4, 4, 8)] * 3  # of another size


def test_it_learns_halves_with_masks_and_without(tiny_eomt):
    torch.manual_seed(0)
    model = MODELS.build(tiny_eomt().model).train()
    images, samples = batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for number in range(30):
        model.backbone.mask_probability.fill_(annealed(number / 30, 0.2, 0.8))
        step_of(model, images, samples).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        (classes,), _ = model.decode_head(model.backbone(images))  # a plain ViT by now
        found = model.encode_decode(images, [s.metainfo for s in samples]).argmax(1)
    assert (found == samples[0].gt_sem_seg.data).float().mean() > 0.95
    assert classes.shape == (2, 4, 6)


def test_recomputed_blocks_drop_and_mask_the_same(tiny_eomt):
    images, samples = batch()
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        vit = dict(activation_checkpointing=recompute, drop_path_rate=0.5)
        model = MODELS.build(tiny_eomt(**vit).model).train()
        model.backbone.mask_probability.fill_(0.5)
        torch.manual_seed(1)
        step_of(model, images, samples).backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1])


def test_queries_learn_with_the_head_and_beside_adapters(tiny_eomt):
    model = MODELS.build(tiny_eomt().model)
    names = {id(value): name for name, value in model.named_parameters()}
    groups = param_groups_layer_decay(
        model, depth=3, lr=1.0, weight_decay=0.1, layer_decay=0.5, full_rate_blocks=1
    )
    rates = {names[id(value)]: group["lr"] for group in groups for value in group["params"]}
    assert {rates[f"backbone.{name}"] for name in ("query", "upscale.0.0.weight")} == {1.0}
    blocks = [rates[f"backbone.net.blocks.{index}.norm1.weight"] for index in range(3)]
    assert blocks == [0.125, 0.25, 1.0]
    add_adapters(model, LoraSettings(rank=2))
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert {
        "backbone.query",
        "backbone.mask_mlp.0.weight",
        "decode_head.cls_embed.weight",
    } < trained
    assert not any(".base_layer." in name or "patch_embed" in name for name in trained)


@pytest.mark.parametrize(
    ("change", "value"),
    [(dict(window_size=2), "2"), (dict(rel_pos="table"), "'table'"), (dict(query_blocks=4), "4")],
)
def test_what_does_not_go_together_is_refused(change, value, tiny_eomt):
    with pytest.raises(ValueError, match=value):
        MODELS.build(tiny_eomt(**change).model)


def test_a_run_anneals_continues_bit_for_bit_and_is_exported(tiny_eomt, tiny_run, launch, tmp_path):
    cfg = tiny_eomt()
    configuration.set_data_root(cfg, tiny_run)
    cfg.dump(tmp_path / "eomt.py")
    whole, part = tmp_path / "whole", tmp_path / "part"
    seed = ("--cfg-options", "randomness.seed=3")
    launch(train, tmp_path / "eomt.py", "--work-dir", whole, *seed)
    part.mkdir()
    for name in ("eomt.py", "run.json", "iter_2.pth"):
        shutil.copy(whole / name, part)
    (part / "last_checkpoint").write_text(str(part / "iter_2.pth"))
    launch(train, part / "eomt.py", "--work-dir", part, "--resume")
    saved = [
        torch.load(folder / "iter_3.pth", weights_only=False)["state_dict"]  # of this test
        for folder in (whole, part)
    ]
    assert saved[0]["backbone.mask_probability"].tolist() == [0.0, 0.0]
    torch.testing.assert_close(saved[0], saved[1], rtol=0, atol=0)
    predictor = Predictor.from_config(whole / "eomt.py", weights=whole / "iter_3.pth")
    assert export_segmentor(predictor, tmp_path / "eomt.onnx") < 0.01
