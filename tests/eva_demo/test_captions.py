"""Digits with captions: captions, shards, class folders, and CLIP_benchmark's layout."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from webdataset import tariterators
from webdataset.autodecode import Decoder, ImageHandler

from eva_data.captions.sources import open_captions
from eva_data.labelled_images import open_labelled
from eva_demo import captions, data_set
from eva_demo.captions import NUMBERS, CaptionGenerator


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "demo"
    settings = data_set.Settings(formats=("captions",), train=9, val=15, size=96, seed=3)
    data_set.make_demo_data(root, settings, workers=1)
    return root / "captions"


def test_golden_caption():
    """CAPTION_VERSION must change together with the images, or old datasets pass for new ones."""
    image, about = CaptionGenerator("train").digit(2)
    assert captions.CAPTION_VERSION == 1
    assert about["caption"] == (
        "a photo of a large number one in white on gravel, at the bottom left"
    )
    assert (about["digit"], about["digit_index"], about["photo"]) == (1, 326, "gravel-left")
    assert image.mean() == pytest.approx(129.203, abs=0.05)
    assert image[30:, :32].mean() > image[:30, 32:].mean() + 10  # white, at the bottom left


def test_shards_are_read_by_webdataset_and_by_us(root):
    contents = json.loads((root / "captions.json").read_text())
    for split, count in (("train", 27), ("val", 45)):
        pairs = open_captions(root / f"{split}/*.tar")
        entries = contents[split]
        assert len(pairs) == len(entries) == count
        assert not pairs.left_out.problems
        generator = CaptionGenerator(split, size=48, seed=3)
        for index in (0, count - 1):
            image, about = generator.digit(index)
            assert pairs.captions(index) == (about["caption"],) == (entries[index]["caption"],)
            assert pairs.sample_id(index).endswith(f"00000.tar:{entries[index]['key']}.jpg")
            error = np.abs(np.asarray(pairs.image(index)).astype(int) - image)
            assert error.mean() < 6  # JPEG
    with (root / "train/00000.tar").open("rb") as stream:
        source = [{"stream": stream, "url": "train"}]
        samples = [*tariterators.group_by_keys(tariterators.tar_file_expander(source))]
    texts = [sample["txt"].decode() for sample in samples]
    assert texts == [entry["caption"] for entry in contents["train"]]


def test_class_folders_and_clip_benchmarks_layout_hold_the_same(root):
    """Read as `clip_benchmark.datasets.builder.build_wds_dataset` does."""
    folder = open_labelled(root / "zero_shot", None, upright=False)
    assert [*folder.classes] == sorted(NUMBERS)
    assert Counter(folder.labels.tolist()) == dict.fromkeys(range(10), 3)
    assert int((root / "wds/test/nshards.txt").read_text()) == 1
    assert (root / "wds/dataset_type.txt").read_text().strip() == "classification"
    names = (root / "wds/classnames.txt").read_text().splitlines()
    templates = (root / "wds/zeroshot_classification_templates.txt").read_text().splitlines()
    assert names == [*NUMBERS] == (root / "classnames.txt").read_text().splitlines()
    ours = (root / "templates.txt").read_text().splitlines()
    assert [line.format(c="six") for line in templates] == [line.format("six") for line in ours]
    decoder = Decoder([ImageHandler("pil", extensions=["webp", "png", "jpg", "jpeg"])])
    with (root / "wds/test/0.tar").open("rb") as stream:
        source = [{"stream": stream, "url": "test"}]
        grouped = tariterators.group_by_keys(tariterators.tar_file_expander(source))
        samples = [decoder(sample) for sample in grouped]
    files = sorted(root.glob("zero_shot/*/*.jpg"), key=lambda file: file.name)
    assert len(samples) == len(files) == 30
    for sample, file in zip(samples, files, strict=True):
        assert names[sample["cls"]] == file.parent.name
        with Image.open(file) as image:
            np.testing.assert_array_equal(np.asarray(sample["jpg"]), np.asarray(image))
