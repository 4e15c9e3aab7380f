"""The debug backbone: its targets, its training program, and the weights that ship."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from eva_backbone import eva_debug, load_pretrained
from eva_backbone.checkpoints.registry import bundled_path
from eva_data.files import UnwritableError
from eva_demo import debug_backbone, dense_scenes

PROGRAM = Path(__file__).resolve().parents[2] / "tools" / "train_debug_backbone.py"


def test_targets_describe_the_picture():
    found = 0
    for index in range(20):
        item = dense_scenes.DenseScenes(20, seed=3)[index]
        digit = item["digit"].unflatten(0, (dense_scenes.GRID,) * 2)
        ink = item["ink"].unflatten(0, digit.shape).sum(-1)
        positive = digit != dense_scenes.NO_DIGIT
        assert (ink[positive] >= dense_scenes.MIN_INK).all()
        assert set(digit[positive].tolist()) == set(item["present"].nonzero().flatten().tolist())
        box = item["box"].unflatten(0, digit.shape)[positive]
        size = box[:, :2] + box[:, 2:]  # left + right, top + bottom, in patches
        assert (size > 0).all()
        assert (size <= dense_scenes.GRID).all()
        found += int(positive.sum())
    assert found > 200


def test_boxes_surround_the_ink_of_their_digit():
    """Recomputed from the unaugmented masks, with the augmentation switched off."""
    scene = dense_scenes.SceneGenerator("train", seed=1).scene(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense_scenes, "_warp", lambda image, owner, rng: (image, owner))
        item = dense_scenes.dense_targets(scene, rng=np.random.default_rng(0))
    centre = (np.arange(dense_scenes.GRID) + 0.5) * dense_scenes.PATCH
    boxes = {tuple(instance.box) for instance in scene.instances}
    for patch_index in (item["digit"] != dense_scenes.NO_DIGIT).nonzero().flatten().tolist():
        row, column = divmod(patch_index, dense_scenes.GRID)
        left, top, right, bottom = (item["box"][patch_index] * dense_scenes.PATCH).tolist()
        x, y = centre[column], centre[row]
        assert (x - left, y - top, x + right, y + bottom) in boxes


def test_items_do_not_depend_on_the_order():
    first, second = (dense_scenes.DenseScenes(9, seed=5) for _ in range(2))
    second[2]
    for name, value in first[7].items():
        assert torch.equal(value, second[7][name])


@pytest.mark.slow
def test_a_stopped_run_continues_with_the_same_losses(tmp_path, starter):
    def run(output, *, kill_after_save=False):
        command = [PROGRAM, "--output", output, "--steps", "40"]
        command += ["--batch", "1", "--save-every", "10", "--read-out-scenes", "20"]
        with open(os.devnull, "w+") as nothing:
            process = starter.Started(
                command, [nothing] * 3,
                place=starter.place, environment=os.environ, folder=tmp_path,
            )  # fmt: skip
        while kill_after_save and process.poll() is None:
            if (output / "state.pt").exists():
                process.kill()
            time.sleep(0.01)
        return process.wait(300)

    assert run(tmp_path / "whole") == 0
    assert run(tmp_path / "parts", kill_after_save=True) != 0
    assert run(tmp_path / "parts") == 0
    lines = [
        (tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1]
        for name in ("whole", "parts")
    ]
    assert lines[0] == lines[1]
    assert json.loads(lines[0])["step"] == 40


@pytest.mark.parametrize(("size", "note"), [(1000, ""), (4_000_000, "long " * 1_000_000)])
def test_weights_and_their_record_are_replaced_together(
    size, note, tmp_path, small_disk, monkeypatch
):
    """Also when it is the second file that the disk has no room for."""
    monkeypatch.setattr(debug_backbone, "_WEIGHTS", tmp_path)
    files = [tmp_path / "eva_debug.json", tmp_path / "eva_debug.safetensors"]
    for file in files:
        file.write_text("before")
    with small_disk(size), pytest.raises(UnwritableError, match="cannot be written: File too"):
        debug_backbone.install(eva_debug(), {"command": "python", "note": note})
    assert [file.read_text() for file in files] == ["before"] * 2
    assert sorted(tmp_path.iterdir()) == files
    debug_backbone.install(eva_debug(), {"command": "python"})
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


def test_shipped_weights_know_digits_they_have_not_seen():
    """A smaller read-out than the record's: fitted on 250 scenes."""
    trained = eva_debug()
    load_pretrained(trained, "eva_debug")
    result = debug_backbone.read_out(trained, seed=0, train_scenes=250)
    assert max(result["linear"], result["nearest_neighbours"]) >= 0.88
    torch.manual_seed(0)
    untrained = debug_backbone.read_out(eva_debug(), seed=0, train_scenes=30)
    assert untrained["nearest_neighbours"] < 0.4
