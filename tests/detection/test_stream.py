"""The stream of batches: order, random numbers, continuing in the middle, images that fail."""

import random
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.data.samplers import RepeatFactorTrainingSampler

from eva_detection.data.stream import TrainStream
from eva_runs.data_order import SampleError
from eva_runs.errors import TooManyUnreadableError

IMAGES = [
    {"file_name": f"{i}.jpg", "image_id": i, "width": 4 + i % 3, "height": 5} for i in range(7)
]


def _numbers():
    return np.random.rand(), random.random(), torch.rand(()).item()  # noqa: NPY002


def draw_numbers(record):
    """A mapper that needs all three generators."""
    return record | {"numbers": _numbers()}


class Unreadable:
    """A mapper that fails for some images, and notes nothing."""

    def __init__(self, *ids, error=None):
        self.ids, self.error = ids, error or OSError("image file is truncated")

    def __call__(self, record):
        if record["image_id"] in self.ids:
            raise self.error
        return draw_numbers(record)


def _take(count, **options):
    arguments = dict(mapper=draw_numbers, seed=5, total_batch_size=2) | options
    stream = TrainStream(IMAGES, **arguments)
    return list(islice(stream, count)), stream


def _ids(batches):
    return [[sample["image_id"] for sample in batch] for batch in batches]


def _flat(batches):
    return [image for batch in _ids(batches) for image in batch]


@pytest.mark.parametrize(
    ("sampler", "grouping"), [(None, False), (RepeatFactorTrainingSampler, True)]
)
def test_batches_do_not_depend_on_workers_or_on_the_start(sampler, grouping):
    options = dict(aspect_ratio_grouping=grouping)
    if sampler is not None:
        options["sampler"] = sampler(torch.linspace(1, 2, 7), seed=1)
    whole, _ = _take(12, **options)
    assert {*_flat(whole)} == {*range(7)}
    shapes = [{sample["width"] > sample["height"] for sample in batch} for batch in whole]
    assert all(len(kinds) == 1 for kinds in shapes) == grouping
    assert _take(12, num_workers=2, **options)[0] == whole
    random.random()  # no state of the caller counts
    assert _take(7, start=5, **options)[0] == whole[5:]
    assert _take(7, start=5, num_workers=1, **options)[0] == whole[5:]
    numbers = [number for batch in whole for sample in batch for number in sample["numbers"]]
    assert len(set(numbers)) == len(numbers), "augmentations repeat"
    assert _take(12, **options | {"seed": 6})[0] != whole


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_replaced_by_the_next_one(workers):
    good = _flat(_take(10, aspect_ratio_grouping=False)[0])
    options = dict(mapper=Unreadable(3), aspect_ratio_grouping=False, num_workers=workers)
    batches, stream = _take(10, **options)
    expected = [good[i + 1] if image == 3 else image for i, image in enumerate(good[:-1])]
    found = _flat(batches)
    assert found[:-1] == expected
    assert found.count(3) == 0
    assert stream.unreadable == {"3.jpg": "OSError: image file is truncated"}
    assert _take(6, start=4, **options)[0] == batches[4:], "not deterministic"


@pytest.mark.parametrize("workers", [1])
def test_more_in_a_row_than_allowed(workers):
    options = dict(mapper=Unreadable(*range(7)), num_workers=workers, max_bad_images=2)
    message = r"3 images in a row .* train\.max_bad_images=2: \d\.jpg: OSError: image file"
    with pytest.raises(TooManyUnreadableError, match=message):
        _take(1, aspect_ratio_grouping=False, **options)


def test_a_bug_is_not_a_bad_image():
    with pytest.raises(SampleError, match=r"3\.jpg"):
        _take(4, mapper=Unreadable(3, error=TypeError("a bug")))
