"""Lists of pairs in JSON: Karpathy's, COCO's, plain ones, and hostile ones."""

import json

import pytest

from eva_data.captions.sources import open_captions

KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "pictures", "filename": f"{number}.png", "imgid": number, "split": split,
            "sentences": [{"raw": f"{split} {n}.", "tokens": []} for n in range(5)],
        }
        for number, split in enumerate(["test", "val", "train", "restval", "test"])
    ],
}  # fmt: skip


@pytest.fixture
def write(pictures):
    """Function: write a list beside the folder of pictures; returns its path."""

    def run(content, name="list.json"):
        file = pictures.parent / name
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    return run


def test_karpathys_splits(write, listed):
    file = write(KARPATHY)
    pairs = open_captions(f"{file}#test")
    assert listed(pairs) == [(f"{n}.png", *(f"test {m}." for m in range(5))) for n in (0, 4)]
    assert pairs.image(1).getpixel((0, 0))[0] == 4
    assert len(open_captions(f"{file}#train+restval")) == 2
    with pytest.raises(ValueError, match=r"restval, test, train, val"):
        open_captions(file)
    with pytest.raises(ValueError, match=r"restval, test.*dev"):
        open_captions(f"{file}#dev")


@pytest.mark.parametrize(
    "content",
    [
        [{"image": "0.png", "caption": ["a", "b"]}, {"image": "1.png", "caption": "c"}],
        [{"file_name": "0.png", "text": "a"}, {"file_name": "0.png", "text": "b"},
         {"file_name": "1.png", "text": "c"}],
        {"images": [{"id": 7, "file_name": "0.png"}, {"id": 5, "file_name": "1.png"}],
         "annotations": [{"image_id": 5, "caption": "c"}, {"image_id": 7, "caption": "a"},
                         {"image_id": 7, "caption": "b"}]},
    ],
)  # fmt: skip
def test_forms(write, pictures, listed, left_out, content):
    pairs = open_captions(write(content), root=pictures)
    assert listed(pairs) == [("0.png", "a", "b"), ("1.png", "c")]
    assert not left_out(pairs)
