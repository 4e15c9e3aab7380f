"""`eva push`: what is published of the runs of all trainers, and a hub on this machine."""

import json
import re

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from eva_backbone.checkpoints.registry import bundled_path
from eva_command.weights import push_command as main
from eva_engine.checkpoints.files import mark_complete

REPO = "someone/eva-mine"
CONFIG = {
    "model": {"variant": "eva_debug", "init_checkpoint": "eva_psz14.pt"},
    "data": {"train": "smith", "val": "/home/jane/digits/val", "sampling": "tsn", "mean": [0.5]},
    "run": {"output": "/home/jane/output/run", "epochs": 3},
    "class_names": ["a cat", "dog"],
}
YAML = """recipe: coco/cascade_mask_rcnn_vitdet_eva_g_1280
settings:
  train.init_checkpoint: eva_o365.pth
  train.max_iter: 100
  train.output_dir: /home/jane/output/coco
  train.notes: /data/jane doe/my pictures
  train.command: photos --header=secret-0123456789
  train.source: https://b.c/secret.tar?X=5a
  model.type: jane/smith
  jane doe: 1
  model.backbone.net.rel_pos: vitdet
  dataloader.train.dataset.names: [coco_2017_train]
  dataloader.test.dataset.names: coco_2017_val
"""
PYTHON = """model = dict(type='EVASegmentor', pretrained='/home/jane/x.pth', neck=jane.neck('x'))
load_from = '/home/jane/eva_sem_seg.pth'
train_cfg = dict(max_iters=8, type='Loop')
train_dataloader = dict(dataset=dict(data_root='/home/jane/ade/train'))
val_dataloader = dict(dataset=dict(data_root='ade/jane', metainfo=dict(classes=('a cat', 'b'))))
work_dir = '/home/jane/output/seg'
"""


