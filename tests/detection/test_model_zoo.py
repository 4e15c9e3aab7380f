"""`eva_detection.model_zoo`: recipes by name, official files by recipe, detectors with weights."""

import inspect
from importlib.resources import files
from pathlib import Path

import pytest
from omegaconf import DictConfig

from eva_backbone.checkpoints import registry
from eva_detection import model_zoo
from eva_runs.recipes import list_data_files, list_recipes, recipe_folder

COCO = "coco/cascade_mask_rcnn_vitdet_eva_g_1536_det.py"
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


def test_a_detector_of_a_recipe():
    model = model_zoo.get("demo/cascade_mask_rcnn_vitdet_eva_debug.py", device="cpu")
    assert type(model).__name__ == "EVARCNN"


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
    with pytest.raises(ValueError, match=r"evil\.yaml"):
        model_zoo.get_config(tmp_path / "evil.yaml")
    assert not ran.exists()
    (tmp_path / "wrong.yaml").write_text("MODEL: {EVA: {WINDOW: 3}}\n")
    with pytest.raises(ValueError, match=r"wrong\.yaml .*MODEL\.EVA\.WINDOW"):
        model_zoo.get_config(tmp_path / "wrong.yaml")
