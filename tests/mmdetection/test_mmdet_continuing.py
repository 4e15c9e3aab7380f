"""Runs of mmdetection that are stopped continue exactly; NaN stops them; signals are obeyed."""

import contextlib
import re
import shutil

import pytest
import torch
from mmdet.models.detectors import CascadeRCNN
from mmengine.config import Config

from eva_mmdetection.training import train
from eva_openmmlab.loop import numbered_loader
from eva_runs.data_order import end_workers

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


def test_a_loss_that_is_not_a_number_ends_the_run_and_names_the_images(
    config, fails, at_loss, tmp_path
):
    def spoil(losses):
        losses["loss_rpn_cls"] = [value * float("nan") for value in losses["loss_rpn_cls"]]

    with at_loss(2, spoil):
        line = fails(train, config, "--work-dir", tmp_path)
    assert re.search(r"iteration 2, .*train/\d\.png", line)


def test_a_picture_that_is_cut_off_ends_the_run_with_one_sentence(tiny, fails, tmp_path):
    shutil.copytree(tiny, tmp_path / "data", ignore=shutil.ignore_patterns("run"))
    for file in (tmp_path / "data" / "train").iterdir():
        file.write_bytes(file.read_bytes()[:400])
    command = [train, tiny / "tiny.py", "--data-root", tmp_path / "data"]
    assert re.search(r"train/\d\.png", fails(*command, "--work-dir", tmp_path / "run"))


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
        loader.sampler.start = skipped
        batches = iter(loader)
        found = [next(batches)["inputs"][0] for _ in range(5 - skipped)]
        end_workers(batches)
        return found

    ours = pictures(seed=1, workers=0, skipped=0)
    theirs = pictures(seed=1, workers=2, skipped=2)
    assert all(torch.equal(*pair) for pair in zip(ours[2:], theirs, strict=True))
    others = pictures(seed=2, workers=0, skipped=0)
    assert not all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(ours, others, strict=True)
    )
