"""Annotation files that are wrong in one place: a sentence or a finding, never a traceback."""

import contextlib
import copy
import json
import math
import os
import random
from typing import Any

import pytest

from eva_data.detection.coco import read_coco

RLE: dict[str, Any] = {"size": [30, 40]}
WRONG: list[Any] = [None, True, -1, 0, 1.5, 10**400, 2**70, 1e308, math.nan, math.inf]
WRONG += ["", "7", "x" * 999]
WRONG += ["\ud800", "\0", "pipe.png", "loop.png", "folder.png", "../x.png", [], [[]], {}, {"a": 1}]
WRONG += [[None] * 4, [10**400] * 4, ["1"] * 4, [True] * 4, [1e308] * 4, [[1e308] * 6], [[1, 2]]]
WRONG += [RLE | {"counts": counts} for counts in ("o" * 999, [10**400], [2**63, -1], None)]
WRONG += [RLE | {"counts": {}}]
FILES = [b"", b"[", b"null", b"5", b"[]", b"[" * 200_000, b"\xff\xfe[", bytes(99), b"9" * 5000]


@pytest.fixture
def damaged(coco_set, picture_folder):
    """Contents of files."""
    os.mkfifo(picture_folder / "pipe.png")
    (picture_folder / "loop.png").symlink_to("loop.png")
    (picture_folder / "folder.png").mkdir()
    coco_set["images"][0]["neg_category_ids"] = [2]
    contents: list[bytes] = []

    def add(part, change):
        data = copy.deepcopy(coco_set)
        change(data[part] if part else data)
        contents.append(json.dumps(data).encode())

    for part in ("images", "annotations", "categories"):
        add(None, lambda data, part=part: data.pop(part))
        for field in coco_set[part][0]:
            add(part, lambda entries, field=field: entries[0].pop(field))
        for wrong in WRONG:
            add(None, lambda data, part=part, wrong=wrong: data.update({part: wrong}))
            add(part, lambda entries, wrong=wrong: entries.append(wrong))
            for field in coco_set[part][0]:
                add(part, lambda entries, f=field, w=wrong: entries[0].update({f: w}))
    assert len(contents) > 700
    return FILES + random.Random(0).sample(contents, 250)


def test_damaged_annotations_get_a_sentence(damaged, verify, picture_folder, tmp_path):
    file = tmp_path / "damaged.json"
    arguments = ["coco", "--annotations", file, "--images", picture_folder, "--skip-decode"]
    arguments += ["--workers", 1, "--report", tmp_path / "report.json", "--overwrite"]
    arguments += ["--write", tmp_path / "cleaned.json"]
    codes = []
    for content in damaged:
        file.write_bytes(content)
        codes.append(verify([str(argument) for argument in arguments]))
        with contextlib.suppress(ValueError):  # any other error is a traceback
            read_coco(file, folder=picture_folder)
    assert set(codes) == {0, 1, 2}
