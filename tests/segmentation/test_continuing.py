"""Runs that are stopped or killed and continue: they compute what one without a break computes."""

import json
import multiprocessing
import os
import shutil
import signal

import pytest
from mmengine.config import Config

from eva_runs.run_logs import RunLogs
from eva_segmentation.commands import train
from eva_segmentation.model.segmentor import EVASegmentor

LAST = 6


@pytest.fixture(scope="module")
def config(tiny_run, tmp_path_factory):
    """Six iterations with evaluations after three and six, a checkpoint after every second."""
    cfg = Config.fromfile(tiny_run / "tiny.py")
    cfg.train_cfg.update(max_iters=LAST, val_interval=3)
    cfg.default_hooks.checkpoint.update(interval=2, max_keep_ckpts=2)
    cfg.randomness = dict(seed=3)
    cfg.model.backbone.drop_path_rate = 0.5
    file = tmp_path_factory.mktemp("config") / "six.py"
    cfg.dump(file)
    return file


@pytest.fixture(scope="module")
def without_break(config, launch, tmp_path_factory):
    """Work folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("without_break")
    launch(train, config, "--work-dir", folder)
    return folder


def logged(folder):
    """Iteration -> what was logged of it, without times; a later start counts."""
    found = {}
    for file in sorted(folder.glob("*/vis_data/scalars.json")):
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            kind = "loss" if "loss" in entry else "mIoU"
            found[kind, entry.get("iter", entry["step"])] = {
                name: value for name, value in entry.items() if "time" not in name
            }
    return found


def test_an_evaluation_that_a_kill_cut_off_is_begun_with_and_others_are_not_repeated(
    config, launch, tmp_path, without_break
):
    for iteration, state in {3: "missing", 6: "done"}.items():
        folder = shutil.copytree(without_break, tmp_path / state)
        logs = RunLogs(folder, "*/vis_data/*.json")
        logs.note_evaluation(iteration, logs.sizes())
        launch(train, config, "--work-dir", folder, "--resume")
        files = folder.glob("2*/vis_data/scalars.json")
        assert sum(len(file.read_text().splitlines()) for file in files) == 8
        assert logged(folder) == logged(without_break)


def test_a_signal_in_an_evaluation_ends_it_and_it_is_caught_up(
    config, without_break, launch, monkeypatch, tmp_path
):
    predict = EVASegmentor.predict

    def signalled(self, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return predict(self, *arguments)

    workers = ("--cfg-options", "val_dataloader.num_workers=1")
    with monkeypatch.context() as patch:
        patch.setattr(EVASegmentor, "predict", signalled)
        with pytest.raises(SystemExit) as stop:
            launch(train, config, "--work-dir", tmp_path, *workers)
    assert stop.value.code == 75
    assert (tmp_path / "last_checkpoint").read_text().endswith("iter_3.pth")
    assert not multiprocessing.active_children()
    launch(train, config, "--work-dir", tmp_path, "--resume")
    assert logged(tmp_path) == logged(without_break)
