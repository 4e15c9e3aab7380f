"""Names and sentences: counts, places beside torchvision's and Kinetics', and what users give."""

import pytest
from torchvision.models._meta import _KINETICS400_CATEGORIES

from eva_contrastive.evaluation.prompts import (
    find_templates,
    named_classes,
    named_templates,
    names_of,
    own_classes,
    sentences,
)

COUNTS = {"imagenet": 80, "simple": 1, "cifar": 18, "ucf101": 48, "kinetics": 28}
CLASSES = {"imagenet": 1000, "cifar10": 10, "cifar100": 100, "ucf101": 101, "k400": 400,
           "k600": 600, "k700": 700}  # fmt: skip
# classInd.txt of UCF-101, a few lines of it: number and name of the folder
UCF = {1: "ApplyEyeMakeup", 6: "BandMarching", 37: "HandstandPushups", 101: "YoYo"}


def test_sentences_and_names():
    for name, count in COUNTS.items():
        found = named_templates(name)
        assert len({*found}) == len(found) == count
        assert all(text.count("{}") == 1 and text == text.strip() for text in found)
    for name, count in CLASSES.items():
        found = named_classes(name)
        assert len(found) == count
        twice = {"missile", "sunglasses"} if name == "imagenet" else set()
        assert {text for text in found if found.count(text) > 1} == twice
        assert all(text and text == text.strip() and "_" not in text for text in found)


def test_the_order_is_that_of_the_labels():
    assert " ".join(named_classes("cifar10")) == (
        "airplane automobile bird cat deer dog frog horse ship truck"
    )
    assert [*named_classes("cifar100")] == sorted(named_classes("cifar100"))
    assert named_classes("imagenet")[:2] == ("tench", "goldfish")
    assert named_classes("imagenet")[999] == "toilet paper"
    assert [*named_classes("ucf101")] == sorted(named_classes("ucf101"))
    key = [name.lower().replace(" ", "") for name in named_classes("ucf101")]
    assert {number: key[number - 1] for number in UCF} == {n: t.lower() for n, t in UCF.items()}
    assert [name.lower() for name in named_classes("k400")] == [
        name.lower() for name in _KINETICS400_CATEGORIES
    ]


def test_sentences_that_are_given(tmp_path):
    assert find_templates(("a {} {}.", "{}")) == ("a {} {}.", "{}")
    assert find_templates(["cifar"]) == named_templates("cifar")
    file = tmp_path / "mine.txt"
    file.write_bytes("\ufeffein Bild: {}\r\n\r\n  {} \n".encode())
    assert find_templates([str(file)]) == ("ein Bild: {}", "{}")
    assert find_templates(["a {c}, {c}"]) == ("a {}, {}",)
    file.write_text("a photo of a {c}.\n{}\n")  # as CLIP_benchmark writes them
    assert find_templates([str(file)]) == ("a photo of a {}.", "{}")
    assert sentences("a {odd} name", ("{}, {}!",)) == ["a {odd} name, a {odd} name!"]
    for wrong in (["a {}", "no place"], ["kinetic"], []):
        with pytest.raises(ValueError, match=repr(wrong[-1] if wrong else "")):
            find_templates(wrong)
    file.write_text("a {}\u2028b\n{}\n", encoding="utf-8")  # a space to those who edit it
    assert find_templates([str(file)]) == ("a {}\u2028b", "{}")
    file.write_bytes(b"\xff{}")
    with pytest.raises(ValueError, match=r"mine\.txt"):
        find_templates([str(file)])


def test_a_list_of_names(tmp_path):
    file = tmp_path / "names.txt"
    folders = ["cat", "traffic_light"]
    file.write_text("a bird\ntraffic light\ncat\n")
    assert own_classes(folders, file) == ("cat", "traffic light", "a bird")
    file.write_text("a tabby\na red light\n")
    assert own_classes(folders, file) == ("a tabby", "a red light")
    file.write_text("Traffic Light\nCat\n")  # not other names in the folders' order
    assert own_classes(folders, file) == ("Cat", "Traffic Light")
    file.write_text("zero\ntwo\nten\n")  # numbers by value
    assert own_classes(["0", "10", "2"], file) == ("zero", "ten", "two")
    file.write_text("cat\nlight\n")
    with pytest.raises(ValueError, match="traffic_light"):
        own_classes(folders, file)
    file.write_text("a tabby\n")
    with pytest.raises(ValueError, match="cat, traffic_light"):
        own_classes(folders, file)


def test_folders_of_imagenet_are_called_by_their_names():
    """Their WordNet ids would be in the sentences otherwise, which no caption has."""
    folders = ["n01440764", "n01443537", "n15075141"]
    assert own_classes(folders, None) == ("tench", "goldfish", "toilet paper")
    assert names_of(["n01440764", "traffic_light"]) == ["n01440764", "traffic light"]
    with pytest.raises(ValueError, match="n00000001"):
        names_of(["n01440764", "n00000001"])
