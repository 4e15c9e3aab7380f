"""Digits with captions: captions, shards, class folders, and CLIP_benchmark's layout."""

import io
import json
import shutil
import tarfile
from collections import Counter
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image
from webdataset import tariterators
from webdataset.autodecode import Decoder, ImageHandler

from eva_data.captions.opening import open_captions
from eva_data.labelled_images import open_labelled
from eva_demo import captioned_digits, command, data_set
from eva_demo.captioned_digits import COLOURS, GROUNDS, NUMBERS, SIZES, CaptionGenerator
from eva_demo.data_set import difference
from eva_demo.formats.captions import CAPTIONED_DIGITS
from eva_demo.glyphs import load_digit_scans
from eva_demo.splits import DIGIT_RANGES

SIZE = {"train": 9, "val": 15, "size": 96, "seed": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "demo"
    data_set.make_demo_data(root, data_set.Settings(formats=("captions",), **SIZE), workers=1)
    return root


@pytest.fixture(scope="module")
def digits():
    """200 pictures of each split."""
    makers = {split: CaptionGenerator(split, side=48) for split in ("train", "val")}
    return {split: [maker.make(index) for index in range(200)] for split, maker in makers.items()}


def digests(root):
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root): sha256(path.read_bytes()).digest() for path in files}


def test_pictures_depend_on_split_seed_use_and_index_only():
    forwards, backwards = CaptionGenerator("val", seed=1), CaptionGenerator("val", seed=1)
    first = [forwards.make(index) for index in range(4)]
    second = [backwards.make(index) for index in reversed(range(4))][::-1]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert one.caption == other.caption
    others = [
        CaptionGenerator("val", seed=2).make(0),
        CaptionGenerator("train", seed=1).make(0),
        forwards.make(0, "zero_shot"),
    ]
    for other in others:
        assert not np.array_equal(first[0].image, other.image)
    with pytest.raises(ValueError, match="index -1 is negative"):
        forwards.make(-1)
    with pytest.raises(ValueError, match="side=20: digits need pictures of at least 24 px"):
        CaptionGenerator("val", side=20)


def test_golden_caption():
    """CAPTION_VERSION must change together with the pictures, or old sets pass for new ones."""
    digit = CaptionGenerator("train").make(2)
    assert captioned_digits.CAPTION_VERSION == 1
    assert digit.caption == "a photo of a large number one in white on gravel, at the bottom left"
    assert (digit.category, digit.digit_index, digit.background) == (1, 326, "gravel-left")


def test_captions_say_what_is_to_be_seen(digits):
    _, labels = load_digit_scans()
    for split, made in digits.items():
        for digit in made:
            assert digit.category == labels[digit.digit_index]
            assert digit.digit_index in DIGIT_RANGES[split]
            words = digit.caption.replace(",", "").split()
            assert [word for word in words if word in NUMBERS] == [NUMBERS[digit.category]]
            for word, known in ((digit.colour, COLOURS), (digit.size, SIZES)):
                assert {*words} & {*known} <= {word}
            grounds = {name for name in GROUNDS if name in words}
            assert grounds <= {digit.ground}
        complete = [digit for digit in made if digit.size in digit.caption.split(",")[0].split()
                    or f"{digit.size} " in f"{digit.caption} ".replace(",", " ")]  # fmt: skip
        assert 0.75 < len(complete) / len(made) < 0.95
        assert len({digit.caption for digit in made}) > 0.95 * len(made)
    photos = {split: {digit.background for digit in made} for split, made in digits.items()}
    assert not photos["train"] & photos["val"]


def test_colour_size_and_place_are_those_of_the_picture(digits):
    """The ink, found by its colour in the picture itself."""
    places = Counter()
    for digit in digits["train"] + digits["val"]:
        if digit.colour in ("black", "white"):  # which photographs have too
            continue
        rows, columns = np.nonzero((digit.image == COLOURS[digit.colour]).all(2))
        assert len(rows) > 20
        low, high = SIZES[digit.size]
        height = (rows.max() - rows.min() + 1) / 48
        assert low - 0.13 < height < high + 0.08
        centre = [(values.max() + values.min()) / 2 / 47 for values in (rows, columns)]
        for value, names in zip(centre, (("top", "bottom"), ("left", "right")), strict=True):
            where = [name for name in names if name in digit.place.split()]
            expected = [0.0 if name == names[0] else 1.0 for name in where] or [0.5]
            most = 0.48 if digit.size == "large" else 0.42
            assert abs(value - expected[0]) < (most if where else 0.16), digit.place
        places[digit.place] += 1
    assert len(places) == 9


def test_shards_are_read_by_webdataset_and_by_us(made):
    contents = json.loads((made / "captions/captions.json").read_text())
    for split, count in (("train", 27), ("val", 45)):
        pairs = open_captions(made / f"captions/{split}/*.tar")
        entries = contents[split]
        assert len(pairs) == len(entries) == count
        assert not pairs.left_out.counts
        generator = CaptionGenerator(split, side=48, seed=3)
        for index in (0, count - 1):
            digit = generator.make(index)
            assert pairs.captions(index) == (digit.caption,) == (entries[index]["caption"],)
            assert pairs.sample_id(index).endswith(f"00000.tar:{entries[index]['key']}.jpg")
            error = np.abs(np.asarray(pairs.image(index)).astype(int) - digit.image)
            assert error.mean() < 6  # JPEG
    file = made / "captions/train/00000.tar"
    with file.open("rb") as stream:
        source = [{"stream": stream, "url": "train"}]
        samples = [*tariterators.group_by_keys(tariterators.tar_file_expander(source))]
    texts = [sample["txt"].decode() for sample in samples]
    assert texts == [entry["caption"] for entry in contents["train"]]


