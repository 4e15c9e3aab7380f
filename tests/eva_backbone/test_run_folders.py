"""A run's folder, whichever trainer made it, stands for one file of weights."""

import json
import os

import pytest
import torch

from eva_backbone.checkpoints.reading import read_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.run_folders import weights_of_run

WEIGHTS, EMA = "model.safetensors", "model_ema.safetensors"


def _put(file, content="x"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def _checkpoint(run, step, *, names=(WEIGHTS,), complete=True):
    folder = run / "checkpoints" / f"step_{step:08d}"
    sizes = {name: [_put(folder / name).stat().st_size, ""] for name in names}
    if complete:
        _put(folder / "COMPLETE", json.dumps({"format": 2, "files": sizes}))
    return folder


def _best(run, metric, **values):
    """A run that kept its best weights, by name of their file and its value of the metric."""
    names = {"plain": WEIGHTS, "ema": EMA}
    record = {names[n]: {"step": 3, "results": {metric: v}} for n, v in values.items()}
    _put(run / "best/best.json", json.dumps(record))
    _put(run / "config.json", json.dumps({"run": {"best_metric": metric}}))
    for name in record:
        _put(run / "best" / name)


@pytest.mark.parametrize(
    ("metric", "values", "name"),
    [
        ("top1", {"plain": 90.0, "ema": 80.0}, WEIGHTS),
        ("top1", {"plain": 80.0, "ema": 90.0}, EMA),
        ("loss", {"plain": 0.2, "ema": 0.3}, WEIGHTS),
        ("top1", {"plain": 80.0}, WEIGHTS),
    ],
)
def test_the_better_one_of_the_best_weights(tmp_path, metric, values, name):
    _checkpoint(tmp_path, 9, names=(WEIGHTS, EMA))
    _best(tmp_path, metric, **values)
    assert resolve_source(tmp_path) == tmp_path / "best" / name
    assert weights_of_run(tmp_path / "checkpoints/step_00000009").parent.name == "step_00000009"


def test_a_run_of_detectron2(tmp_path):
    final = _put(tmp_path / "model_final.pth")
    assert resolve_source(tmp_path) == final
    _put(tmp_path / "last_checkpoint", "/elsewhere/model_0000009.pth")
    assert resolve_source(tmp_path) == final
    longer = _put(tmp_path / "model_0000009.pth")
    assert resolve_source(tmp_path) == longer


def test_a_run_of_mmengine(tmp_path):
    for step in (9, 10):
        newest = _put(tmp_path / f"iter_{step}.pth")
    assert resolve_source(tmp_path) == newest
    _put(tmp_path / "last_checkpoint", "/elsewhere/iter_9.pth")
    assert resolve_source(tmp_path) == tmp_path / "iter_9.pth"
    old, best = (_put(tmp_path / f"best_mIoU_iter_{step}.pth") for step in (8, 9))
    os.utime(old, (1, 1))
    assert resolve_source(tmp_path) == best
    with pytest.raises(FileNotFoundError, match="without averaged weights"):
        weights_of_run(tmp_path, ema=True)


def test_what_mmengine_packs_beside_the_weights_is_passed_over(tmp_path):
    logging = pytest.importorskip("mmengine.logging")
    buffer = logging.HistoryBuffer([1.0, 2.0], [1, 1])
    content = {"message_hub": {"log_scalars": {"loss": buffer}}, "state_dict": {"a": torch.ones(2)}}
    torch.save(content, tmp_path / "iter_1.pth")
    assert read_weights(tmp_path / "iter_1.pth")["a"].tolist() == [1, 1]
