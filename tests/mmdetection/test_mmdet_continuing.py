"""Runs of mmdetection that are stopped continue exactly; NaN stops them; signals are obeyed."""

import contextlib
import json
import os
import shutil
import signal

import pytest
import torch
from mmdet.models.detectors import CascadeRCNN
from mmengine.config import Config

from eva_mmdetection.training import train
from eva_openmmlab.training.stream import numbered_loader

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
LAST = 4


@pytest.fixture(scope="module")
def config(tiny, tmp_path_factory):
    """Four iterations, a checkpoint after each second one, an evaluation at the end."""
    cfg = Config.fromfile(tiny / "tiny.py")
    cfg.train_cfg.update(max_iters=LAST, val_interval=LAST)
    cfg.default_hooks.checkpoint.update(interval=2, max_keep_ckpts=2)
    cfg.randomness = dict(seed=3)
    cfg.model.backbone.drop_path_rate = 0.5
    file = tmp_path_factory.mktemp("mmdet_config") / "four.py"
    cfg.dump(file)
    return file


@pytest.fixture(scope="module")
def without_break(config, launch, tmp_path_factory):
    """Work folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("mmdet_without_break")
    launch(train, config, "--work-dir", folder)
    return folder


@pytest.fixture
def at_loss(monkeypatch):
    """Context in which a call of the detector's loss, counted from 1, first does something."""

    @contextlib.contextmanager
    def install(number, action):
        method, calls = CascadeRCNN.loss, []

        def watched(self, *arguments, **more):
            calls.append(1)
            losses = method(self, *arguments, **more)
            if len(calls) == number:
                action(losses)
            return losses

        with monkeypatch.context() as patch:
            patch.setattr(CascadeRCNN, "loss", watched)
            yield

    return install


def logged(folder):
    """Iteration -> what was logged of it, without times."""
    found = {}
    for file in sorted(folder.glob("*/vis_data/scalars.json")):
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            found["loss" in entry, entry.get("iter", entry["step"])] = {
                name: value for name, value in entry.items() if "time" not in name
            }
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_at_the_step_and_the_run_goes_on_exactly(
    number, config, without_break, launch, at_loss, tmp_path
):
    def send(losses):
        os.kill(os.getpid(), number)

    workers = ("--cfg-options", "train_dataloader.num_workers=1")
    with at_loss(3, send), pytest.raises(SystemExit) as stop:
        launch(train, config, "--work-dir", tmp_path, *workers)
    assert stop.value.code == 75
    assert (tmp_path / "last_checkpoint").read_text().endswith("iter_3.pth")
    launch(train, config, "--work-dir", tmp_path, "--resume")
    assert logged(tmp_path) == logged(without_break)
    ours, theirs = (
        torch.load(place / f"iter_{LAST}.pth", weights_only=False)
        for place in (tmp_path, without_break)
    )  # written by these tests
    for name, value in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], value), name
    assert ours["param_schedulers"] == theirs["param_schedulers"]


def test_a_used_folder_is_not_written_over(config, without_break, launch):
    with pytest.raises(SystemExit, match=r"has a run .*: continue it with --resume"):
        launch(train, config, "--work-dir", without_break)


def test_a_loss_that_is_not_a_number_ends_the_run_and_names_the_images(
    config, launch, at_loss, tmp_path
):
    def spoil(losses):
        losses["loss_rpn_cls"] = [value * float("nan") for value in losses["loss_rpn_cls"]]

    sentence = r"train\.py: The loss became infinite or NaN at iteration 2, .*train/\d\.png"
    with at_loss(2, spoil), pytest.raises(SystemExit, match=sentence):
        launch(train, config, "--work-dir", tmp_path)


def test_a_picture_that_is_cut_off_ends_the_run_with_one_sentence(tiny, launch, tmp_path):
    shutil.copytree(tiny, tmp_path / "data", ignore=shutil.ignore_patterns("run"))
    for file in (tmp_path / "data" / "train").iterdir():
        file.write_bytes(file.read_bytes()[:400])
    command = [train, tiny / "tiny.py", "--data-root", tmp_path / "data"]
    with pytest.raises(SystemExit, match=r"train\.py: .*train/\d\.png") as stop:
        launch(*command, "--work-dir", tmp_path / "run")
    assert len(stop.value.code.splitlines()) == 1


def test_a_sample_depends_on_the_seed_and_its_number_alone(tiny):
    """All that mmdetection's transforms draw comes from the numbered stream."""
    from mmdet.registry import DATASETS
    from mmengine.dataset import pseudo_collate
    from torch.utils.data import DataLoader

    cfg = Config.fromfile(tiny / "tiny.py").train_dataloader.dataset
    colours = [dict(type=kind, min_mag=0.5, max_mag=1.5) for kind in ("Brightness", "Contrast")]
    steps = [*cfg.pipeline[:-1], dict(type="RandomFlip", prob=0.5), *colours, cfg.pipeline[-1]]
    dataset = DATASETS.build({**cfg, "pipeline": steps})

    def pictures(seed, workers, skipped):
        loader = DataLoader(
            dataset, batch_size=1, num_workers=workers, sampler=[0, 1, 2], collate_fn=pseudo_collate
        )
        loader = numbered_loader(loader, seed=seed, rank=0, processes=1)
        loader.sampler.skip(skipped)
        batches = iter(loader)
        found = [next(batches)["inputs"][0] for _ in range(5 - skipped)]
        del batches
        loader.end_workers()
        return found

    ours = pictures(seed=1, workers=0, skipped=0)
    theirs = pictures(seed=1, workers=2, skipped=2)
    assert all(torch.equal(*pair) for pair in zip(ours[2:], theirs, strict=True))
    others = pictures(seed=2, workers=0, skipped=0)
    assert not all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(ours, others, strict=True)
    )
