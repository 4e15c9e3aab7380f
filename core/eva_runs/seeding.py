"""Random numbers as a function of a seed and a key, so that no random state has to be saved."""

import random
import zlib

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


def seed_for(*numbers: int, purpose: str = "") -> None:
    """Seed the generators of torch (all devices), numpy and Python for one use of them.

    Args:
        *numbers: Such as seed, step and rank.
        purpose: Use of the random numbers; for another one, or other numbers, they are unrelated.
    """
    # numpy takes (1, 2) and (1, 2, 0) for the same, hence their count
    entropy = (zlib.crc32(purpose.encode()), len(numbers), *numbers)
    first, second = np.random.SeedSequence(entropy).generate_state(2, np.uint64).tolist()
    random.seed(first)
    np.random.seed(second % 2**32)  # noqa: NPY002  # as above
    torch.manual_seed(first % 2**63)
