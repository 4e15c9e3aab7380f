"""mmsegmentation's own `init_model`, `inference_model`, `MMSegInferencer` and `get_flops.py`.

Each on every recipe: built at its real size on the meta device, and run with a small ViT and head;
the debug twins run as they are.
"""

import argparse
import runpy
from pathlib import Path

import mmseg
import numpy as np
import pytest
import torch
from mmengine.analysis.complexity_analysis import _DEFAULT_SUPPORTED_FLOP_OPS
from mmengine.config import Config
from mmseg.apis import MMSegInferencer, inference_model, init_model
from PIL import Image

from eva_runs.recipes import list_recipes
from eva_segmentation.model.segmentor import StreamingTTA
from eva_segmentation.parts import mask2former

RECIPES = {recipe.name: recipe.path for recipe in list_recipes("segmentation")}
SIDE, WIDTH = 64, 32
HEAD = mask2former(
    WIDTH, heads=2, hidden=48, queries=6, groups=4, encoder_layers=1, decoder_layers=2, points=64
)
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        "torch.meshgrid",
        "dataset_meta or class names are not saved",
        "Failed to add <class 'mmengine.visualization",
        ".*[Tt]racer",
        ".*`torch.jit.trace` is deprecated",
        "SyncBatchNorm",
        ".*Implicitly cleaning up",  # a folder of the tool
    )
]
pytestmark.append(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


def _steps(node):
    if isinstance(node, dict):
        yield node
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, dict | list | tuple):
            yield from _steps(value)


def _runnable(name):
    """The recipe with sizes that a test can run; its parts and their types stay."""
    cfg = Config.fromfile(RECIPES[name])
    return cfg if name.startswith("demo/") else _small(cfg)


def _small(cfg):
    model = cfg.model.get("module", cfg.model)
    backbone, head = model.backbone, model.decode_head
    model.data_preprocessor.size = (SIDE, SIDE)
    model.test_cfg.update(crop_size=(SIDE, SIDE), stride=(SIDE, SIDE))
    backbone.pop("interaction_indexes", None)
    backbone.update(img_size=SIDE, embed_dim=WIDTH, depth=4, num_heads=2, mlp_dim=48)
    if backbone.get("freeze_blocks"):
        backbone.freeze_blocks = 1
    if "feat_channels" in head:
        place = "model.module" if "module" in cfg.model else "model"
        cfg.merge_from_dict({f"{place}.decode_head": HEAD | {"in_channels": [WIDTH] * 4}})
    else:
        backbone.out_channels = 8
        head.update(in_channels=[8] * len(head.in_channels), channels=8, pool_scales=(1, 2))
        model.auxiliary_head.update(in_channels=8, channels=8)
    for step in _steps([cfg.test_pipeline, cfg.test_dataloader.dataset.pipeline]):
        if "scale" in step:
            step.scale = (4 * SIDE, SIDE)
        if step.get("type") == "PadShortSide":
            step.size = SIDE
    return cfg


@pytest.fixture(autouse=True)
def _forgotten(forget_runs):
    """An inferencer makes a visualizer under the name that runs have for theirs."""
    yield
    forget_runs()


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A file of 40 x 60 px."""
    file = tmp_path_factory.mktemp("pictures") / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    return str(file)


@pytest.mark.parametrize(
    "name",
    [
        "ade20k/mask2former_eva_g_relpos_896_40k_ms",
        "coco_stuff164k/mask2former_eva_g_896_60k",
        "ade20k/upernet_eva_l_512_160k",
        "demo/mask2former_eva_debug",
    ],
)
def test_models_and_inferencers_predict_with_each_kind_of_recipe(name, picture, tmp_path):
    cfg = _runnable(name)
    model = init_model(cfg, device="cpu")
    segmentor = getattr(model, "module", model)
    with torch.no_grad():
        for parameter in segmentor.decode_head.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    classes = segmentor.num_classes
    expected = inference_model(model, picture).pred_sem_seg.data[0]
    assert expected.shape == (40, 60)
    again = inference_model(model, [np.asarray(Image.open(picture))[:, :, ::-1]])
    assert torch.equal(again[0].pred_sem_seg.data[0], expected), "from a file and from an array"
    torch.save({"state_dict": segmentor.state_dict()}, tmp_path / "weights.pth")  # as official
    cfg = _runnable(name)
    cfg.dump(tmp_path / "small.py")
    inferencer = MMSegInferencer(
        model=str(tmp_path / "small.py"), weights=str(tmp_path / "weights.pth"), device="cpu"
    )
    loaded = getattr(inferencer.model, "module", inferencer.model).state_dict()
    for part, value in segmentor.state_dict().items():
        assert torch.equal(loaded[part], value), part
    shown = inferencer(picture, return_vis=True)
    assert shown["visualization"].shape == (40, 60, 3)
    assert len(inferencer.model.dataset_meta["classes"]) == classes
    if not isinstance(model, StreamingTTA):  # which sees several sizes there
        assert np.array_equal(shown["predictions"], expected.numpy())


@pytest.fixture(scope="module")
def get_flops():
    """Function: mmsegmentation's tool on a config; returns what it would print."""
    tool = Path(mmseg.__path__[0]) / ".mim" / "tools" / "analysis_tools" / "get_flops.py"
    inference = runpy.run_path(str(tool))["inference"]

    def run(file):
        result = inference(argparse.Namespace(config=file, shape=[SIDE], cfg_options=None), None)
        number, unit = float(result["flops"][:-1]), result["flops"][-1]
        return number * {"K": 1e3, "M": 1e6, "G": 1e9}[unit]

    return run


def test_attention_is_counted(get_flops, tmp_path, monkeypatch):
    file = tmp_path / "small.py"
    _small(Config.fromfile(RECIPES["demo/upernet_eva_debug"])).dump(file)
    counted = get_flops(file)
    monkeypatch.delitem(_DEFAULT_SUPPORTED_FLOP_OPS, "aten::scaled_dot_product_attention")
    tokens = (SIDE // 8) ** 2 + 1
    both = 4 * 2 * tokens**2 * WIDTH  # scores and weighted sums, in 4 blocks
    assert counted - get_flops(file) == pytest.approx(both, rel=0.05)
