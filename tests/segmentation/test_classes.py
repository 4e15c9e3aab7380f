"""The file that names the classes of own data."""

import pytest

from eva_data.label_maps import distinct_color, read_class_file


def test_class_file(own):
    classes = read_class_file(own / "classes.toml")
    assert classes.names == ("road", "sky")
    assert classes.labels == (7, 40)
    assert classes.colors == ((128, 64, 128), distinct_color(1))
    assert classes.ignore == (0,)
    (own / "short.toml").write_text('[[classes]]\nname = "a"\n[[classes]]\nname = "b"\n')
    short = read_class_file(own / "short.toml")
    assert (short.labels, short.ignore) == ((0, 1), (255,))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ignore = [0]", "ignored = [0]", "unknown ignored; there are ignore"),
        ("ignore = [0]", "ignore = 0", r"ignore = 0 must be a list of labels"),
        ("ignore = [0]", "ignore = [7]", "label 7 of 'road' is also in ignore"),
        ("label = 40", "label = 7", "class 2: an earlier class has the label 7 too"),
        ("label = 40", "label = -1", "class 2: label = -1 must be from 0"),
        ("label = 40", "", "1 of 2 classes have a label"),
        ('"sky"', '"road"', "class 2: an earlier class has the name 'road' too"),
        ('"sky"', '""', "class 2: name = '' must be text"),
        ("[128, 64, 128]", "[128, 64, 256]", "class 1: color = .128, 64, 256. must be"),
        ('name = "sky"', "name = ", "is not a TOML file"),
    ],
)
def test_a_wrong_class_file_is_named(own, old, new, message):
    file = own / "classes.toml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_class_file(file)
