"""A held-out share: always the same, by class, and what is refused."""

import random

import pytest

from eva_data.holdout import holdout_mask

NAMES = [f"pictures/{number:04d}" for number in range(2000)]


def chosen(names, share, **options):
    names = list(names)
    return {
        name
        for name, held in zip(names, holdout_mask(names, share, **options), strict=True)
        if held
    }


def test_the_choice_does_not_change_with_order_or_other_names():
    first = chosen(NAMES[:1000], 0.1)
    shuffled = NAMES[:1000]
    random.Random(0).shuffle(shuffled)
    assert chosen(shuffled, 0.1) == first
    assert chosen(NAMES, 0.1) & {*NAMES[:1000]} == first  # none changes sides when others come
    assert first < chosen(NAMES[:1000], 0.2)
    assert 70 < len(first) < 130


def test_the_choice_is_that_of_earlier_versions():
    """A test that fails after a change of the salt, which would mix training and evaluation."""
    assert sorted(chosen(NAMES[:40], 0.1)) == EARLIER


EARLIER = ["pictures/0003", "pictures/0038"]


def test_each_class_has_some_on_both_sides():
    names = [f"{label}/{number}" for label in "abcdefghij" for number in range(2)]
    for share in (0.001, 0.5, 0.999):
        held = holdout_mask(names, share, classes=[name[0] for name in names])
        assert held.reshape(10, 2).sum(1).tolist() == [1] * 10


def test_the_only_one_of_a_class_is_trained_on():
    held = holdout_mask(["a/1", "b/1", "b/2"], 0.999, classes=["a", "b", "b"])
    assert held.tolist()[0] is False
    assert held.sum() == 1
    with pytest.raises(ValueError, match="name data for evaluation"):
        holdout_mask(NAMES[:5], 0.2, classes=range(5))
