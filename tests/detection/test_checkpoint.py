"""Initial weights by file, complete detectors, and run checkpoints that survive an interruption."""

import copy
import os

import pytest
import torch
from detectron2.config import instantiate
from detectron2.engine import SimpleTrainer
from torch import nn

from eva_backbone import build_vit
from eva_detection.model.weights import load_initial_weights
from eva_detection.training.checkpoint import RunCheckpointer

WIDTH = {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_dim": 64}
TRUNK = "backbone.net."


@pytest.fixture
def pretrained(tmp_path, randomise):
    """A backbone as pre-training leaves it: class and mask token, final norm, head, fp16."""
    vit = build_vit("eva_debug", **WIDTH, extra_tokens=("cls", "mask"))
    vit.lm_head = nn.Linear(32, 16)
    state = {name: value.half() for name, value in randomise(vit).state_dict().items()}
    file = tmp_path / "pretrained.pt"
    torch.save({"model": state}, file)
    return file, state


@pytest.fixture
def save_detector(tmp_path, randomise, make_tiny_detector):
    """Function: a detector with random weights and the file that a run would leave of it."""

    def save(*overrides):
        model = randomise(make_tiny_detector(*overrides))
        file = tmp_path / "detector.pth"
        torch.save({"model": model.state_dict(), "iteration": 9}, file)
        return model, file

    return save


def _state(model):
    return copy.deepcopy(model.state_dict())


def _assert_same(model, state):
    assert model.state_dict().keys() == state.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_backbone_file_fills_the_trunk_and_nothing_else(make_tiny_detector, pretrained):
    file, state = pretrained
    model = make_tiny_detector()
    before = _state(model)
    report = load_initial_weights(model, str(file))
    for name, value in model.state_dict().items():
        local = name.removeprefix(TRUNK)
        if name.startswith(TRUNK) and ".rel_pos_" not in name:
            assert torch.equal(value, state[local].float()), name
            assert name in report.loaded
        else:
            assert torch.equal(value, before[name]), name
            assert name in report.missing
    assert {"cls_token", "mask_token"} <= {name.removeprefix(TRUNK) for name in report.skipped}
    assert not report.resampled


def test_a_backbone_of_another_patch_and_grid_is_resampled(make_tiny_detector, tmp_path, randomise):
    """What happens to `eva_l_psz14.pt`: patches and positions of other sizes."""
    vit = randomise(build_vit("eva_debug", **WIDTH, patch_size=14, img_size=56))
    torch.save(vit.state_dict(), tmp_path / "other.pt")
    report = load_initial_weights(make_tiny_detector(), str(tmp_path / "other.pt"))
    assert report.resampled == {
        f"{TRUNK}patch_embed.proj.weight": ((32, 3, 14, 14), (32, 3, 8, 8)),
        f"{TRUNK}pos_embed": ((1, 17, 32), (1, 257, 32)),
    }


@pytest.mark.parametrize("complete", [False, True])
def test_a_whole_detector_comes_back_identical(save_detector, make_tiny_detector, complete):
    model, file = save_detector()
    again = make_tiny_detector()
    assert not torch.equal(next(again.parameters()), next(model.parameters()))
    report = load_initial_weights(again, str(file), complete=complete)
    _assert_same(again, model.state_dict())
    assert set(report.loaded) == set(model.state_dict())
    image = [{"image": torch.rand(3, 128, 128) * 255}]
    with torch.no_grad():
        mine, theirs = (m.eval()(image)[0]["instances"] for m in (again, model))
    assert torch.equal(mine.scores, theirs.scores)
    assert torch.equal(mine.pred_boxes.tensor, theirs.pred_boxes.tensor)


def test_relative_positions_are_resampled_to_another_size(save_detector, make_tiny_detector):
    """The second Objects365 phase: 1024 -> 1280 px."""
    model, file = save_detector()
    larger = make_tiny_detector("model.backbone.net.img_size=160")
    report = load_initial_weights(larger, str(file))
    table = f"{TRUNK}blocks.1.attn.rel_pos_h"
    assert report.resampled[table] == ((31, 16), (39, 16))
    assert set(report.resampled) == {table, table.replace("_h", "_w")}
    ends = model.state_dict()[table][[0, -1]]
    assert (larger.state_dict()[table][[0, -1]] - ends).abs().max() < 0.5 * ends.abs().max()


def test_another_class_count_is_refused_for_evaluation(save_detector, make_tiny_detector):
    _, file = save_detector("model.roi_heads.num_classes=7")
    model = make_tiny_detector()
    before = _state(model)
    message = r"detector\.pth does not fit .*cls_score\.weight \(8, 192\) -> \(11, 192\)"
    with pytest.raises(ValueError, match=message):
        load_initial_weights(model, str(file), complete=True)
    _assert_same(model, before)


def test_objects365_to_coco(
    save_detector, make_tiny_detector, tiny_config, tmp_path, randomise, caplog
):
    """`eva_o365.pth` has 365 classes and no masks; the COCO and LVIS recipes start from it."""
    boxes = tiny_config("model.roi_heads.num_classes=7")
    for key in ("mask_in_features", "mask_pooler", "mask_head"):
        boxes.model.roi_heads.pop(key)
    objects365 = randomise(instantiate(boxes.model))
    assert not any("mask_head" in name for name in objects365.state_dict())
    file = tmp_path / "objects365.pth"
    torch.save({"model": objects365.state_dict()}, file)

    model = make_tiny_detector()
    before = _state(model)
    with caplog.at_level("INFO"):
        report = load_initial_weights(model, str(file))
    shown = [record.message for record in caplog.records if getattr(record, "shown", False)]
    assert [
        line.endswith("initialised from scratch, other shape in the file") for line in shown
    ] == [True], shown
    new = ("mask_head", "cls_score")
    for name, value in model.state_dict().items():
        expected = before if any(part in name for part in new) else objects365.state_dict()
        assert torch.equal(value, expected[name]), name
        assert (name in report.missing) == any(part in name for part in new)


def test_a_backbone_alone_is_refused_for_evaluation(make_tiny_detector, pretrained):
    file, _ = pretrained
    model = make_tiny_detector()
    before = _state(model)
    with pytest.raises(ValueError, match=r"pretrained\.pt holds a backbone"):
        load_initial_weights(model, str(file), complete=True)
    _assert_same(model, before)


def test_a_detector_without_masks_is_refused_for_evaluation(save_detector, make_tiny_detector):
    model, file = save_detector()
    state = {name: value for name, value in model.state_dict().items() if "mask_head" not in name}
    torch.save({"model": state}, file)
    with pytest.raises(ValueError, match=r"lacks 10 of the model's names: .*mask_head"):
        load_initial_weights(make_tiny_detector(), str(file), complete=True)


def test_no_source(make_tiny_detector):
    model = make_tiny_detector()
    before = _state(model)
    assert load_initial_weights(model, "") is None
    _assert_same(model, before)
    with pytest.raises(ValueError, match=r"set train\.init_checkpoint=NAME_OR_FILE"):
        load_initial_weights(model, "", complete=True)


class BrokenDiskError(OSError):
    """The disk is full, or the process was killed."""


@pytest.fixture
def half_written(monkeypatch):
    """From now on `torch.save` stops in the middle of the file."""
    real = torch.save

    def write_half(content, file, **options):
        real(content, file, **options)
        file.truncate(file.tell() // 2)
        raise BrokenDiskError

    return lambda: monkeypatch.setattr(torch, "save", write_half)


def _checkpointer(folder):
    torch.manual_seed(3)
    model = nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    trainer = SimpleTrainer(model, [], optimizer)
    trainer.iter = 4
    return RunCheckpointer(model, str(folder), trainer=trainer), model, trainer


def test_saved_and_resumed(tmp_path):
    checkpointer, model, trainer = _checkpointer(tmp_path)
    checkpointer.save("model_0000004", iteration=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last_checkpoint",
        "model_0000004.pth",
    ]
    other, fresh, other_trainer = _checkpointer(tmp_path)
    nn.init.zeros_(fresh.weight)
    other_trainer.optimizer.state.clear()
    assert other.has_checkpoint()
    rest = other.read(other_trainer.optimizer)
    other.restore(rest)
    _assert_same(fresh, model.state_dict())
    assert other_trainer.iter == 4
    assert rest["iteration"] == 4
    mine, theirs = (t.optimizer.state_dict()["state"] for t in (other_trainer, trainer))
    assert torch.equal(mine[0]["exp_avg"], theirs[0]["exp_avg"])


def test_interrupted_save_keeps_the_checkpoint_before(tmp_path, half_written):
    checkpointer, model, _ = _checkpointer(tmp_path)
    checkpointer.save("model_0000004", iteration=4)
    expected = _state(model)
    nn.init.zeros_(model.weight)
    half_written()
    with pytest.raises(BrokenDiskError):
        checkpointer.save("model_0000009", iteration=9)
    assert not (tmp_path / "model_0000009.pth").exists()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"
    other, fresh, trainer = _checkpointer(tmp_path)
    other.restore(other.read(trainer.optimizer))
    _assert_same(fresh, expected)


def test_nothing_points_to_a_file_that_is_not_in_place(tmp_path, monkeypatch):
    """Killed when the file is complete, but not yet under its name."""
    checkpointer, _, _ = _checkpointer(tmp_path)
    checkpointer.save("model_0000004", iteration=4)
    move = os.replace

    def broken_for_weights(source, target):
        if str(target).endswith(".pth"):
            raise BrokenDiskError
        move(source, target)

    monkeypatch.setattr(os, "replace", broken_for_weights)
    with pytest.raises(BrokenDiskError):
        checkpointer.save("model_0000009", iteration=9)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"


def test_other_processes_write_nothing(tmp_path):
    model = nn.Linear(2, 2)
    RunCheckpointer(model, str(tmp_path), save_to_disk=False).save("model_final")
    assert list(tmp_path.iterdir()) == []
