"""The order of the data, and samples that cannot be read."""

import os
import random
import signal

import numpy as np
import pytest
import torch

from eva_engine.data.loading import running_loader
from eva_runs import processes
from eva_runs.data_order import (
    Draw,
    ElasticSampler,
    Permutations,
    SeededDataset,
    build_loader,
    check_same_data,
    next_batch,
)


class Noisy:
    """Draws from all three global generators."""

    def __init__(self, bad=(), kill=None):
        self.bad, self.kill = bad, kill

    def __len__(self):
        return 20

    def __getitem__(self, index):
        if index == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if index in self.bad:
            raise OSError("truncated")
        draws = random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002
        return torch.tensor([index, *draws])


def order(*, rank=0, world_size=1, batch_size=2, accumulate=1, start_step=0, seed=3):
    step_batch = batch_size * accumulate * world_size
    return ElasticSampler(
        sampler=Permutations(20, step_batch, seed), step_batch=step_batch, micro_batch=batch_size,
        start=start_step, interleaved=True, rank=rank, world_size=world_size,
    )  # fmt: skip


def take(batches, count):
    return [batch for batch, _ in zip(batches, range(count), strict=False)]


def load(samples, count=10, *, workers=0, **settings):
    loader = build_loader(SeededDataset(samples, seed=3), order(**settings), workers=workers)
    return take(loader, count)


def test_an_epoch_is_a_permutation_and_another_one_differs():
    items = [draw.key for batch in take(order(), 20) for draw in batch]
    first, second = items[:20], items[20:]
    assert sorted(first) == [(0, index) for index in range(20)]
    assert sorted(second) == [(1, index) for index in range(20)]
    assert [index for _, index in first] != [index for _, index in second]
    assert take(order(seed=4), 20) != take(order(), 20)


@pytest.mark.parametrize("bad", [(), (4, 5, 6)])
def test_workers_change_nothing(bad):
    alone, shared = (load(Noisy(bad), 20, workers=workers) for workers in (0, 2))
    for one, other in zip(alone, shared, strict=True):
        assert one.data.equal(other.data)
        assert (one.draws, one.unreadable) == (other.draws, other.unreadable)
    found = [name for batch in alone for name in batch.unreadable]
    assert set(found) == {f"sample {index}" for index in bad}


def test_a_sample_does_not_depend_on_its_batch():
    samples = SeededDataset(Noisy(), seed=3)
    together = {draw: row for batch in load(Noisy(), 20) for draw, row in
                zip(batch.draws, batch.data, strict=True)}  # fmt: skip
    draw = Draw((1, 7), 7)
    assert samples[draw][0].equal(together[draw])
    assert not samples[Draw((0, 7), 7)][0][1:].equal(together[draw][1:])


def test_the_next_readable_sample_replaces_a_bad_one():
    sample, _, unreadable = SeededDataset(Noisy(bad=(19, 0)), seed=3)[Draw((2, 19), 19)]
    assert sample[0] == 1
    assert unreadable == {"sample 19": "OSError: truncated", "sample 0": "OSError: truncated"}


def test_death_of_a_worker_is_an_error():
    loader = build_loader(SeededDataset(Noisy(kill=5), seed=3), order(), workers=1)
    # PyTorch raises it once more where a signal comes late
    with pytest.raises(RuntimeError, match="DataLoader worker"), running_loader(loader) as stream:
        [next_batch(stream) for _ in range(99)]


class _Copies:
    def __init__(self, size, checksum):
        self.size, self.checksum = size, lambda: checksum

    def __len__(self):
        return self.size


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([(5, 7), (6, 7)], "process 2 has 6 samples, and process 0 has 5: give all processes the"),
        ([(5, 8)], "process 1 has 5 other samples, and process 0 has 5"),
    ],
)
def test_processes_with_different_data(monkeypatch, others, message):
    monkeypatch.setattr(processes, "world_size", lambda: 1 + len(others))
    monkeypatch.setattr(processes, "gather", lambda own: [own, *others])
    with pytest.raises(ValueError, match=message):
        check_same_data(_Copies(5, 7))
