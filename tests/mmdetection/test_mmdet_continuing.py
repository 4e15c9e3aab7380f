"""Runs of mmdetection that are stopped continue exactly; NaN stops them; signals are obeyed."""

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler

from eva_openmmlab.loop import SamplerDraws, numbered_loader
from eva_runs.data_order import ElasticSampler, end_workers


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
        loader = numbered_loader(loader, seed)
        loader.batch_sampler.start = skipped
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


@pytest.mark.parametrize("began", [1, 2, 3])
@pytest.mark.parametrize("kind", [InfiniteSampler, DefaultSampler])
def test_iterations_do_not_depend_on_the_number_of_processes(monkeypatch, kind, began):
    """Each takes its cut of the draws of those that the run began with."""

    def iterations(now, start=0):
        found = [[] for _ in range(12)]
        for rank in range(now):
            monkeypatch.setattr(
                "mmengine.dataset.sampler.get_dist_info", lambda rank=rank: (rank, began)
            )
            source = SamplerDraws(kind(range(10), seed=3), 6 // began)
            sampler = ElasticSampler(
                sampler=source, step_batch=6, micro_batch=6 // now, shards=began, start=start,
                rank=rank, world_size=now,
            )  # fmt: skip
            for step, draws in zip(found, sampler, strict=False):
                step += [(draw.key, draw.place) for draw in draws]
        return found

    whole = iterations(began)
    assert {index for step in whole for _, index in step} == set(range(10))
    assert len({number for step in whole for number, _ in step}) == 72
    for now in (1, 2, 3, 6):
        assert iterations(now) == whole
        assert iterations(now, start=5)[:7] == whole[5:]
