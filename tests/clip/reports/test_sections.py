"""Pictures and captions that find what belongs to them last."""

import torch
from PIL import Image

from eva_contrastive.evaluation.retrieval import EncodedPairs
from eva_contrastive.reports import retrieval_examples


class Pairs:
    """Pictures of one colour, with captions that name their index."""

    def __len__(self):
        return 4

    def image(self, index):
        return Image.new("RGB", (8, 8), (index, 0, 0))

    def captions(self, index):
        return [f"caption {index}", f"another {index}"]

    def sample_id(self, index):
        return f"folder/{index}.png"


def colours(example):
    return [one.image.getpixel((0, 0))[0] for one in example.pictures]


def test_what_is_found_last_comes_first():
    """Picture 0 was left out; of the others, that of index 2 is nearest to captions of index 3."""
    images = torch.eye(3)
    near = torch.tensor([[1, 0, 0], [0.6, 0.8, 0], [0, 0.6, 0.8]])
    encoded = EncodedPairs(
        images=images,
        texts=torch.stack([near[0], near[0], near[1], -near[1], near[2], near[2]]),
        owners=torch.tensor([0, 0, 1, 1, 2, 2]),
        kept=[1, 2, 3],
    )
    pictures, captions = retrieval_examples(encoded, Pairs(), name="mine")
    assert captions.title == "Captions that find their images last (mine)"
    first = captions.examples[0]
    assert first.caption == '"another 2": own image in place 3 of 3'
    assert [one.title for one in first.pictures] == ["own, -0.80", "found, 0.00", "found, -0.60"]
    assert colours(first) == [2, 3, 1]
    assert len(captions.examples) == 6
    shown = pictures.examples[0]
    assert shown.caption == (
        'own caption in place 1 of 6:\n"caption 1" 1.00\n'
        'found:\n"caption 1" 1.00\n"another 1" 1.00\n"caption 2" 0.60'
    )
    assert (shown.pictures[0].title, colours(shown)) == ("1.png", [1])
