"""`eva_detection.model_zoo`: recipes by name, official files by recipe, detectors with weights."""

import inspect
import logging
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, LazyConfig, instantiate
from omegaconf import DictConfig
from safetensors.torch import load_file

from eva_backbone.checkpoints import registry
from eva_detection import model_zoo
from eva_detection.config.files import load_config_file
from eva_detection.model.rcnn import EVARCNN
from eva_runs.recipes import list_data_files, list_recipes, recipe_folder

COCO = "coco/cascade_mask_rcnn_vitdet_eva_g_1536_det.py"
DEMO = "demo/cascade_mask_rcnn_vitdet_eva_debug.py"
YACS = "upstream/cascade_mask_rcnn_vitdet_eva_g.yaml"


@pytest.mark.parametrize("name", ["get", "get_config", "get_config_file", "get_checkpoint_url"])
def test_signatures_are_detectron2_s(name):
    """Read off its source, which cannot be imported where setuptools is new."""
    text = (files("detectron2") / "model_zoo" / "model_zoo.py").read_text()
    (line,) = [one for one in text.splitlines() if one.startswith(f"def {name}(")]
    inside = line.partition("(")[2].rpartition(")")[0]
    stock = [part.partition(":")[0].partition("=")[0].strip() for part in inside.split(",")]
    ours = inspect.signature(getattr(model_zoo, name)).parameters
    assert list(ours) == stock
    defaults = [one.default for one in ours.values()][1:]
    assert defaults == [False, None][: len(defaults)]


def test_no_old_setuptools_is_needed():
    script = "import sys; sys.modules['pkg_resources'] = None; import eva_detection.model_zoo"
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)


@pytest.mark.parametrize(
    "name", [COCO, COCO.removesuffix(".py"), "cascade_mask_rcnn_vitdet_eva_g_1536_det",
             f"detection/configs/{COCO}"]
)  # fmt: skip
def test_a_recipe_by_any_of_its_names(name):
    assert Path(model_zoo.get_config_file(name)).resolve() == recipe_folder("detection") / COCO
    assert model_zoo.get_checkpoint_url(name) == (
        "https://huggingface.co/BAAI/EVA/resolve/main/eva_coco_det.pth"
    )
    cfg = model_zoo.get_config(name, trained=True)
    assert isinstance(cfg, DictConfig)
    assert cfg.train.init_checkpoint == "eva_coco_det.pth"
    assert cfg.model.roi_heads.use_soft_nms is True


def test_an_unknown_recipe_is_an_error_with_close_names():
    with pytest.raises(ValueError, match=r"no recipe 'coco/.*g_1538_det' .*eva_g_1536_det"):
        model_zoo.get_config_file("coco/cascade_mask_rcnn_vitdet_eva_g_1538_det")


def test_the_published_files_and_their_recipes():
    names = {f"{one.name}.py" for one in list_recipes("detection")}
    names |= {one.name for one in list_data_files("detection")}
    assert model_zoo.PUBLISHED.keys() <= names
    official = {one.name for one in registry.list_official_files("detection")}
    assert set(model_zoo.PUBLISHED.values()) == official
    for name, file in model_zoo.PUBLISHED.items():  # as the recipes themselves say
        source = (recipe_folder("detection") / name).read_text()
        evaluates = "1536" in name and name.endswith(".py")
        assert not evaluates or f'"{file}"' in source, name


@pytest.mark.parametrize("name", [DEMO, "objects365/cascade_mask_rcnn_vitdet_eva_g_1024.py"])
def test_a_recipe_without_a_published_detector(name):
    for call in (
        lambda: model_zoo.get_checkpoint_url(name),
        lambda: model_zoo.get_config(name, True),
        lambda: model_zoo.get(name, trained=True),
    ):
        with pytest.raises(ValueError, match=rf"no trained detector of {name} was published.*"):
            call()


def test_a_config_of_the_user_s_own(tmp_path, repository):
    """By its path; a copy of a recipe is not that recipe."""
    file = tmp_path / "mine.yaml"
    LazyConfig.save(model_zoo.get_config(DEMO), str(file))
    assert model_zoo.get_config(file).train.max_iter == 450
    with pytest.raises(ValueError, match=r"mine\.yaml was published"):
        model_zoo.get_config(file, trained=True)


