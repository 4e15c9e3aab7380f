"""Every config loads and builds at its real size on the meta device."""

import re
from pathlib import Path

import pytest
import torch
from mmseg.registry import DATASETS, MODELS, TRANSFORMS

from eva_backbone.variants import VARIANTS
from eva_segmentation.model.head import modern_name
from eva_segmentation.model.segmentor import load_segmentor

CONFIGS = Path(__file__).parents[2] / "segmentation" / "configs"
NAMES = sorted(
    path.relative_to(CONFIGS).with_suffix("").as_posix()
    for path in CONFIGS.glob("*/*.py")
    if path.parent.name != "_base_"
)
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "relative_position_index")
OFFICIAL = {
    "ade20k": ("ade20k/mask2former_eva_g_896_20k", 1_280_633_111, 1007),
    "ade20k_relpos": ("ade20k/mask2former_eva_g_relpos_896_40k", 1_305_429_783, 1145),
    "coco_stuff164k": ("coco_stuff164k/mask2former_eva_g_896_60k", 1_280_654_636, 1007),
    "coco_stuff164k_relpos": (
        "coco_stuff164k/mask2former_eva_g_relpos_896_80k",
        1_305_451_308,
        1145,
    ),
}


def build(model):
    with torch.device("meta"):
        return MODELS.build(model)


@pytest.mark.parametrize("name", NAMES)
def test_each_config_builds(name, load_config):
    cfg = load_config(name)
    model = build(cfg.model)
    segmentor = getattr(model, "module", model)
    family, size = re.search(r"_(eva|eva02|dinov3)_([a-z0-9]+)(_|$)", name).group(1, 2)
    patches = {"eva": "_patch16", "eva02": "14", "dinov3": "16"}[family]
    is_debug = size in ("debug", "small")
    variant = VARIANTS[f"{family}_debug" if is_debug else f"{family}_{size}{patches}"]
    backbone = getattr(segmentor.backbone, "net", segmentor.backbone)
    assert (backbone.embed_dim, backbone.depth, backbone.num_heads) == (
        variant.embed_dim,
        variant.depth,
        variant.num_heads,
    )
    mlp = backbone.blocks[0].mlp
    assert (mlp.w1 if hasattr(mlp, "w1") else mlp.fc1).out_features == variant.mlp_dim
    assert (backbone.blocks[0].attn.qkv.bias is None) == (variant.qkv_bias != "qkv")
    kind = cfg.train_dataloader.dataset.type
    classes = {"COCOStuffDataset": 171, "ADE20KDataset": 150, "ConfiguredSegDataset": 5}[kind]
    metainfo = DATASETS.get(kind).METAINFO or cfg.train_dataloader.dataset.metainfo
    assert segmentor.decode_head.num_classes == classes == len(metainfo["classes"])
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for transform in cfg[loader].dataset.pipeline:
            TRANSFORMS.build(transform)


@pytest.mark.parametrize("name", OFFICIAL)
def test_parameters_are_those_of_the_official_files(name, load_config, official_shapes, count):
    config, total, names = OFFICIAL[name]
    model = build(load_config(config).model)
    official = {modern_name(key): shape for key, shape in official_shapes(name).items()}
    own = {key: tuple(value.shape) for key, value in model.named_parameters()}
    assert own == official
    assert len(own) == names
    assert count(model) == total
    buffers = set(model.state_dict()) - set(own)
    assert len(buffers) == 30
    assert all(key.endswith(BUFFERS[:3]) for key in buffers)


@pytest.fixture
def small(load_config, small_head):
    """Function: a small segmentor of a published config, for a number of classes."""

    def make(config, classes):
        model = load_config(config).model
        model.backbone.update(
            dict(img_size=64, embed_dim=16, depth=4, num_heads=2, mlp_dim=24),
            **dict(conv_inplane=8, deform_num_heads=2),
            interaction_indexes=[[0, 0], [1, 1], [2, 2], [3, 3]],
        )
        model.decode_head = small_head(num_classes=classes)
        return MODELS.build(model)

    return make


@pytest.fixture
def official_file(tmp_path):
    """Function: a state as an official file holds it: old names, container, meta, indices."""

    def write(model):
        state = {}
        for key, value in model.state_dict().items():
            if ".pixel_decoder.encoder" in key:
                key = key.replace(".self_attn.", ".attentions.0.")
            elif ".transformer_decoder" in key:
                key = key.replace(".cross_attn.", ".attentions.0.")
                key = key.replace(".self_attn.", ".attentions.1.")
            state[key.replace(".ffn.layers", ".ffns.0.layers")] = value
        if "backbone.blocks.0.attn.relative_position_bias_table" in state:
            for block in range(4):
                index = torch.zeros(17, 17, dtype=torch.int64)
                state[f"backbone.blocks.{block}.attn.relative_position_index"] = index
        path = tmp_path / "official.pth"
        torch.save({"meta": {"CLASSES": ("wall", "sky")}, "state_dict": state}, path)
        return path

    return write


@pytest.mark.parametrize("name", OFFICIAL)
def test_they_load_completely(name, small, official_file, randomise):
    """With the statistics of batch norm, of which the official lists of parameters are silent."""
    config = OFFICIAL[name][0]
    source, target = randomise(small(config, 4)), small(config, 4)
    with torch.no_grad():
        for key, value in source.named_buffers():
            value.fill_(len(key)) if "num_batches" in key else value.uniform_(0.5, 2)
    report = load_segmentor(target, official_file(source), complete=True)
    assert not report.missing
    assert all("relative_position_index" in key for key in report.skipped)
    for key, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[key], value, rtol=0, atol=0)


def test_a_classifier_of_other_classes_starts_from_scratch_and_is_reported(small, official_file):
    config = OFFICIAL["ade20k"][0]
    file = official_file(small(config, 7))
    target = small(config, 4)
    before = target.decode_head.cls_embed.weight.clone()
    report = load_segmentor(target, file)
    assert set(report.missing) == {
        "decode_head.cls_embed.weight",
        "decode_head.cls_embed.bias",
    }
    assert "initialised from scratch" in str(report)
    torch.testing.assert_close(target.decode_head.cls_embed.weight, before, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"decode_head\.cls_embed\.weight"):
        load_segmentor(small(config, 4), file, complete=True)
