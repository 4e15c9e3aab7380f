"""What a folder of open_clip says of its images is done."""

import json

import pytest
from safetensors.torch import save_file

from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_contrastive.inference.features import ClipFeatures
from eva_contrastive.model.open_clip_files import find_preparation

MEAN, STD = [0.5, 0.4, 0.3], [0.3, 0.2, 0.1]


@pytest.fixture
def folder(make_clip, tmp_path):
    """Function: a folder of open_clip with these settings; the tower has 28 px."""
    save_file(make_clip().state_dict(), tmp_path / "open_clip_model.safetensors")

    def write(content):
        (tmp_path / "open_clip_config.json").write_text(content)
        return tmp_path

    return write


def config(side=None, **preprocess):
    vision = {} if side is None else {"image_size": side}
    return json.dumps({"model_cfg": {"vision_cfg": vision}, "preprocess_cfg": preprocess})


def test_it_is_done(folder):
    place = folder(config(42, mean=MEAN, std=STD, size=[99, 99]))
    clip = ClipFeatures.from_weights(place, num_heads=2, device="cpu")
    assert (clip.image_size, clip.mean, clip.std) == (42, tuple(MEAN), tuple(STD))
    asked = find_preparation(place, image_size=28, mean=STD)
    assert asked == (28, STD, STD)
    assert find_preparation(folder(config(size=None))) == (None, CLIP_MEAN, CLIP_STD)
    assert find_preparation(folder('{"preprocess_cfg": {"size": [42, 42]}}')).image_size == 42
    assert find_preparation(folder("{}")) == (None, CLIP_MEAN, CLIP_STD)
