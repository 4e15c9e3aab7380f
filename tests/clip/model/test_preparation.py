"""What a folder of open_clip says of its pictures is done, and what it cannot say is refused."""

import json

import pytest
from safetensors.torch import save_file

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
    assert find_preparation(folder(config(size=None))) == (None, None, None)
    assert find_preparation(folder('{"preprocess_cfg": {"size": [42, 42]}}')).image_size == 42
    assert find_preparation(folder("{}")) == (None, None, None)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[]", "open_clip_config.json"),
        (config(mean=[1, 2]), "open_clip_config.json"),
        (config([224, 112]), "open_clip_config.json"),
        (config(std=[1, 0, 1]), "std"),
    ],
)
def test_what_it_cannot_say(content, named, folder):
    with pytest.raises(ValueError, match=named):
        find_preparation(folder(content))


def test_what_is_not_done_is_mentioned(folder, caplog):
    place = folder(config(interpolation="bilinear", resize_mode="squash", mode="RGB"))
    find_preparation(place)
    assert "has interpolation=bilinear in preprocess_cfg, and images are prepared with bic" in (
        caplog.text
    )
    assert "resize_mode=squash" in caplog.text
    assert len(caplog.records) == 2
