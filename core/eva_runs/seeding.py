"""Random numbers as a function of a seed and a key, so that no random state has to be saved."""

import random

import numpy as np
import torch


def seed_all(seed: int, *key: int) -> None:
    """Seed the generators of torch (all devices), numpy and Python from a seed and a key.

    Args:
        seed: The run's seed.
        *key: Purpose and place of the numbers, such as an iteration and a rank.
    """
    words = np.random.SeedSequence([seed, len(key), *key]).generate_state(4)
    np.random.seed(words[:2])  # noqa: NPY002  # augmentations of the frameworks use this generator
    random.seed(int(words[2]))
    torch.manual_seed(int(words[3]))
