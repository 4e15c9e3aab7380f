"""Every recipe loads, builds, saves; its parts have the paper's settings (Tables 17 and 18).

The numbers of all recipes are in `tests/recipes.csv`.
"""

import math
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog, transforms
from detectron2.modeling.roi_heads.fast_rcnn import get_fed_loss_cls_weights

from eva_detection.data.datasets import repeat_factors

TESTS = Path(__file__).resolve().parents[1]
CONFIGS = TESTS.parent / "detection" / "configs"
RECIPES = sorted(
    str(path.relative_to(CONFIGS).with_suffix(""))
    for folder in ("coco", "lvis", "objects365", "demo", "custom", "upstream")
    for path in (CONFIGS / folder).glob("*.py")
)
EVA_G = "cascade_mask_rcnn_vitdet_eva_g"
COCO, COCO_1536 = f"coco/{EVA_G}_1280", f"coco/{EVA_G}_1536"
LVIS, LVIS_1536 = f"lvis/{EVA_G}_1280", f"lvis/{EVA_G}_1536"
O365_1024, O365_1280 = f"objects365/{EVA_G}_1024", f"objects365/{EVA_G}_1280"


def _on_meta(cfg):
    with torch.device("meta"):
        return instantiate(cfg.model)


def _target(node):
    target = node["_target_"]
    return target if isinstance(target, str) else f"{target.__module__}.{target.__qualname__}"


def _names_and_shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def _count(model, *, trainable_only=False):
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds(name, load_config):
    cfg = load_config(name)
    # LazyConfig takes every dict of the file: a loop variable or a helper would show up here
    sections = {"model", "dataloader", "optimizer", "lr_multiplier", "train"}
    more = {"test": name.endswith("_tta"), "lora": "_lora_" in name}
    assert set(cfg) == sections | {section for section, there in more.items() if there}
    assert _names_and_shapes(_on_meta(cfg))
    assert cfg.train.output_dir.startswith("./output/")
    assert cfg.optimizer.params.lr_factor_func("backbone.net.pos_embed") < 1


@pytest.mark.parametrize(
    ("name", "golden", "parameters", "trainable"),
    [
        (COCO, "coco", 1_073_745_214, 1_072_662_462),
        (COCO_1536, "coco", 1_073_745_214, 1_072_662_462),
        (LVIS, "lvis", 1_077_487_050, 1_076_404_298),
        (LVIS_1536, "lvis", 1_077_487_050, 1_076_404_298),
        (O365_1280, "o365", 1_071_977_285, 1_071_977_285),
    ],
)
def test_official_names_and_shapes(name, golden, parameters, trainable, load_config):
    lines = (TESTS / "golden" / "keys" / f"detection_{golden}.txt").read_text().splitlines()
    expected = {
        key: tuple(int(size) for size in shape.strip("()").split(",") if size)
        for key, shape in (line.split("\t") for line in lines)
    }
    model = _on_meta(load_config(name))
    assert _names_and_shapes(model) == expected
    assert _count(model) == parameters
    assert _count(model, trainable_only=True) == trainable


@pytest.mark.parametrize("name", [COCO, O365_1024])
def test_optimizer_groups(name, load_config):
    """Actual groups of the actual model: lr of every layer, weight decay of every parameter."""
    cfg = load_config(name)
    assert _target(cfg.optimizer).endswith("AdamW")
    cfg.optimizer.params.model = model = _on_meta(cfg)
    optimizer = instantiate(cfg.optimizer)
    names = {parameter: parameter_name for parameter_name, parameter in model.named_parameters()}
    lr, frozen = cfg.optimizer.lr, name == COCO
    expected = {"backbone.net.pos_embed": 0.9**41, "backbone.simfp_4.0.weight": 1.0}
    expected |= {"backbone.net.blocks.0.norm1.weight": 0.9**40, "proposal_generator.": 1.0}
    expected |= {"backbone.net.blocks.39.attn.q_bias": 0.9, "roi_heads.": 1.0}
    expected |= {f"backbone.net.blocks.{i}.mlp.fc1.weight": 0.9 ** (40 - i) for i in range(40)}
    if not frozen:
        expected["backbone.net.patch_embed.proj.weight"] = 0.9**41
    seen, found = set(), set()
    for group in optimizer.param_groups:
        assert group["weight_decay"] == 0.1
        assert group["betas"] == (0.9, 0.999)
        assert group["eps"] == 1e-8
        for parameter in group["params"]:
            seen.add(names[parameter])
            for start, factor in expected.items():
                if names[parameter].startswith(start):
                    found.add(start)
                    assert group["lr"] == pytest.approx(lr * factor), names[parameter]
    assert found == set(expected)
    left_out = {"backbone.net.patch_embed.proj.weight", "backbone.net.patch_embed.proj.bias"}
    assert seen == set(names.values()) - (left_out if frozen else set())


