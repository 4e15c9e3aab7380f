"""The debug backbone: its targets, its training program, and the weights that ship."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from eva_backbone import eva_debug, load_pretrained
from eva_backbone.checkpoints.registry import bundled_path
from eva_data.files import UnwritableError
from eva_demo import debug_backbone


def test_targets_describe_the_picture():
    found = 0
    for index in range(8):
        item = debug_backbone.DenseScenes(8, seed=3)[index]
        digit = item["digit"].unflatten(0, (debug_backbone.GRID,) * 2)
        ink = item["ink"].unflatten(0, digit.shape).sum(-1)
        positive = digit != debug_backbone.NO_DIGIT
        assert (ink[positive] >= debug_backbone.MIN_INK).all()
        assert set(digit[positive].tolist()) == set(item["present"].nonzero().flatten().tolist())
        box = item["box"].unflatten(0, digit.shape)[positive]
        size = box[:, :2] + box[:, 2:]  # left + right, top + bottom, in patches
        assert (size > 0).all()
        assert (size <= debug_backbone.GRID).all()
        found += int(positive.sum())
    assert found > 80


def test_boxes_surround_the_ink_of_their_digit():
    """Recomputed from the unaugmented masks, with the augmentation switched off."""
    scene = debug_backbone.SceneGenerator("train", seed=1).make(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(debug_backbone, "_warp", lambda image, owner, rng: (image, owner))
        item = debug_backbone.dense_targets(scene, rng=np.random.default_rng(0))
    centre = (np.arange(debug_backbone.GRID) + 0.5) * debug_backbone.PATCH
    boxes = {tuple(instance.box) for instance in scene.instances}
    for patch_index in (item["digit"] != debug_backbone.NO_DIGIT).nonzero().flatten().tolist():
        row, column = divmod(patch_index, debug_backbone.GRID)
        left, top, right, bottom = (item["box"][patch_index] * debug_backbone.PATCH).tolist()
        x, y = centre[column], centre[row]
        assert (x - left, y - top, x + right, y + bottom) in boxes


def test_a_short_training_makes_weights_that_load(tmp_path, monkeypatch):
    monkeypatch.setattr(debug_backbone, "read_out", lambda backbone, **_: {"linear": 0.5})
    command = ["--output", str(tmp_path), "--steps=2", "--batch=1"]
    assert debug_backbone.main(command) == 0
    record = json.loads((tmp_path / "eva_debug.json").read_text())
    assert record["command"].endswith("--output RUN --steps 2 --batch 1 --seed 0 --install")
    load_pretrained(eva_debug(), tmp_path / "eva_debug.safetensors", complete=True)


@pytest.mark.parametrize(("size", "note"), [(1000, ""), (4_000_000, "long " * 1_000_000)])
def test_weights_and_their_record_are_replaced_together(size, note, tmp_path, small_disk):
    """Also when it is the second file that the disk has no room for."""
    files = [tmp_path / "eva_debug.json", tmp_path / "eva_debug.safetensors"]
    for file in files:
        file.write_text("before")
    with small_disk(size), pytest.raises(UnwritableError, match="cannot be written: File too"):
        debug_backbone.write_weights(eva_debug(), {"command": "python", "note": note}, tmp_path)
    assert [file.read_text() for file in files] == ["before"] * 2
    assert sorted(tmp_path.iterdir()) == files
    debug_backbone.write_weights(eva_debug(), {"command": "python"}, tmp_path)
    assert json.loads(files[0].read_text()) == {"command": "python"}
    load_pretrained(eva_debug(), files[1], complete=True)


def test_shipped_weights_are_small_and_load_by_name():
    path = bundled_path("eva_debug")
    assert path.stat().st_size < 2.5e6
    with safe_open(path, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    report = load_pretrained(eva_debug(), "eva_debug", complete=True)
    assert not report.skipped
    record = json.loads(path.with_suffix(".json").read_text())
    assert max(record["result"]["linear"], record["result"]["nearest_neighbours"]) >= 0.92


@pytest.mark.slow
def test_shipped_weights_know_digits_they_have_not_seen():
    """A smaller read-out than the record's: fitted on 150 scenes."""
    trained = eva_debug()
    load_pretrained(trained, "eva_debug")
    result = debug_backbone.read_out(trained, seed=0, train_scenes=150)
    assert max(result["linear"], result["nearest_neighbours"]) >= 0.88