def test_class_folders_and_clip_benchmarks_layout_hold_the_same(made):
    """Read as `clip_benchmark.datasets.builder.build_wds_dataset` does."""
    root = made / "captions"
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
        samples = [
            decoder(sample)
            for sample in tariterators.group_by_keys(tariterators.tar_file_expander(source))
        ]
    files = sorted(root.glob("zero_shot/*/*.jpg"), key=lambda file: file.name)
    assert len(samples) == len(files) == 30
    for sample, file in zip(samples, files, strict=True):
        assert names[sample["cls"]] == file.parent.name
        with Image.open(file) as picture:
            np.testing.assert_array_equal(np.asarray(sample["jpg"]), np.asarray(picture))


def test_same_bytes_for_any_number_of_workers(made, tmp_path, capsys):
    options = [f"--{name}={value}" for name, value in SIZE.items()]
    output = ["--output", str(tmp_path / "two"), "--formats", "captions"]
    assert command.main([*output, *options, "--workers=2"]) == 0
    assert "wrote and checked 9 + 15 scenes of three pairs" in capsys.readouterr().out
    assert digests(tmp_path / "two") == digests(made)


def test_command_checks_and_previews(made, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    options = ["--formats", "captions", "--size", "96", "--preview", str(sheet)]
    assert command.main(["--output", str(made), "--check", *options]) == 0
    assert "every check passed" in capsys.readouterr().out
    with Image.open(sheet) as picture:
        assert picture.size == (8 * 96, 4 * (96 + 72))


def test_manifests_of_other_formats_do_not_change_with_the_captions(made):
    sizes = {"train": 1, "val": 1, "size": 64, "seed": 0}
    assert "caption_version" not in data_set.Settings(formats=("coco",), **sizes).as_json()
    assert json.loads((made / "manifest.json").read_text())["settings"]["caption_version"] == 1


def test_a_damaged_shard_is_not_left_as_it_is(made, tmp_path):
    shutil.copytree(made, tmp_path / "demo")
    file = tmp_path / "demo/captions/val/00000.tar"
    file.write_bytes(file.read_bytes()[:-1])
    assert "captions/val/00000.tar" in difference(tmp_path / "demo")


def _edit(key, value, part="train", other=None):
    def change(root):
        file = root / "captions.json"
        content = json.loads(file.read_text())
        content[part][0][key] = content[other][0][key] if other else value
        file.write_text(json.dumps(content))

    return change


def _rewrite(name, members):
    """Replace members of a tar file; None takes one away."""

    def change(root):
        with tarfile.open(root / name) as tar:
            content = {member.name: tar.extractfile(member).read() for member in tar}
        content |= members(content)
        with tarfile.open(root / name, "w") as tar:
            for member, value in content.items():
                if value is not None:
                    entry = tarfile.TarInfo(member)
                    entry.size = len(value)
                    tar.addfile(entry, io.BytesIO(value))

    return change


def _move(root):
    file = next((root / "zero_shot" / "one").iterdir())
    file.rename(root / "zero_shot" / "two" / file.name)


KEY = "000000000"
DAMAGES = [
    (lambda root: (root / "captions.json").unlink(), r"captions\.json is missing"),
    (lambda root: (root / "wds/test/0.tar").unlink(), r"0\.tar is missing"),
    (lambda root: (root / "val/00000.tar").write_bytes(b"x" * 2000), r"00000\.tar is damaged"),
    (_rewrite("train/00000.tar", lambda _: {f"{KEY}.txt": None}), f"{KEY}.txt'. not both in a"),
    (_rewrite("train/00000.tar", lambda _: {"x.txt": b"x"}), r"x\.txt'. not both in a shard"),
    (_rewrite("train/00000.tar", lambda _: {f"{KEY}.txt": b"a six"}), "has the caption 'a six'"),
    (_rewrite("val/00000.tar", lambda _: {f"{KEY}.jpg": b"x"}), f"{KEY} cannot be decoded"),
    (_rewrite("wds/test/0.tar", lambda _: {"000000.cls": b"7"}), r"000000\.cls is '7', not 0"),
    (
        _rewrite("wds/test/0.tar", lambda content: {"000000.jpg": content["000001.jpg"]}),
        r"000000\.jpg is not .*zero/000001\.jpg",
    ),
    (_move, r"zero_shot/one/0\d*2\.jpg'. not both on disk and in captions\.json"),
    (_edit("side", 50), r"is \(\(48, 48\), 'RGB'\), not 50 x 50 RGB"),
    (_edit("digit", 5, "zero_shot"), "lies in zero, but shows five|digits come 2 to 4 times"),
    (_edit("photo", None, "zero_shot", other="train"), "train and val share the photographs"),
    (_edit("digit_index", None, "val", other="train"), "train and val share the digits"),
    (lambda root: (root / "classnames.txt").write_text("one\n"), r"classnames\.txt' has|has \['o"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_check_names_what_is_wrong(made, tmp_path, damage, message):
    shutil.copytree(made / "captions", tmp_path / "captions")
    CAPTIONED_DIGITS.check(tmp_path / "captions")
    damage(tmp_path / "captions")
    with pytest.raises(ValueError, match=message):
        CAPTIONED_DIGITS.check(tmp_path / "captions")