def test_get_loads_what_training_starts_from(caplog):
    with caplog.at_level(logging.INFO):
        model = model_zoo.get(DEMO, device="cpu")
    assert type(model) is EVARCNN
    assert model.training
    stored = load_file(registry.resolve_source("eva_debug"))["blocks.0.attn.qkv.weight"]
    assert torch.equal(model.backbone.net.blocks[0].attn.qkv.weight, stored)


@pytest.fixture
def tiny_official(monkeypatch, tiny_config, randomise, tmp_path):
    """The demo recipe in tiny, as if its detector were an official file."""
    official = randomise(instantiate(tiny_config().model), std=0.05)
    torch.save({"model": official.state_dict()}, tmp_path / "eva_coco_det.pth")
    monkeypatch.setattr(
        model_zoo, "PUBLISHED", dict(model_zoo.PUBLISHED) | {DEMO: "eva_coco_det.pth"}
    )
    monkeypatch.setattr(model_zoo, "load_config_file", lambda file: tiny_config())
    monkeypatch.setattr(registry, "_verified", lambda path: path)
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path))
    return official


def test_get_trained(tiny_official):
    model = model_zoo.get(DEMO, trained=True)
    for name, value in tiny_official.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model.training


def test_an_incomplete_official_file_is_refused(tiny_official, tmp_path):
    state = {k: v for k, v in tiny_official.state_dict().items() if not k.startswith("roi_heads.")}
    torch.save({"model": state}, tmp_path / "eva_coco_det.pth")
    with pytest.raises(ValueError, match=r"lacks .* names"):
        model_zoo.get(DEMO, trained=True)


def test_yacs(monkeypatch):
    cfg = model_zoo.get_config(YACS, trained=True)
    assert isinstance(cfg, CfgNode)
    assert cfg.MODEL.BACKBONE.NAME == "EVAViTDet"
    assert model_zoo.get_checkpoint_url(YACS) == cfg.MODEL.WEIGHTS
    assert cfg.MODEL.WEIGHTS.endswith("eva_coco_seg.pth")

    plain = model_zoo.get_config(YACS)
    assert plain.MODEL.WEIGHTS == ""
    plain.merge_from_list(
        [*("MODEL.EVA.VARIANT", "eva_ti_patch16"), *("MODEL.EVA.IMG_SIZE", 64),
         *("MODEL.EVA.WINDOW_SIZE", 4), *("MODEL.EVA.GLOBAL_ATTN_INDEXES", [11]),
         *("MODEL.EVA.OUT_CHANNELS", 16), *("MODEL.ROI_BOX_HEAD.FC_DIM", 16)]
    )  # fmt: skip
    monkeypatch.setattr(model_zoo, "get_config", lambda *_: plain)
    model = model_zoo.get(YACS)  # its MODEL.DEVICE is "cuda", also where there is none
    assert type(model) is EVARCNN
    assert model.backbone.net.embed_dim == 192


def test_a_yacs_file_of_the_user_s_own(tmp_path):
    """It builds on another one, and nothing in it runs."""
    base = model_zoo.get_config_file(YACS)
    (tmp_path / "mine.yaml").write_text(
        f"_BASE_: {base}\nMODEL: {{ROI_HEADS: {{NUM_CLASSES: 3}}}}\n"
    )
    assert model_zoo.get_config(tmp_path / "mine.yaml").MODEL.ROI_HEADS.NUM_CLASSES == 3
    ran = tmp_path / "ran"
    evil = f"MODEL: {{WEIGHTS: !!python/object/apply:os.mkdir ['{ran}']}}\n"
    (tmp_path / "evil.yaml").write_text(evil)
    with pytest.raises(ValueError, match=r"evil\.yaml is not a config: could not determine"):
        model_zoo.get_config(tmp_path / "evil.yaml")
    assert not ran.exists()
    (tmp_path / "wrong.yaml").write_text("MODEL: {EVA: {WINDOW: 3}}\n")
    with pytest.raises(ValueError, match=r"wrong\.yaml is not a config: .*MODEL\.EVA\.WINDOW"):
        model_zoo.get_config(tmp_path / "wrong.yaml")
    (tmp_path / "odd.yaml").write_text("_BASE_: [1]\nMODEL: {}\n")
    with pytest.raises(ValueError, match=r"odd\.yaml is not a config"):
        model_zoo.get_config(tmp_path / "odd.yaml")


def test_our_programs_say_what_a_yacs_file_is():
    with pytest.raises(ValueError, match="yacs"):
        load_config_file(model_zoo.get_config_file(YACS))
