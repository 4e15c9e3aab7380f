"""Runs of mmdetection that are stopped continue exactly; NaN stops them; signals are obeyed."""

import torch
from mmengine.config import Config

from eva_openmmlab.data_order import numbered_loader
from eva_runs.data_order import end_workers


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


def test_batches_of_like_aspect_ratios_have_an_order_that_continues(tiny):
    """`AspectRatioBatchSampler` of mmdetection's configs."""
    from mmdet.registry import DATA_SAMPLERS
    from mmengine.dataset import DefaultSampler
    from torch.utils.data import DataLoader

    class Images(list):
        def get_data_info(self, index):
            return {"width": 3 + index % 2, "height": 4}

    def indexes(skipped):
        sampler = DefaultSampler(Images(range(7)), seed=5)
        groups = dict(type="AspectRatioBatchSampler", sampler=sampler, batch_size=2)
        loader = DataLoader(sampler.dataset, batch_sampler=DATA_SAMPLERS.build(groups))
        loader = numbered_loader(loader, 1)
        loader.batch_sampler.start = skipped
        batches = iter(loader)
        return [next(batches).tolist() for _ in range(30 - skipped)]

    whole = indexes(0)
    assert all(a % 2 == b % 2 for a, b in whole)
    assert {*range(7)} == {index for batch in whole[:7] for index in batch}
    assert indexes(11) == whole[11:]
