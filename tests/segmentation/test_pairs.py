"""Images and their label maps, found by name and looked at before a run."""

import pytest
from PIL import Image

from eva_data.label_maps import check_pairs, find_pairs, read_class_file


def test_pairs_by_ending(tmp_path):
    for kind, name in (("i", "x_left.png"), ("i", "x_right.png"), ("m", "x_ids.png")):
        (tmp_path / kind).mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / kind / name)
    pairs, lonely, unused = find_pairs(
        tmp_path / "i", tmp_path / "m", image_ending="_left", map_ending="_ids"
    )
    assert [(pair.image.name, pair.label_map.name) for pair in pairs] == [
        ("x_left.png", "x_ids.png")
    ]
    assert not lonely
    assert not unused
    Image.new("L", (2, 2)).save(tmp_path / "i" / "x_left.jpg")
    with pytest.raises(ValueError, match="the same name apart from the suffix"):
        find_pairs(tmp_path / "i", tmp_path / "m", image_ending="_left")


def test_the_first_wrong_file_is_named(own):
    classes = read_class_file(own / "classes.toml")
    assert len(check_pairs(own / "images", own / "maps", classes)) == 3
    Image.new("RGB", (31, 20)).save(own / "images" / "b/c.jpg")
    with pytest.raises(ValueError, match=r"c.jpg is \(20, 31\) .* c.png|c.png \(20, 30\)"):
        check_pairs(own / "images", own / "maps", classes)
    Image.new("RGB", (30, 20)).save(own / "images" / "b/c.jpg")
    Image.new("L", (30, 20), 8).save(own / "maps" / "d.png")
    with pytest.raises(ValueError, match=r"d.png has labels that .* nor ignored: 8;"):
        check_pairs(own / "images", own / "maps", classes)
    (own / "maps" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 images .*, such as .*a.jpg"):
        check_pairs(own / "images", own / "maps", classes)