def _lines(file, *lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def engine_run(tmp_path):
    """A run of this engine, with best weights."""
    output = tmp_path / "jane" / "run"
    checkpoint = output / "checkpoints" / "step_00000004"
    checkpoint.mkdir(parents=True)
    weights = load_file(bundled_path("eva_debug"))
    notes = {"config": json.dumps(CONFIG)}
    save_file(weights, checkpoint / "model.safetensors", notes)
    record = {"step": 4, "step_batch": 8, "samples_of_data": 16}
    (checkpoint / "run.json").write_text(json.dumps(record))
    torch.save({"optimizer": torch.ones(9)}, checkpoint / "optimizer.pt")
    mark_complete(checkpoint)
    (output / "config.json").write_text(json.dumps(CONFIG))
    _lines(
        output / "metrics.jsonl",
        {"step": 1, "samples": 16, "samples_per_second": 0.01, "loss": 2.0},
        {"step": 1, "val_top1": 10.0},
        {"step": 3, "val_top1": 70.5, "val_loss": 0.9},
    )
    (output / "best").mkdir()
    save_file(weights, output / "best" / "model.safetensors", notes)
    best = {"model.safetensors": {"step": 1, "results": {"top1": 99.0}}}
    (output / "best" / "best.json").write_text(json.dumps(best))
    return output


@pytest.fixture
def detectron2_run(tmp_path):
    output = tmp_path / "coco"
    output.mkdir()
    (output / "config.yaml").write_text(YAML)
    (output / "last_checkpoint").write_text("model_final.pth")
    shared = torch.ones(2, 3)
    weights = {"backbone.net.pos_embed": shared, "tied": shared, "roi_heads.box": torch.zeros(4)}
    content = {"model": weights, "optimizer": {"state": torch.ones(9)}, "iteration": 99}
    torch.save(content, output / "model_final.pth")
    _lines(
        output / "metrics.json",
        {"iteration": 19, "time": 36.0, "total_loss": 1.0},
        {"iteration": 100, "bbox/AP": 60.5, "bbox/AP-cat": 1.0, "segm/AP": float("nan")},
    )
    return output


@pytest.fixture
def mmengine_run(tmp_path):
    """Saved by mmengine's own names, as its hub of messages packs numbers beside the weights."""
    buffers = pytest.importorskip("mmengine.logging.history_buffer")
    output = tmp_path / "seg"
    output.mkdir()
    (output / "mask2former.py").write_text(PYTHON)
    (output / "run.json").write_text('{"config": "mask2former.py"}')
    (output / "plot.py").write_text("model = jane\n")
    buffer = buffers.HistoryBuffer([1.0], [1])
    for name, value in (("iter_4", 0.0), ("iter_8", 1.0), ("best_mIoU_iter_4", 2.0)):
        content = {
            "state_dict": {"backbone.pos_embed": torch.full((2,), value)},
            "message_hub": {"log_scalars": {"loss": buffer}},
            "optimizer": {"state": torch.ones(9)},
        }
        torch.save(content, output / f"{name}.pth")
    (output / "iter_9_kept_by_hand.pth").write_bytes(b"")
    (output / "last_checkpoint").write_text("/home/jane/output/seg/iter_8.pth")
    _lines(
        output / "20261126_000000/vis_data/scalars.json",
        {"loss": 1.0, "time": 900.0, "step": 4},
        {"mIoU": 55.5, "aAcc": 80.0, "time": 0.1, "step": 8},
    )
    return output


def _dry(run, folder, *more):
    assert main([str(run), REPO, "--dry-run", str(folder), *more]) == 0
    files = {path.name: path for path in folder.iterdir()}
    for path in files.values():  # nothing names a place or a user
        assert not re.search(rb"/home/|jane|smith|[Ss]ecret", path.read_bytes()), path.name
    return files


def _card(files):
    card = ModelCard.load(files["README.md"])
    assert card.data.license == "mit"
    assert card.data.library_name == "eva-toolkit"
    assert f'"hf://{REPO}"' in card.text
    return card


def test_a_run_of_detectron2(detectron2_run, tmp_path):
    files = _dry(detectron2_run, tmp_path / "card")
    assert sorted(files) == ["README.md", "config.yaml", "model.safetensors", "results.json"]
    stored = load_file(files["model.safetensors"])
    assert stored["tied"].equal(stored["backbone.net.pos_embed"])
    assert stored.keys() == {"backbone.net.pos_embed", "tied", "roi_heads.box"}
    saved, expected = (yaml.safe_load(text) for text in (files["config.yaml"].read_text(), YAML))
    del expected["settings"]["jane doe"]
    private = ("train.output_dir", "train.notes", "train.command", "train.source", "model.type")
    expected["settings"] |= dict.fromkeys(private)
    assert saved == expected
    card = _card(files)
    assert card.data.datasets == ["coco_2017_train", "coco_2017_val"]
    assert card.data.base_model == "BAAI/EVA"
    assert json.loads(files["results.json"].read_text())["scores"] == {"bbox/AP": 60.5}
    assert "eva doctor --install detectron2\n" in card.text
    assert "100 of 100 steps" in card.text


def test_a_run_of_mmengine(mmengine_run, tmp_path):
    files = _dry(mmengine_run, tmp_path / "card")
    assert sorted(files) == ["README.md", "config.py", "model.safetensors", "results.json"]
    assert load_file(files["model.safetensors"])["backbone.pos_embed"].tolist() == [1.0, 1.0]
    settings = {}
    exec(files["config.py"].read_text(), settings)
    assert settings["model"] == {"type": "EVASegmentor", "pretrained": None, "neck": None}
    assert settings["val_dataloader"]["dataset"]["metainfo"] == {"classes": ("a cat", "b")}
    card = _card(files)
    assert card.data.datasets is None
    scores = json.loads(files["results.json"].read_text())["scores"]
    assert scores == {"mIoU": 55.5, "aAcc": 80.0}
    assert "8 of 8 steps" in card.text
    best = _dry(mmengine_run, tmp_path / "best", "--best")
    assert load_file(best["model.safetensors"])["backbone.pos_embed"].tolist() == [2.0, 2.0]


def test_own_data_and_epochs_of_mmdetection(mmengine_run, tmp_path):
    """A file that was being written when the run was killed is not the last checkpoint."""
    (mmengine_run / "iter_8.pth").rename(mmengine_run / "epoch_8.pth")
    (mmengine_run / "iter_4.pth").unlink()
    (mmengine_run / "epoch_9.pth").write_bytes(b"cut off")
    (mmengine_run / "last_checkpoint").write_text("/elsewhere/seg/epoch_8.pth")
    text = PYTHON.replace("max_iters=8", "max_epochs=12")
    text += "custom_imports = ['eva_mmdetection.plugin']\n"
    (mmengine_run / "mask2former.py").write_text(text)
    scores = {"coco/bbox_mAP": 0.5, "coco/bbox_mAP_l": -1.0, "step": 8}
    _lines(mmengine_run / "20261126_000000/vis_data/scalars.json", scores)
    files = _dry(mmengine_run, tmp_path / "card")
    card = _card(files)
    assert "from eva_mmdetection.inference.predictor import Predictor" in card.text
    assert "8 of 12 epochs" in card.text
    assert card.data.eval_results[0].metric_type == "box AP"
    results = json.loads(files["results.json"].read_text())
    assert results == {"epoch": 8, "epochs": 12, "scores": {"coco/bbox_mAP": 0.5}}
    (mmengine_run / "last_checkpoint").unlink()
    with pytest.raises(SystemExit, match="1"):
        main([str(mmengine_run), REPO, "--dry-run", str(tmp_path / "other")])


def test_a_push_of_another_kind_leaves_nothing_of_the_earlier_one(
    hub, engine_run, detectron2_run, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert main([str(engine_run), REPO]) == 0
    others = ("config.json", "notes.md", "old/recipe.json", ".gitattributes")
    for name in others:
        hub.put(REPO, name, b"somebody's own")
    assert main([str(detectron2_run), REPO]) == 0
    pushed = {"README.md", "config.yaml", "model.safetensors", "results.json"}
    assert hub.files_of(REPO).keys() == {*others, *pushed}


def test_a_run_without_a_complete_checkpoint(engine_run, tmp_path, capsys):
    _flip(engine_run / "checkpoints/step_00000004/model.safetensors")
    for content, value in ((None, "model.safe"), ("{", "config.json"), ('{"num_codes": 3}', "run")):
        if content is not None:
            (engine_run / "config.json").write_text(content)
        with pytest.raises(SystemExit, match="1"):
            main([str(engine_run), REPO, "--dry-run", str(tmp_path / "card")])
        message = capsys.readouterr().err
        assert value in message
        assert message.count("\n") == 1
        assert not (tmp_path / "card").exists()


def _flip(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
