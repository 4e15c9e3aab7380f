"""The table of the gap between COCO and LVIS, and the images that both share."""

import json

import pytest

from eva_detection.evaluation import coco_lvis_gap


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name)

    return write_file


@pytest.fixture
def sets(write):
    """LVIS val of four images, two of which are in COCO's val of three."""
    lvis = {
        "info": {"version": "v1"},
        "categories": [{"id": 1, "frequency": "f"}, {"id": 2, "frequency": "r"}],
        "images": [{"id": i, "neg_category_ids": [2]} for i in (4, 2, 9, 5)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 1} for n, i in enumerate((4, 9, 9, 2, 5))
        ],
    }
    coco = {"images": [{"id": i} for i in (9, 1, 4)], "annotations": [], "categories": []}
    return lvis, write("lvis.json", lvis), write("coco.json", coco)


def test_shared_images(sets, tmp_path, capsys):
    lvis, *files = sets
    output = tmp_path / "lvis" / "lvis_v1_val_5k.json"
    command = ["subset", "--lvis", files[0], "--coco", files[1], "--output", str(output)]
    assert coco_lvis_gap.main(command) == 0
    assert "2 of 4 images, 3 of 5 objects" in capsys.readouterr().out
    written = json.loads(output.read_text())
    assert [image["id"] for image in written["images"]] == [4, 9]
    assert written["annotations"] == lvis["annotations"][:3]
    assert written["categories"] == lvis["categories"]
    assert written["info"] == lvis["info"]
    with pytest.raises(SystemExit, match="1"):
        coco_lvis_gap.main(command)
    assert "is there already" in capsys.readouterr().err
