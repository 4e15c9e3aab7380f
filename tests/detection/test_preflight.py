"""Files and labels are looked at once before a run."""

import os

import pytest

from eva_detection.data.custom_data import check_files, check_labels


@pytest.fixture
def records(tmp_path):
    """Forty pictures."""
    found = []
    for key in range(40):
        file = tmp_path / f"{key}.jpg"
        file.write_bytes(b"x")
        found.append({"file_name": str(file), "image_id": key})
    return found


def test_every_file_is_looked_at(records, tmp_path):
    assert check_files(records, part="evaluation") == []
    (tmp_path / "33.jpg").unlink()
    message = r"1 of 40 images for evaluation cannot be read: .*33\.jpg \(id 33\) .*; put"
    with pytest.raises(ValueError, match=message):
        check_files(records, part="evaluation")
    (tmp_path / "7.jpg").write_bytes(b"")
    (tmp_path / "8.jpg").unlink()
    (tmp_path / "8.jpg").mkdir()
    message = r"3 of 40 .*7\.jpg \(id 7\) is empty, .*8\.jpg \(id 8\) is a folder, .*33\.jpg"
    with pytest.raises(ValueError, match=message):
        check_files(records, part="evaluation", allowed=2)
    assert len(check_files(records, part="training", allowed=3)) == 3


def test_a_pipe_is_never_allowed(records, tmp_path):
    (tmp_path / "5.jpg").unlink()
    os.mkfifo(tmp_path / "5.jpg")
    with pytest.raises(ValueError, match=r"5\.jpg \(id 5\) is a pipe, socket or device"):
        check_files(records, part="training", allowed=10)


def test_labels():
    record = {"file_name": "a.jpg", "image_id": 3, "annotations": [{"category_id": 9}]}
    check_labels([record, {"file_name": "b.jpg"}], 10)
    with pytest.raises(ValueError, match=r"a\.jpg \(id 3\) has an object of class 9.*classes=9"):
        check_labels([record], 9)
