"""The command `eva data verify coco`: files, pictures, exit codes, refusals."""

import io
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image


def _counts(report):
    return {finding["kind"]: finding["count"] for finding in report["findings"]}


def test_a_clean_set_has_no_findings(check_coco, capsys, coco_set):
    code, report = check_coco(coco_set)
    assert code == 0
    assert report["findings"] == []
    assert "no problem" in capsys.readouterr().out


def test_lvis_images_have_a_url_alone(check_coco, picture_folder, coco_set):
    for image in coco_set["images"]:
        image["coco_url"] = f"http://host/val2017/{image.pop('file_name')}"
    code, report = check_coco(coco_set)
    assert code == 1
    assert _counts(report) == {"file_missing": 3}
    assert "1.png is there" in report["findings"][0]["first"]
    (picture_folder / "val2017").mkdir()
    for i in (1, 2, 3):
        (picture_folder / f"{i}.png").rename(picture_folder / "val2017" / f"{i}.png")
    assert check_coco(coco_set)[0] == 0


def test_skip_decode_reads_headers(check_coco, picture_folder, coco_set):
    file = picture_folder / "1.png"
    Image.effect_noise((40, 30), 90).save(file)
    file.write_bytes(file.read_bytes()[:500])
    assert _counts(check_coco(coco_set)[1])["file_broken"] == 1
    assert check_coco(coco_set, "--skip-decode")[0] == 0
    file.write_bytes(b"no picture")
    assert _counts(check_coco(coco_set, "--skip-decode")[1])["file_broken"] == 1


def test_without_images_files_are_left_alone(verify, tmp_path, capsys, coco_set):
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(coco_set))
    assert verify(["coco", "--annotations", str(file)]) == 0
    assert "image files were not looked at" in capsys.readouterr().out


def test_cleaned_file_loads_in_detectron2(check_coco, picture_folder, tmp_path, coco_set):
    from detectron2.data.datasets import load_coco_json

    coco_set["annotations"] += [
        coco_set["annotations"][0] | {"id": 10, "bbox": [30, 20, 50, 50], "area": 2500},
        coco_set["annotations"][1] | {"id": 21, "image_id": 55},
        coco_set["annotations"][1] | {"id": 22, "bbox": []},
        coco_set["annotations"][1] | {"id": 23, "ignore": 1, "bbox": [1, 1, 2, 2]},
    ]
    cleaned = tmp_path / "cleaned.json"
    check_coco(coco_set)
    with pytest.raises((AssertionError, ValueError)):
        load_coco_json(str(tmp_path / "instances.json"), str(picture_folder))
    check_coco(coco_set, "--write", cleaned)
    entries = load_coco_json(str(cleaned), str(picture_folder))
    crowds = [[one["iscrowd"] for one in entry["annotations"]] for entry in entries]
    assert crowds == [[0, 0], [0, 1], [0]]
    assert entries[0]["annotations"][1]["bbox"] == [30, 20, 10, 10]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal_alone(check_coco, monkeypatch, capsys, coco_set):
    check_coco(coco_set)
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    check_coco(coco_set)
    assert "images: 100%" in terminal.getvalue()
    assert "annotations: 100%" in terminal.getvalue()


def test_nothing_left_is_not_written(check_coco, picture_folder, tmp_path, capsys, coco_set):
    for file in picture_folder.iterdir():
        file.unlink()
    code, report = check_coco(coco_set, "--write", tmp_path / "cleaned.json")
    assert code == 1
    assert _counts(report)["file_missing"] == 3
    assert "is --images the right folder?" in capsys.readouterr().err
    assert not (tmp_path / "cleaned.json").exists()


def _exit_code(verify, arguments):
    try:
        return verify(arguments)
    except SystemExit as stop:  # by argparse
        return stop.code


REFUSED = [
    (["--write", "instances.json"], "is the file to check"),
    (["--write", "instances.json", "--overwrite"], "is the file to check"),
    (["--report", "link.json", "--overwrite"], "is the file to check"),
    (["--write", "old.json"], "old.json is there already: give --overwrite"),
    (["--report", "old.json"], "old.json is there already: give --overwrite"),
    (["--write", "a.json", "--report", "a.json"], "are the same file"),
    (["--write", "no/a.json"], "name one in an existing folder"),
    (["--images", "no"], "there is no folder no"),
    (["--annotations", "no.json"], "no.json is not there"),
    (["--skip-decode"], "no effect without --images"),
    (["--workers", "0"], "must be at least 1, got 0"),
    (["--tolerance", "nan"], "must be a finite number, got nan"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_refusals(verify, tmp_path, monkeypatch, capsys, arguments, message, coco_set):
    monkeypatch.chdir(tmp_path)
    Path("instances.json").write_text(json.dumps(coco_set))
    Path("old.json").write_text("old")
    os.link("instances.json", "link.json")
    before = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    assert _exit_code(verify, ["coco", "--annotations", "instances.json", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list, not an object"),
        ('{"images": [], "annotations": {}}', "has no list annotations and categories"),
    ],
)
def test_files_of_another_format(verify, tmp_path, capsys, text, message):
    file = tmp_path / "instances.json"
    file.write_text(text)
    assert verify(["coco", "--annotations", str(file)]) == 2
    assert message in capsys.readouterr().err


def test_the_report_holds_many_ids_and_the_table_few(check_coco, capsys, coco_set):
    coco_set["annotations"] += [coco_set["annotations"][0] | {"id": 100 + i} for i in range(1200)]
    _, report = check_coco(coco_set)
    (finding,) = report["findings"]
    assert finding["count"] == report["problems"] == 1200
    assert finding["ids"] == list(range(100, 1100))
    assert "1,200  removed   100, 101, 102, 103, 104, ..." in capsys.readouterr().out
