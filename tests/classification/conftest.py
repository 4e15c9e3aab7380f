"""Pictures that carry a number, and a model that says of each what a test prescribes."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_classification.models import build_classifier
from eva_data.labelled.folders import LabelledImages
from eva_data.pictures import UnreadableImageError
from eva_data.transforms import evaluation_transform

MEAN, STD = 0.48145466, 0.26862954  # CLIP's, of the red channel
SIZE = 8  # of the model's images


class Prescribed(nn.Module):
    """Reads the number of a picture off its grey, and looks up what to say."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits, dtype=torch.float32), False)
        self.num_classes, self.img_size = self.logits.shape[1], SIZE
        self.seen = []

    def forward(self, images):
        numbers = (255 * (images[:, 0, 0, 0] * STD + MEAN)).round().long()
        self.seen.append(numbers.tolist())
        return self.logits[numbers]


class Numbered(LabelledImages):
    """Picture i has number i; some cannot be read."""

    def __init__(self, labels, *, classes, bad=()):
        super().__init__(
            evaluation_transform(SIZE, mean=CLIP_MEAN, std=CLIP_STD),
            [f"class {k}" for k in range(classes)],
        )
        self.labels, self.bad = labels, bad

    def __len__(self):
        return len(self.labels)

    def sample_id(self, index):
        return f"picture-{index}"

    def load(self, index):
        if index in self.bad:
            raise UnreadableImageError(f"{self.sample_id(index)} cannot be read (torn)")
        return Image.new("RGB", (9, 8), (index,) * 3), self.labels[index]


def _cross_entropy(logits, labels):
    logits = np.asarray(logits, np.float64)
    rows = np.arange(len(logits))
    return np.log(np.exp(logits).sum(1)) - logits[rows, np.asarray(labels)]


@pytest.fixture(scope="session")
def prescribe():
    """Function: the model that gives row i of the logits for picture i."""
    return Prescribed


@pytest.fixture(scope="session")
def numbered():
    """Function: a data set of pictures with labels."""
    return Numbered


@pytest.fixture(scope="session")
def cross_entropy():
    """Function: of each row of logits, in numpy."""
    return _cross_entropy


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