@pytest.mark.parametrize(
    ("name", "canvas", "table", "interpolation"),
    [
        (COCO, 1280, 1280, "vitdet"),
        (LVIS_1536, 1536, 1280, "beit"),
        (O365_1024, 1024, 1024, "vitdet"),
    ],
)
def test_canvas_and_jitter(name, canvas, table, interpolation, load_config):
    cfg = load_config(name)
    model = _on_meta(cfg)
    assert model.backbone.padding_constraints == {"size_divisibility": 32, "square_size": canvas}
    net = model.backbone.net
    assert (net.img_size, net.rel_pos, net.window_size) == (table, interpolation, 16)
    assert net.global_attn_indexes == (3, 7, 11, 15, 19, 23, 27, 31, 35, 39)
    assert net.activation_checkpointing
    rates = [block.drop_path.rate for block in net.blocks]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.6)
    assert rates[20] == pytest.approx(0.6 * 20 / 39)
    assert list(cfg.model.pixel_mean) == pytest.approx([123.675, 116.28, 103.53])
    assert list(cfg.model.pixel_std) == pytest.approx([58.395, 57.12, 57.375])
    assert cfg.model.input_format == cfg.dataloader.train.mapper.image_format == "RGB"

    flip, scale, crop = (instantiate(t) for t in cfg.dataloader.train.mapper.augmentations)
    assert isinstance(flip, transforms.RandomFlip)
    assert (flip.horizontal, flip.vertical, flip.prob) == (True, False, 0.5)
    assert (scale.min_scale, scale.max_scale) == (0.1, 2.0)
    assert (scale.target_height, scale.target_width) == (canvas, canvas)
    assert tuple(crop.crop_size) == (canvas, canvas)
    assert not crop.pad
    (resize,) = (instantiate(t) for t in cfg.dataloader.test.mapper.augmentations)
    assert tuple(resize.short_edge_length) == (canvas, canvas)
    assert resize.max_size == canvas
    masks = not name.startswith("objects365")
    assert cfg.dataloader.train.mapper.use_instance_mask is masks
    assert cfg.dataloader.train.mapper.recompute_boxes is masks


@pytest.mark.parametrize(("name", "classes"), [(COCO, 80), (LVIS_1536, 1203), (O365_1280, 365)])
def test_heads(name, classes, load_config):
    cfg = load_config(name)
    model = _on_meta(cfg)
    heads, rpn = model.roi_heads, model.proposal_generator
    assert len(heads.box_predictor) == 3
    for stage, predictor in enumerate(heads.box_predictor):
        assert predictor.test_nms_thresh == 0.5
        assert predictor.num_classes == classes
        assert predictor.use_fed_loss is predictor.use_sigmoid_ce is name.startswith("lvis")
        weights = predictor.box2box_transform.weights
        assert tuple(weights) == ((10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15))[stage]
        matcher = heads.proposal_matchers[stage]
        assert matcher.thresholds[1:-1] == [(0.5, 0.6, 0.7)[stage]]
    assert heads.batch_size_per_image == 512
    assert rpn.nms_thresh == 0.7
    assert rpn.pre_nms_topk == {True: 2000, False: 1000}
    assert rpn.post_nms_topk == {True: 1000, False: 1000}
    assert ("max_dets_per_image" in cfg.dataloader.evaluator) is name.startswith("lvis")
    if name.startswith("lvis"):
        assert cfg.dataloader.evaluator.max_dets_per_image == predictor.test_topk_per_image


def test_lvis_long_tail(load_config):
    cfg = load_config(LVIS)
    sampler = cfg.dataloader.train.sampler
    assert sampler.repeat_factors.repeat_thresh == 0.001
    categories = [{"annotations": [{"category_id": int(i > 0)}]} for i in range(10_000)]
    assert sampler.repeat_factors["_target_"] in (
        repeat_factors,
        "eva_detection.data.datasets.repeat_factors",
    )
    # class 0 in one image of 10,000
    factors = repeat_factors(categories, repeat_thresh=sampler.repeat_factors.repeat_thresh)
    assert factors[0] == pytest.approx(math.sqrt(0.001 / 0.0001))
    assert set(factors[1:].tolist()) == {1.0}

    weights = instantiate(cfg.model.roi_heads.box_predictors[0]).fed_loss_cls_weights
    counts = MetadataCatalog.get("lvis_v1_train").class_image_count
    first = next(entry["image_count"] for entry in counts if entry["id"] == 1)
    assert weights[0].item() == pytest.approx(first**0.5)
    expected = get_fed_loss_cls_weights("lvis_v1_train", freq_weight_power=0.5)
    torch.testing.assert_close(weights[: len(expected)], expected)
