"""The steps of contrastive training make every tensor where their input is."""

import pytest

KINDS = ("plain", "sigmoid", "cached features")


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step(same_training, runs_on_meta, steps, kind):
    assert set(KINDS) == set(steps.CONTRASTIVE)
    same_training(steps.contrastive(kind))
    runs_on_meta(steps.contrastive(kind))
