"""Which samples a step takes: the same with any number of processes, from any step."""

from itertools import islice

import pytest
import torch
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from mmengine.dataset import DefaultSampler, InfiniteSampler

from eva_detection.data import stream
from eva_openmmlab import data_order
from eva_runs.data_order import ElasticSampler, Permutations, choose_micro_batch_size

STEP, STEPS, SIZE = 12, 9, 31


def of_detectron2(sampler):
    def make(began):
        wide = [number % 3 == 0 for number in range(SIZE)]
        return stream.SamplerDraws(
            sampler=sampler(), batch_size=STEP // 2 // began, accumulate=2, wide=wide, spares=2
        )

    return make


SOURCES = {
    "engine": lambda _: Permutations(SIZE, STEP, seed=3),
    "detectron2": of_detectron2(lambda: TrainingSampler(SIZE, seed=3)),
    "detectron2, by frequency": of_detectron2(
        lambda: RepeatFactorTrainingSampler(torch.linspace(1, 2, SIZE), seed=3)
    ),
    "mmengine": lambda began: data_order.SamplerDraws(
        InfiniteSampler(range(SIZE), seed=3), STEP // began
    ),
    "mmengine, by epoch": lambda began: data_order.SamplerDraws(
        DefaultSampler(range(SIZE), seed=3), STEP // began
    ),
}


def take_steps(source, *, began, now, start=0, micro=1):
    """Draw the steps of all of `now` processes."""
    steps = [[] for _ in range(STEPS)]
    engine = source == "engine"
    for rank in range(now):
        sampler = ElasticSampler(
            sampler=SOURCES[source](began), step_batch=STEP, micro_batch=micro, start=start,
            shards=1 if engine else began, interleaved=engine, rank=rank, world_size=now,
        )  # fmt: skip
        batches = iter(sampler)
        for step in steps:
            own = list(islice(batches, sampler.accumulate))
            assert {len(batch) for batch in own} == {micro}
            step += [draw for batch in own for draw in batch]
    return [sorted(step) for step in steps]


@pytest.mark.parametrize("began", [1, 2, 3])
@pytest.mark.parametrize("source", SOURCES)
def test_steps_do_not_depend_on_the_number_of_processes(source, began):
    whole = take_steps(source, began=began, now=began, micro=2)
    draws = [draw for step in whole for draw in step]
    assert len({draw.key for draw in draws}) == STEP * STEPS
    assert len({draw.sample_index for draw in draws}) == SIZE
    for now in (1, 2, 3, 6):
        assert take_steps(source, began=began, now=now) == whole
        assert take_steps(source, began=began, now=now, start=5, micro=2)[:4] == whole[5:]


def test_a_number_of_processes_that_cannot_share_a_step():
    with pytest.raises(ValueError, match=r"4 processes .* 6 samples .* take 1, 2, 3, 6$"):
        choose_micro_batch_size(6, 4, largest=2)
