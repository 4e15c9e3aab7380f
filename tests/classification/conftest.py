"""Pictures in class folders, and a classifier of them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from eva_classification.models import build_classifier


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """11 real digits, higher than wide, in folders of the classes `0`, `1` and `four`."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(return_X_y=True)
    for digit, name, count in ((0, "0", 4), (1, "1", 5), (4, "four", 2)):
        for number, values in enumerate(images[labels == digit][:count]):
            (folder / name).mkdir(exist_ok=True)
            pixels = (255 - values.reshape(8, 8) * 15.9).astype(np.uint8)
            picture = Image.fromarray(pixels).resize((36, 50), Image.Resampling.BICUBIC)
            picture.save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    """A classifier of 3 classes at 32 px with random weights, and its file."""
    torch.manual_seed(5)
    model = build_classifier("eva_debug", num_classes=3, img_size=32).eval()
    nn.init.normal_(model.head.weight)
    file = tmp_path_factory.mktemp("classifier") / "model.pt"
    torch.save(model.state_dict(), file)
    return model, file
