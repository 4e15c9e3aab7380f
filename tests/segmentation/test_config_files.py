"""Configs are data where they can be, and names in them stay names."""

import json

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import RUNNERS

from eva_data.files import UnwritableError
from eva_openmmlab.config.files import SavedConfig, read_config
from eva_openmmlab.config.options import load_config
from eva_segmentation.evaluation import evaluate
from eva_segmentation.inference.predictor import Predictor
from eva_segmentation.training import train

NAMES = (
    *(
        "{{$HOME:x}}",
        "{{ fileBasename }}",
        "{{_base_.model}}",
        "{{{fileDirname}}}",
        "${oc.env:HOME}",
    ),
    *(
        "it's",
        'a "quote"',
        "back\\slash",
        "line\nbreak",
        "straße",
        "{{'$HOME:'}}",
        "\\{{ fileExtname }}",
    ),
)
HARMFUL = "x: !!python/object/apply:os.mkdir [{place}]\n"


@pytest.mark.parametrize("suffix", [".py", ".yaml", ".yml", ".json"])
def test_names_of_classes_survive_a_file(suffix, tmp_path, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    content = {"metainfo": {"classes": list(NAMES), "size": [1, 2]}, NAMES[1]: 1.5, "none": None}
    if suffix == ".py":
        content.pop(NAMES[1])  # mmengine writes such keys at the top of no program
    file = tmp_path / f"saved{suffix}"
    SavedConfig.of(Config(content)).dump(file)
    for read in (Config.fromfile, read_config):  # the first: mmsegmentation's own tools
        assert read(file).to_dict() == content


@pytest.mark.parametrize("suffix", [".py", ".yaml", ".json"])
def test_a_config_is_replaced_by_a_complete_one_or_stays(suffix, tmp_path, small_disk):
    file = tmp_path / f"saved{suffix}"
    file.write_text("before")
    saved = SavedConfig.of(Config({"classes": ["straße"] * 1000}))
    message = r"saved\.\w+ cannot be written: File too large"
    with small_disk(100), pytest.raises(UnwritableError, match=message):
        saved.dump(file)
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_tuples_survive_yaml(tmp_path):
    SavedConfig.of(Config({"crop": (2, 3), "inner": {"deep": [(1,)]}})).dump(tmp_path / "a.yaml")
    assert read_config(tmp_path / "a.yaml").to_dict() == {"crop": (2, 3), "inner": {"deep": [(1,)]}}


def test_yaml_runs_nothing(tmp_path, launch, tiny_run):
    place, file = tmp_path / "harm", tmp_path / "bad.yaml"
    file.write_text(HARMFUL.format(place=place))
    with pytest.raises(SystemExit, match=r"^train\.py: \S*bad\.yaml cannot be read as a config"):
        launch(train, file, "--work-dir", tmp_path / "run")
    with pytest.raises(SystemExit, match=r"^test\.py: \S*bad\.yaml cannot be read as a config"):
        launch(evaluate, file, "eva_debug", "--work-dir", tmp_path / "run")
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
        with pytest.raises(
            ValueError, match=r"is data and names programs|is not a config but list"
        ):
            read_config(file)
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
    message = "names programs|which mmengine would replace|inherits from itself"
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path / next(iter(texts)))
    assert not (tmp_path / "ran").exists()


def test_a_recipe_in_yaml_trains_and_its_saved_config_is_tested(tiny_run, launch, tmp_path):
    file = tmp_path / "tiny.yaml"
    cfg = SavedConfig.of(Config.fromfile(tiny_run / "tiny.py"))
    for name in ("train", "val", "test"):
        cfg[f"{name}_dataloader"].dataset.metainfo.classes = list(NAMES[:5])
    cfg.dump(file)
    launch(train, file, "--work-dir", tmp_path / "run", "--cfg-options", "train_cfg.max_iters=1")
    saved = tmp_path / "run" / "tiny.yaml"
    assert read_config(saved).train_dataloader.dataset.metainfo.classes == list(NAMES[:5])
    launch(evaluate, saved, tmp_path / "run" / "iter_1.pth")
    assert list((tmp_path / "run" / "test").glob("*/*.json"))


@pytest.mark.filterwarnings("ignore:The draw is False:UserWarning")
def test_a_runner_saves_names_as_they_are(tiny_run, forget_runs, tmp_path, monkeypatch):
    """Also under mmsegmentation's own scripts, which hand over a config of mmengine."""
    monkeypatch.setenv("HOME", "elsewhere")
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, **style: (text, True))
    cfg = Config.fromfile(tiny_run / "tiny.py")
    cfg.work_dir = str(tmp_path)
    for name in ("train", "val", "test"):
        cfg[f"{name}_dataloader"].dataset.metainfo.classes = list(NAMES[:5])
    cfg.train_cfg.max_iters = 1
    try:
        RUNNERS.build(cfg).train()
    finally:
        forget_runs()
    copies = [tmp_path / "tiny.py", *tmp_path.glob("*/vis_data/config.py")]
    assert len(copies) == 2
    for copy in copies:
        found = Config.fromfile(copy).val_dataloader.dataset.metainfo.classes
        assert found == list(NAMES[:5])


def test_a_seed_that_is_named_reaches_the_run_and_its_config(tiny_run):
    assert "randomness" not in Config.fromfile(tiny_run / "tiny.py")
    assert Config.fromfile(tiny_run / "run" / "tiny.py").randomness == {"seed": 3}
    saved = torch.load(tiny_run / "run" / "iter_1.pth", weights_only=False)  # a file of ours
    assert saved["meta"]["seed"] == 3
