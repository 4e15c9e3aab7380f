"""Configs in files: what a run saves comes back, and nothing in what it saves runs."""

import pytest
import yaml
from omegaconf import OmegaConf

from eva_detection.command_line import TrainingRequest
from eva_detection.config.files import load_config_file, save_config
from eva_detection.config.recipes import drop_masks
from eva_detection.config.settings import apply_request, load_recipe

DEMO = "demo/cascade_mask_rcnn_vitdet_eva_debug"
TARGETS = {  # each would make the file PROOF, when built
    "a target": {"model.backbone._target_": "os.system", "model.backbone.command": "touch PROOF"},
    "a target that returns one": {
        "model.backbone._target_": "detectron2.utils.registry.locate",
        "model.backbone.name": "os.system",
    },
    "a target through a module": {
        "model.backbone._target_": "eva_detection.model.backbone.logging.os.system"
    },
    "another recipe": {
        "model.backbone._target_": "eva_detection.config.recipes.stock_config",
        "model.backbone.name": "../../../evil.py",
    },
    "a table": {"model.backbone": {"_target_": "os.system", "command": "touch PROOF"}},
    "a table in a list": {"test.aug": [{"_target_": "os.system", "command": "touch PROOF"}]},
    "proposals, which are pickles": {"dataloader.test.dataset.proposal_files": ["PROOF"]},
    "proposals, through detectron2's old config": {
        "dataloader.test.cfg.DATASETS.PROPOSAL_FILES_TEST": ["PROOF"]
    },
    "a dunder": {"optimizer._target_": "eva_detection.optimizer.ClippedAdamW.__init__"},
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Function: write a saved config into the working folder."""
    monkeypatch.chdir(tmp_path)

    def write_config(content):
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (tmp_path / "config.yaml").write_text(text)
        return tmp_path / "config.yaml"

    return write_config


@pytest.mark.parametrize("settings", TARGETS.values(), ids=TARGETS)
def test_settings_that_are_more_than_data_are_refused(settings, write, tmp_path):
    file = write({"recipe": DEMO, "settings": settings})
    with pytest.raises(ValueError, match=r"config\.yaml"):
        load_recipe(file)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_recipe_of_ones_own_runs_only_if_it_is_named(write, tmp_path):
    recipe = tmp_path / "mine.py"
    recipe.write_text("open('PROOF', 'w').close()\nmodel = dict(a=1)\n")
    for name in (str(recipe), "../../../mine", str(recipe.with_suffix(""))):
        with pytest.raises(ValueError, match="none of the toolkit"):
            load_config_file(write({"recipe": name}))
    assert not (tmp_path / "PROOF").exists()
    weights = tmp_path / "model_final.pth"
    weights.touch()
    write({"recipe": str(recipe), "settings": {"model.a": 2}})
    assert load_recipe(recipe, weights=weights).model.a == 2


def test_text_is_not_config_language(write):
    names = [
        "${oc.env:HOME}",
        r"\\${x}",
        "a${b}c${d}",
        "${",
        "${${x}}",
        "back\\",
        "no",
        "é: \n'\"#",
    ]
    data = {
        "categories": dict(enumerate(names, 1)),
        "boxes_only": True,
        "masks": True,
        "tile": None,
    }
    settings = {"train.output_dir": "${oc.create:{_target_: os.system}}"}
    cfg = load_config_file(write({"recipe": DEMO, "settings": settings, "own_data": data}))
    assert [*cfg.own_data.categories.values()] == names
    assert cfg.train.output_dir == settings["train.output_dir"]


@pytest.mark.parametrize("name", ["lvis/cascade_mask_rcnn_vitdet_eva_g_1536", DEMO])
def test_what_a_run_saves_comes_back(load_config, name, repository, tmp_path):
    words = ("test.aug.min_sizes=[96,128]", "train.max_iter=3", "model.backbone.square_pad=64",
             "optimizer._target_=eva_detection.optimizer.ClippedAdamW")  # fmt: skip
    cfg, recipe = load_config(name, *words), repository / "detection/configs" / f"{name}.py"
    cfg.dataloader.train.mapper.augmentations[0].horizontal = False
    drop_masks(cfg.model, cfg.dataloader)
    cfg.own_data = {"categories": {3: "cat"}, "boxes_only": True, "masks": False, "tile": [64, 0.5]}
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    save_config(cfg, first, source=recipe)
    again = load_config_file(first)
    assert OmegaConf.to_container(again.test) == {"aug": {"min_sizes": [96, 128]}}
    assert "mask_head" not in again.model.roi_heads
    assert (again.own_data, again.train) == (cfg.own_data, cfg.train)
    save_config(again, second, source=first)
    assert second.read_text() == first.read_text()
    assert yaml.safe_load(first.read_text())["recipe"] == name


def test_another_backbone_comes_back(repository, tmp_path):
    recipe = repository / "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"
    cfg = load_recipe(str(recipe))
    apply_request(cfg, TrainingRequest(recipe=str(recipe), backbone="dinov3_debug"))
    save_config(cfg, tmp_path / "config.yaml", source=recipe)
    again = load_config_file(tmp_path / "config.yaml")
    assert again.model == cfg.model
    before, after = (one.optimizer.params.lr_factor_func.keywords for one in (cfg, again))
    assert before == after == {"lr_decay_rate": 0.7, "num_layers": 4}


@pytest.mark.parametrize(
    "text",
    [
        *("", "a: [", "a: &a [*a]", "recipe: [" + "[" * 3000 + "]" * 3001, "a: " + "x" * 5_000_000),
        "model: !!python/object/apply:os.system ['touch PROOF']",
        f"recipe: {DEMO}\nsettings:\n  test.aug: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"  a{i}: &a{i} [{','.join(10 * [f'*a{i - 1}'])}]\n" for i in range(1, 9)),
    ],
)
def test_other_files_are_refused(text, write, tmp_path):
    with pytest.raises(ValueError, match=r"config\.yaml"):
        load_config_file(write(text))
    assert not (tmp_path / "PROOF").exists()
