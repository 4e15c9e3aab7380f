"""Lists of pairs in JSON: Karpathy's, COCO's, plain ones, and hostile ones."""

import json

import pytest

from eva_data.captions.opening import open_captions

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


def test_karpathys_splits(write, pictures, listed):
    file = write(KARPATHY)
    pairs = open_captions(f"{file}#test")
    assert listed(pairs) == [(f"{n}.png", *(f"test {m}." for m in range(5))) for n in (0, 4)]
    assert pairs.image(1).getpixel((0, 0))[0] == 4
    assert len(open_captions(f"{file}#train+restval")) == 2
    with pytest.raises(
        ValueError, match=r"restval, test, train, val, and none is named.*json#rest"
    ):
        open_captions(file)
    with pytest.raises(ValueError, match=r"restval, test.*dev is asked for"):
        open_captions(f"{file}#dev")
    flickr = {"images": [{**entry, "split": "test"} for entry in KARPATHY["images"]]}
    for entry in flickr["images"]:
        del entry["filepath"]
    pairs = open_captions(write(flickr, "dataset_flickr30k.json"), root=pictures)
    assert len(pairs) == 5
    with pytest.raises(ValueError, match=r"none of 5 pairs .*list.json.*/0\.png is not there"):
        open_captions(f"{write(flickr)}#test")


@pytest.mark.parametrize(
    "content",
    [
        [{"image": "0.png", "caption": ["a", "b"]}, {"image": "1.png", "caption": "c"}],
        [{"image": "0.png", "caption": "a"}, {"image": "1.png", "caption": "c"},
         {"image": "0.png", "caption": " b "}],
        [{"file_name": "0.png", "text": "a"}, {"file_name": "0.png", "text": "b"},
         {"file_name": "1.png", "text": "c"}],
        {"images": [{"id": 7, "file_name": "0.png"}, {"id": 5, "file_name": "1.png"}],
         "annotations": [{"image_id": 5, "caption": "c"}, {"image_id": 7, "caption": "a"},
                         {"image_id": 7, "caption": "b"}]},
        {"images": [{"filename": "0.png", "sentences": ["a", "b"]},
                    {"filename": "1.png", "sentences": [{"raw": "c"}]}]},
    ],
)  # fmt: skip
def test_forms(write, pictures, listed, content):
    pairs = open_captions(write(content), root=pictures)
    assert listed(pairs) == [("0.png", "a", "b"), ("1.png", "c")]
    assert not pairs.left_out.counts


def test_an_object_in_each_line_and_named_keys(write, pictures, listed):
    lines = [{"p": f"{n}.png", "caption": "no", "mine": f"text {n}"} for n in range(3)]
    file = write("\n".join(map(json.dumps, lines)) + "\n\n", "metadata.jsonl")
    pairs = open_captions(file, root=pictures, image_column="p", caption_column="mine")
    assert listed(pairs) == [(f"{n}.png", f"text {n}") for n in range(3)]


def test_what_is_not_a_pair_is_counted(write, pictures, listed):
    entries = [
        {"image": "0.png", "caption": ["good", " ", "\ud800"]},
        7, None, {"caption": "x"}, {"image": 5, "caption": "x"}, {"image": "", "caption": "x"},
        {"image": "1.png"}, {"image": "1.png", "caption": []}, {"image": "1.png", "caption": None},
        {"image": "1.png", "caption": 7}, {"image": "1.png", "caption": {"a": 1}},
        {"image": "1.png", "caption": ["a", 7]}, {"image": "1.png", "sentences": [{"r": 1}]},
        {"image": "1.png", "caption": float("nan")},
    ]  # fmt: skip
    pairs = open_captions(write(entries), root=pictures)
    assert listed(pairs) == [("0.png", "good")]
    counts = {"empty": 1, "encoding": 1, "malformed": 10, "uncaptioned": 3}
    assert pairs.left_out.counts == counts
    assert pairs.left_out.names["uncaptioned"][0].endswith("list.json, entry 7, 1.png")
    coco = {
        "images": [{"id": 1, "file_name": "0.png"}, {"id": None}, "x", {"id": 2}, {"id": [1]}],
        "annotations": [{"image_id": 1, "caption": "a"}, {"image_id": 9, "caption": "b"}, 3, {}],
    }
    pairs = open_captions(write(coco), root=pictures)
    assert listed(pairs) == [("0.png", "a")]
    assert pairs.left_out.counts == {"malformed": 6, "unpictured": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 10_000, "is not JSON|is not a list of images"),
        ("{}", "is not a list of images with captions: expected"),
        ("[]", "is not a list of images"),
        ('{"images": {}}', "is not a list of images"),
        ('"text"', "is not a list of images"),
        ("[1, 2]", "holds no pair .*2 x malformed"),
        ('[{"image": "0.png", "caption": "a", "split": ["x"]}]', None),
    ],
)
def test_hostile_lists(write, pictures, content, message):
    file = write(content)
    if message is None:
        assert len(open_captions(file, root=pictures)) == 1
        return
    with pytest.raises(ValueError, match=message):
        open_captions(file, root=pictures)


def test_a_path_that_no_disk_has(write, pictures, listed):
    entries = [{"image": "0.png", "caption": "a"}, {"image": "\ud800.png", "caption": "b"}]
    pairs = open_captions(write(entries), root=pictures)
    assert listed(pairs) == [("0.png", "a")]
    assert pairs.left_out.counts == {"malformed": 1}


def test_a_damaged_line_is_named(write, pictures):
    file = write('{"image": "0.png", "caption": "a"}\n\n{"image"\n', "list.jsonl")
    with pytest.raises(ValueError, match=r"list\.jsonl, line 3, is not JSON \(Expecting"):
        open_captions(file, root=pictures)
