"""Pairs as tensors: which caption, which crop, what cannot be read."""

from collections import Counter

import open_clip
import pytest
import torch
from open_clip.transform import AugmentationCfg, PreprocessCfg, image_transform_v2
from PIL import Image

from eva_contrastive.config import DataConfig
from eva_contrastive.model.eva_clip import tokenize
from eva_contrastive.training import Pairs, training_transform
from eva_data.captions.lists import UnreadableCaptionError
from eva_data.captions.sources import CaptionedImages

DATA = DataConfig(train="x")


class Given(CaptionedImages):
    """One picture with given captions."""

    def __init__(self, *texts):
        super().__init__(None)
        self.texts = texts

    def __len__(self):
        return 1

    def sample_id(self, index):
        return f"picture {index}"

    def locate(self, index):
        raise NotImplementedError

    def image(self, index):
        return Image.new("RGB", (20, 16), (255, 0, 0))

    def captions(self, index):
        return self.texts

    def checksum(self):
        return 7


def transform(size=16):
    return training_transform(size, DATA)


def test_crop_is_open_clips_bit_for_bit(photograph):
    theirs = image_transform_v2(
        PreprocessCfg(size=48, mean=DATA.mean, std=DATA.std, interpolation="bicubic"),
        is_train=True,
        aug_cfg=AugmentationCfg(scale=(0.9, 1.0)),
    )
    ours, picture = transform(48), Image.fromarray(photograph)
    for seed in range(3):
        torch.manual_seed(seed)
        expected = theirs(picture)
        torch.manual_seed(seed)
        assert ours(picture).equal(expected)


def test_captions_are_drawn_alike_and_tokenised_as_open_clip_does():
    texts = ("a dog", "two cats", "A photo of a very small horse on a very large green meadow.")
    pairs = Pairs(Given(*texts), transform(), 12)
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=12)
    wanted = {tuple(tokenizer(text)[0].tolist()): text for text in texts}
    drawn = Counter(wanted[tuple(pairs[0][1].tolist())] for _ in range(600))
    assert min(drawn[text] for text in texts) > 150
    assert pairs.checksum() == 7
    one = Pairs(Given("a dog"), transform(), 12)
    torch.manual_seed(0)
    picture = one[0][0]
    torch.manual_seed(0)
    assert picture.equal(transform()(one.captions.image(0)))  # nothing is drawn for one caption


def test_a_caption_without_a_word_cannot_be_read():
    with pytest.raises(UnreadableCaptionError, match=r"picture 0: the caption .* has no word"):
        Pairs(Given("&#32; &nbsp;"), transform(), 12)[0]
    assert int(tokenize("!", 12)[0].argmax()) == 2  # whose token is 0
    Pairs(Given("!"), transform(), 12)[0]
