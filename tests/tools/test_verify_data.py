"""The command line that checks data sets: files, pictures, exit codes, refusals."""

import importlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

TOOLS = Path(__file__).parents[2] / "tools"


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
    assert "1.png: give the folder above" in report["findings"][0]["first"]
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


def test_without_images_files_are_left_alone(verify_tool, tmp_path, capsys, coco_set):
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(coco_set))
    assert verify_tool.main(["coco", "--annotations", str(file)]) == 0
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
    assert [len(entry["annotations"]) for entry in entries] == [2, 1, 1]
    assert entries[0]["annotations"][1]["bbox"] == [30, 20, 10, 10]


def test_demo_data_as_a_user_would(tmp_path):
    """Made and checked by the programs themselves; pictures decoded by two processes."""
    make = [TOOLS / "make_demo_data.py", "--output", tmp_path / "demo", "--size", "64"]
    make += ["--train", "4", "--val", "2", "--workers", "1"]
    subprocess.run([sys.executable, *map(str, make)], check=True, capture_output=True)
    coco = tmp_path / "demo" / "coco"
    command = [TOOLS / "verify_data.py", "coco", "--workers", "2", "--images", coco / "train"]
    command += ["--annotations", coco / "annotations" / "instances_train.json"]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 images" in done.stdout
    assert "note" not in done.stdout
    assert done.stdout.endswith("no problem\n")


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
    assert "masks: 100%" in terminal.getvalue()


def test_nothing_left_is_not_written(check_coco, picture_folder, tmp_path, capsys, coco_set):
    for file in picture_folder.iterdir():
        file.unlink()
    code, report = check_coco(coco_set, "--write", tmp_path / "cleaned.json")
    assert code == 1
    assert _counts(report)["file_missing"] == 3
    assert "is --images the right folder?" in capsys.readouterr().err
    assert not (tmp_path / "cleaned.json").exists()


REFUSED = [
    (["--write", "instances.json"], "is the file to check"),
    (["--write", "instances.json", "--overwrite"], "is the file to check"),
    (["--report", "link.json", "--overwrite"], "is the file to check"),
    (["--write", "old.json"], "old.json is there already: give --overwrite"),
    (["--report", "old.json"], "old.json is there already: give --overwrite"),
    (["--write", "a.json", "--report", "a.json"], "are the same file"),
    (["--write", "no/a.json"], "name one in an existing folder"),
    (["--images", "no"], "there is no folder no"),
    (["--annotations", "no.json"], "there is no file no.json"),
    (["--skip-decode"], "no effect without --images"),
    (["--workers", "0"], "0 is not a number from 1"),
    (["--tolerance", "nan"], "nan is not a number from 0"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_refusals(verify_tool, tmp_path, monkeypatch, capsys, arguments, message, coco_set):
    monkeypatch.chdir(tmp_path)
    Path("instances.json").write_text(json.dumps(coco_set))
    Path("old.json").write_text("old")
    os.link("instances.json", "link.json")
    before = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    with pytest.raises(SystemExit) as stop:
        verify_tool.main(["coco", "--annotations", "instances.json", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "holds a list, not an object"),
        ('{"images": [], "annotations": {}}', "has no list annotations and categories"),
    ],
)
def test_files_of_another_format(verify_tool, tmp_path, capsys, text, message):
    file = tmp_path / "instances.json"
    file.write_text(text)
    assert verify_tool.main(["coco", "--annotations", str(file)]) == 2
    assert message in capsys.readouterr().err


def test_no_half_written_file(verify_tool, tmp_path):
    findings = importlib.import_module("findings")
    old = tmp_path / "out.json"
    old.write_text("old")
    with pytest.raises(TypeError):
        findings.write_json(old, {"a": [1], "b": [object()]})
    assert old.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_long_lists_are_written_whole(verify_tool, tmp_path, monkeypatch):
    findings = importlib.import_module("findings")
    monkeypatch.setattr(findings, "WRITTEN_AT_ONCE", 3)
    data = {"a": list(range(7)), "b": [], "c": {"d": [1.5, None]}, "e": [[1]] * 3}
    findings.write_json(tmp_path / "out.json", data)
    assert json.loads((tmp_path / "out.json").read_text()) == data


def test_the_report_holds_many_ids_and_the_table_few(check_coco, capsys, coco_set):
    coco_set["annotations"] += [coco_set["annotations"][0] | {"id": 100 + i} for i in range(1200)]
    _, report = check_coco(coco_set)
    (finding,) = report["findings"]
    assert finding["count"] == report["problems"] == 1200
    assert finding["ids"] == list(range(100, 1100))
    assert "1,200  removed   100, 101, 102, 103, 104, ..." in capsys.readouterr().out


def test_names_that_are_no_text_are_printed(verify_tool, tmp_path, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.png")).write_bytes(b"torn")
    (tmp_path / "set.toml").write_text('[[source]]\nname = "a"\nfolder = "images"\n')
    terminal = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert verify_tool.main(["images", str(tmp_path / "set.toml"), "--workers", "1"]) == 1
    terminal.flush()
    printed = terminal.buffer.getvalue()
    assert b"udcff.png" in printed
    assert b"image that cannot be read" in printed
