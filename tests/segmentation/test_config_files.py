"""Configs are data where they can be, and names in them stay names."""

import contextlib
import json

import pytest
import torch
from mmengine.config import Config

from eva_openmmlab.config import load_config
from eva_segmentation.evaluation import evaluate
from eva_segmentation.inference.predictor import Predictor
from eva_segmentation.training import train

NAMES = ("{{$HOME:x}}", "{{ fileBasename }}", "it's", 'a "quote"', "straße")
HARMFUL = "x: !!python/object/apply:os.mkdir [{place}]\n"


def test_yaml_runs_nothing(tmp_path, fails, tiny_run):
    place, file = tmp_path / "harm", tmp_path / "bad.yaml"
    file.write_text(HARMFUL.format(place=place))
    assert "bad.yaml" in fails(train, file, "--work-dir", tmp_path / "run")
    assert "bad.yaml" in fails(evaluate, file, "eva_debug", "--work-dir", tmp_path / "run")
    with pytest.raises(ValueError, match="could not determine a constructor"):
        Predictor.from_config(file, weights="x.pth")
    child = tmp_path / "child.yaml"
    child.write_text("_base_: bad.yaml\n")
    with pytest.raises(ValueError, match="could not determine a constructor"):
        load_config(child)
    assert not place.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"type": "os.mkdir", "path": "harm"}},
        {"model": {"head": [{"type": "mmengine.fileio.load", "file": "harm.pkl"}]}},
        {"model": {"type": "mmengine.load", "file": "harm.pkl"}},
        {"custom_imports": {"imports": ["harm"]}},
        {"custom_imports": {"imports": "harm"}},
        {"_base_": "harm.py"},
        {"_base_": ["harm.py"]},
        {"_base_": "mmseg::harm.py"},
        {"runner_type": "os.system"},
        {"optim_wrapper": {"constructor": "os.system"}},
        {"model": {"type": 3}},
        [1],
    ],
)
def test_data_that_name_programs_are_refused(content, tmp_path):
    (tmp_path / "harm.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for suffix in (".json", ".yaml"):
        file = tmp_path / f"bad{suffix}"
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match="bad"):
            load_config(file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "texts",
    [
        {"bad.yaml": "_base_: middle.yaml\n", "middle.yaml": "_base_: harm.py\n"},
        {"bad.yaml": '_base_: "harm.p{{$NOTHING:y}}"\n'},
        {"bad.json": '{"{{$NOTHING:_base_}}": "harm.py"}'},
        {"bad.yaml": '"{{$NOTHING:custom_imports}}": {imports: [this]}\n'},
        {"bad.yaml": "_base_: bad.yaml\n"},
    ],
)
def test_what_data_inherit_and_what_would_be_replaced_run_nothing(texts, tmp_path):
    (tmp_path / "harm.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    with contextlib.suppress(ValueError):  # a name that is not replaced names nothing
        load_config(tmp_path / next(iter(texts)))
    assert not (tmp_path / "ran").exists()


def test_a_recipe_in_yaml_trains_and_its_saved_config_is_tested(tiny_run, launch, tmp_path):
    file = tmp_path / "tiny.yaml"
    cfg = Config.fromfile(tiny_run / "tiny.py")
    for name in ("train", "val", "test"):
        cfg[f"{name}_dataloader"].dataset.metainfo.classes = list(NAMES)
    cfg.dump(file)
    launch(train, file, "--work-dir", tmp_path / "run", "train_cfg.max_iters=1")
    saved = tmp_path / "run" / "tiny.yaml"
    assert load_config(saved).train_dataloader.dataset.metainfo.classes == list(NAMES)
    launch(evaluate, tmp_path / "run")
    assert list((tmp_path / "run" / "test").glob("*/*.json"))


def test_a_seed_that_is_named_reaches_the_run_and_its_config(tiny_run):
    assert "randomness" not in Config.fromfile(tiny_run / "tiny.py")
    assert Config.fromfile(tiny_run / "run" / "tiny.py").randomness == {"seed": 3}
    saved = torch.load(tiny_run / "run" / "iter_1.pth", weights_only=False)  # a file of ours
    assert saved["meta"]["seed"] == 3
