"""Data sets by name: torchvision's own formats, and a stand-in for the library `datasets`."""

import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_data.images import UnreadableImageError
from eva_data.labelled_images import open_labelled
from eva_data.transforms import evaluation_transform

TO_TENSOR = evaluation_transform(14, mean=CLIP_MEAN, std=CLIP_STD)


@pytest.fixture(scope="module")
def digits():
    """Real digits, (N, 28, 28) uint8, and their labels."""
    images, labels = load_digits(return_X_y=True)
    pixels = (images[:30].reshape(-1, 8, 8) * 15.9).astype(np.uint8)
    return np.pad(pixels.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2))), labels[:30]


# torchvision


@pytest.fixture
def mnist(digits, tmp_path):
    """Location of MNIST with 20 and 10 images, without the split."""
    (images, labels), raw = digits, tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, part in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        head = struct.pack(">IIII", 0x803, *images[part].shape)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(head + images[part].tobytes())
        head = struct.pack(">II", 0x801, len(labels[part]))
        content = head + labels[part].astype(np.uint8).tobytes()
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(content)
    return f"torchvision:MNIST:{tmp_path}"


NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
NAMES = [f"{k} - {name}" for k, name in enumerate(NUMBERS)]


def test_a_data_set_of_torchvision(digits, mnist):
    samples = open_labelled(f"{mnist}:test", None, upright=False)
    assert (len(samples), samples.classes) == (10, tuple(NAMES))
    for index in range(10):
        image, label = samples[index]
        assert (image.mode, type(label), label) == ("RGB", int, digits[1][20 + index])
        assert (np.asarray(image) == digits[0][20 + index][..., None]).all()
    assert samples.sample_id(3) == f"{mnist}:test[3]"


def test_emnist_has_several_data_sets_of_two_parts(digits, mnist, tmp_path):
    (tmp_path / "MNIST").rename(tmp_path / "EMNIST")
    for file in (tmp_path / "EMNIST/raw").iterdir():
        file.rename(file.with_name(f"emnist-digits-{file.name.replace('t10k', 'test')}"))
    samples = open_labelled(f"torchvision:EMNIST:{tmp_path}:digits/test", None, upright=False)
    assert [samples[index][1] for index in range(10)] == digits[1][20:].tolist()
    with pytest.raises(ValueError, match="EMNIST"):
        open_labelled(f"torchvision:EMNIST:{tmp_path}:digits", None, upright=False)


# Hugging Face: the stand-in does what `datasets` 5.2.0 did with the same calls


Picture, Value = (type(name, (), {}) for name in ("Image", "Value"))


class ClassLabel:
    def __init__(self, names):
        self.names = names


class Rows:
    """`datasets.Dataset`: a row is a dictionary; a picture that cannot be decoded raises."""

    def __init__(self, features, columns):
        self.features, self.columns = features, columns

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError(f"Invalid key: {index} is out of bounds for size {len(self)}")
        row = {name: values[index] for name, values in self.columns.items()}
        for name, feature in self.features.items():
            if isinstance(feature, Picture) and row[name] is None:
                raise OSError("cannot identify image file")
        return row


@pytest.fixture
def hub(monkeypatch, digits):
    """The stand-in: `hub.rows` is what `load_dataset` gives, `hub.calls` how it was called."""
    images = [Image.fromarray(pixels) for pixels in digits[0][:6]]
    labels = [k % 3 for k in digits[1][:6].tolist()]
    features = {"image": Picture(), "label": ClassLabel(["a", "b", "c"])}
    module = SimpleNamespace(calls=[], rows=Rows(features, {"image": images, "label": labels}))

    def load_dataset(path, name=None, data_dir=None, data_files=None, split=None, **options):
        assert not options
        module.calls.append((path, name, split))
        if split == "tset":
            raise ValueError("Unknown split \"tset\". Should be one of ['train', 'test'].")
        if path == "nowhere":
            raise FileNotFoundError("Couldn't find any data file at nowhere.")
        return module.rows

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def test_a_data_set_of_hugging_face(hub, digits):
    samples = open_labelled("hf:beans:validation", None, upright=False)
    assert hub.calls == [("beans", None, "validation")]
    assert (len(samples), samples.classes) == (6, ("a", "b", "c"))
    for index in range(6):
        image, label = samples[index]
        assert (image.mode, label) == ("RGB", digits[1][index] % 3)
        assert (np.asarray(image) == digits[0][index][..., None]).all()
    assert samples.sample_id(4) == "hf:beans:validation[4]"
    assert open_labelled("hf:beans:test", TO_TENSOR, upright=False)[0][0].shape == (3, 14, 14)


@pytest.mark.parametrize(
    ("description", "call"),
    [
        ("/data/folder:default:test", ("/data/folder", "default", "test")),
        ("cats:train[:5]", ("cats", None, "train[:5]")),
        ("cats:en:train[:25%]+test[10:]", ("cats", "en", "train[:25%]+test[10:]")),
    ],
)
def test_names_configurations_and_splits(hub, description, call):
    open_labelled(f"hf:{description}", None, upright=False)
    assert hub.calls == [call]


def test_what_samples_may_lack(hub):
    hub.rows.columns["image"][2] = None
    hub.rows.columns["label"][3:5] = [-1, None]
    samples = open_labelled("hf:cats:test", None, upright=False)
    with pytest.raises(UnreadableImageError, match=r"hf:cats:test\[2\]"):
        samples[2]
    with pytest.raises(ValueError, match=r"hf:cats:test\[3\] has label -1 of 3"):
        samples[3]
    with pytest.raises(ValueError, match=r"hf:cats:test\[4\] has label None of 3") as caught:
        samples[4]
    assert not isinstance(caught.value, UnreadableImageError)  # which a run may pass over
    with pytest.raises(ValueError, match=r"but 2 others are expected: a, b"):
        open_labelled("hf:cats:test", None, classes=["a", "b"], upright=False)
