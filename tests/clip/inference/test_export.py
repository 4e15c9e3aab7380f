"""Export of both towers: the files equal the model, and one that differs is deleted."""

import pytest
import torch

from eva_contrastive.inference.export import export_towers
from eva_contrastive.model.eva_clip import tokenize

TEXTS = ["a dog", "", "the digit seven", "two " * 99]


def _inputs(model, count):
    images = torch.randn(count, 3, model.image_size, model.image_size)
    return {"image": images, "text": tokenize(TEXTS[:count], model.context_length)}


def _expected(model, inputs, **kwargs):
    with torch.no_grad():
        return {
            "image": model.encode_image(inputs["image"], **kwargs),
            "text": model.encode_text(inputs["text"], **kwargs),
        }


@pytest.fixture
def model(make_clip):
    return make_clip(depth=1, text={"depth": 1}).requires_grad_(False)


def test_programs_equal_the_model(model, tmp_path):
    folder = tmp_path / "new" / "out"
    shares = export_towers(model, folder, form="torch-export", normalize=True)
    assert list(shares) == ["image", "text"]
    assert max(shares.values()) < 1e-5
    for count in (1, 3, 4):
        inputs = _inputs(model, count)
        for tower, expected in _expected(model, inputs, normalize=True).items():
            program = torch.export.load(folder / f"{tower}.pt2").module()
            found = program(inputs[tower])["features"]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["bpe_simple_vocab_16e6.txt.gz", "clip.json", "image.pt2", "text.pt2"]
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
