"""Tables of boxes and labelImg's folder: the same for training, evaluation and the check."""

import json

import pytest

from eva_command.verify import main as run_check

HEADER = "image_path,xmin,ymin,xmax,ymax,label"
ROWS = ["a.jpg,1,2,11,12,dog", "a.jpg,0,0,50,20,cat", "sub/b.jpg,5,5,9,9,cat", "empty.jpg,,,,,"]
XML = """<annotation><filename>a.jpg</filename><object><name>{name}</name><bndbox><xmin>2</xmin>
<ymin>3</ymin><xmax>11</xmax><ymax>12</ymax></bndbox></object></annotation>"""


@pytest.fixture
def folder(tmp_path, save):
    for name in ("a.jpg", "sub/b.jpg", "empty.jpg"):
        save(tmp_path / name)
    return tmp_path


@pytest.fixture
def resolved(resolve_flags):
    """Function: the data of a command line, for training (with more flags) or evaluation alone."""
    return lambda path, *flags, **options: resolve_flags("--data", path, *flags, **options).parts


def boxes_of(dataset):
    names = {key: one["file_name"] for key, one in dataset.images.items()}
    boxes = {name: [] for name in names.values()}
    for one in dataset.objects:
        category = dataset.categories[one["category_id"]]
        boxes[names[one["image_id"]]].append((category, *one["bbox"]))
    return boxes


EXPECTED = {
    "a.jpg": [("dog", 1, 2, 10, 10), ("cat", 0, 0, 40, 20)],
    "sub/b.jpg": [("cat", 5, 5, 4, 4)],
    "empty.jpg": [],
}


@pytest.mark.parametrize(
    "lines",
    [
        [HEADER, *ROWS],
        ROWS,  # RetinaNet's, without a header
        ["filename;width;height;class;x1;y1;x2;y2"]
        + [
            "{0};40;20;{5};{1};{2};{3};{4}".format(*one.split(","))
            for one in [*ROWS[:3], "empty.jpg,nan,nan,nan,nan,"]
        ],
    ],
)
def test_every_form_of_a_table_to_train_to_evaluate_and_to_check(lines, folder, resolved):
    table = folder / "boxes.csv"
    table.write_text("\n".join(lines) + "\n")
    for place in (table, folder):
        assert boxes_of(resolved(place, training=False)["val"]) == EXPECTED
        parts = resolved(place, "--val-share", "0.4")
        assert boxes_of(parts["train"]) | boxes_of(parts["val"]) == EXPECTED
        assert run_check([str(place), "--workers", "1"]) == 0
    with pytest.raises(ValueError, match=r"train"):
        resolved(table)


def test_tables_of_parts(folder, resolved):
    for name, row in (("train", ROWS[0]), ("val", ROWS[2]), ("notes", "x,y")):
        (folder / f"{name}.csv").write_text(f"{HEADER}\n{row}\n" if "," in row[4:] else row)
    with pytest.raises(ValueError, match="dog"):  # of which there is none in training
        resolved(folder)
    parts = resolved(folder, "--allow-empty-classes")
    assert [*boxes_of(parts["train"])] == ["a.jpg"]
    assert [*boxes_of(parts["val"])] == ["sub/b.jpg"]
    assert parts["train"].categories == parts["val"].categories == {1: "cat", 2: "dog"}
    for name in ("train", "val"):
        (folder / f"{name}.csv").rename(folder / f"{name}_1.csv")
    with pytest.raises(ValueError, match=r"train_1\.csv, val_1\.csv"):
        resolved(folder)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("a.jpg,9,2,5,12,dog", "labels.line"),
        ("a.jpg,9,2,x,12,dog", "labels.line"),
        ("a.jpg,9,2,12,12,", "labels.line"),
        ("gone.jpg,1,2,11,12,dog", "images.file"),
    ],
)
def test_what_training_refuses_is_a_problem_of_the_check(row, kind, folder, resolved):
    table, report = folder / "boxes.csv", folder / "report.json"
    table.write_text("\n".join([HEADER, ROWS[0], row, ""]))
    with pytest.raises(ValueError, match=r"boxes\.csv"):
        resolved(table, training=False)
    words = ["coco", "--data", table, "--report", report, "--workers", 1]
    assert run_check([str(word) for word in words]) == 1
    (found,) = json.loads(report.read_text())["train"]["findings"]
    assert (found["kind"], found["count"]) == (kind, 1)
    assert "line 3" in str(found)


def test_images_with_xml_beside_them(folder, save, resolved):
    save(folder / "c.jpg")
    for name, label in (("a", "cat"), ("c", "dog")):
        (folder / f"{name}.xml").write_text(XML.format(name=label))
    expected = {"a.jpg": [("cat", 1, 2, 10, 10)], "c.jpg": [("dog", 1, 2, 10, 10)]}
    assert boxes_of(resolved(folder, training=False)["val"]) == expected
    parts = resolved(folder, "--val-share", "0.5")
    assert boxes_of(parts["train"]) | boxes_of(parts["val"]) == expected
    assert run_check([str(folder), "--workers", "1"]) == 0


def test_a_class_in_another_encoding_is_refused(folder, resolved):
    (folder / "boxes.csv").write_bytes(f"{HEADER}\na.jpg,1,2,11,12,th\xe9".encode("latin-1"))
    with pytest.raises(ValueError, match="UTF-8"):
        resolved(folder, "--val-fraction", "0.5")
