"""The check of videos: planted faults, what is written, and that it reads as it was meant."""

import json
import os
import shutil

import av
import numpy as np
import pytest

from eva_command import checking
from eva_command.verify import parse
from eva_data.index import VIDEO_KIND, Table
from eva_data.labelled_videos.sources import open_videos

IDS = ("-3B32lodo2M", "aB0aaaaaaaa", "cD1bbbbbbbb", "ab_12_34567")


def _write_video(file, frames=9, seed=0, size=(64, 80), rotation=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for _ in range(frames):
            rgb = np.broadcast_to(random.integers(0, 255, 3).astype(np.uint8), (*size, 3)).copy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())


def _write_sound(file):
    with av.open(str(file), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A folder of two classes, with faults; it is copied before it is changed."""
    folder = tmp_path_factory.mktemp("sample") / "train"
    for number, name in enumerate((
        f"run/{IDS[0]}_000010_000020.mp4", f"run/{IDS[1]}.mp4", "walk fast/1.mp4", "walk fast/2.mp4"
    )):  # fmt: skip
        _write_video(folder / name, seed=number)
    _write_video(folder / "run/short.mp4", frames=3, seed=7)
    _write_video(folder / "run/small.mp4", seed=8, size=(32, 160))
    _write_video(folder / "run/turned.mp4", seed=9, rotation=90)
    whole = (folder / "run" / "small.mp4").read_bytes()
    (folder / "run" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "run" / "empty.mp4").touch()
    (folder / "run" / "text.mp4").write_bytes(b"no video at all" * 100)
    _write_sound(folder / "run" / "sound.mp4")
    shutil.copy(folder / "walk fast/1.mp4", folder / "walk fast/3 copy.mp4")
    shutil.copy(folder / "walk fast/1.mp4", folder / "run/z.mp4")
    return folder


LEFT = ["run/-3B32lodo2M_000010_000020.mp4", "run/aB0aaaaaaaa.mp4", "run/short.mp4",
        "run/small.mp4", "run/turned.mp4", "run/z.mp4", "walk fast/2.mp4"]  # fmt: skip


@pytest.fixture
def check():
    """Function: run the command; returns its exit code."""

    def run(location, *options, workers=1):
        arguments = ["video", location, "--workers", workers, *options]
        args = parse([str(argument) for argument in arguments])
        return checking.run(args)

    return run


def _by_kind(report):
    return {finding["kind"]: finding["ids"] for finding in report["findings"]}


@pytest.fixture
def report_of(check, tmp_path, capsys):
    """Function: exit code, findings by kind, and the report."""

    def run(location, *options, workers=1):
        file = tmp_path / "report.json"
        code = check(location, "--report", file, "--overwrite", *options, workers=workers)
        report = json.loads(file.read_text())
        if "findings" not in report:  # of parts
            found = {name: _by_kind(part) for name, part in report.items()}
            return code, found, report
        return code, _by_kind(report), report

    return run


def test_a_folder_of_splits_is_checked_part_by_part(report_of, check, tmp_path, capsys):
    for number, name in enumerate(("train/run/a", "train/walk_on/b", "val/Run/c", "val/sit/d")):
        _write_video(tmp_path / f"data/{name}.mp4", seed=number)
    shutil.copy(tmp_path / "data/train/run/a.mp4", tmp_path / "data/val/Run/e.mp4")
    code, found, report = report_of(tmp_path / "data")
    assert code == 1
    assert {key: [*part["classes"]] for key, part in report.items()} == {
        "train": ["run", "walk_on"],
        "val": ["Run", "sit"],
    }
    assert found == {"train": {}, "val": {"leak": ["Run/e.mp4"], "unknown": ["sit"]}}
    with pytest.raises(ValueError, match="data/train"):
        report_of(tmp_path / "data", "--write", tmp_path / "list.txt")
    classes = tmp_path / "classes.txt"
    classes.write_text("run\nsit\nwalk on\n")
    with pytest.raises(ValueError, match="list of classes"):
        check(tmp_path / "data", "--classes", classes, "--report", classes, "--overwrite")
    assert classes.read_text().startswith("run")


def test_planted_faults(report_of, sample, tmp_path, content, capsys):
    clean, index = tmp_path / "clean.txt", tmp_path / "clean.safetensors"
    names = tmp_path / "classes.txt"
    code, found, report = report_of(
        sample, "--write", clean, "--index", index, "--write-classes", names, workers=2
    )
    output = capsys.readouterr().out
    assert code == 1
    assert found == {
        "unreadable": ["run/cut.mp4", "run/empty.mp4", "run/sound.mp4", "run/text.mp4"],
        "copy": ["walk fast/1.mp4", "walk fast/3 copy.mp4"],
        "short": ["run/short.mp4"],
        "rotated": ["run/turned.mp4"],
    }
    assert "run/cut.mp4: it is damaged or not a video" in output
    assert "run/z.mp4 (run) and walk fast/1.mp4 (walk fast)" in output
    assert report["left_by_cleaning"] == len(LEFT)
    assert report["classes"] == {
        "run": {"videos": 10, "left": 6}, "walk fast": {"videos": 3, "left": 1}
    }  # fmt: skip
    assert "13 videos in 2 classes, 3 to 10 in each, median 6.5; 7 are left" in output
    assert "they have 57 frames in" in output
    expected = [(name, int(name.startswith("walk"))) for name in LEFT]
    listed = open_videos(clean, classes=names)
    assert [(os.path.relpath(listed.sample_id(k), sample), int(listed.labels[k]))
            for k in range(len(listed))] == expected  # fmt: skip
    assert listed.classes == ("run", "walk fast")
    indexed = open_videos(index)
    assert content(indexed) == expected
    assert indexed.classes == listed.classes
    with indexed.open(2) as video:
        assert len(video) == 3
    table = Table.open(index, kind=VIDEO_KIND)
    assert table["frames"].tolist() == [9, 9, 3, 9, 9, 9, 9]
    assert table["width"].tolist() == [80, 80, 80, 160, 64, 80, 80]
    assert table["bytes"].tolist() == [(sample / name).stat().st_size for name in LEFT]
    code, found, _ = report_of(clean)
    assert (code, set(found)) == (0, {"short", "rotated"})
    assert report_of(index)[0] == 0


def test_a_list_with_missing_repeated_and_related_videos(report_of, sample, tmp_path):
    lines = [
        f"run/{IDS[0]}_000010_000020.mp4 0", "gone.mp4 0", f"run/{IDS[0]}_000010_000020.mp4 0",
        f"run/{IDS[0]}_000010_000020 1", "walk fast/2.mp4 1",
    ]  # fmt: skip
    shutil.copy(sample / "walk fast/1.mp4", tmp_path / f"{IDS[0]}_000030_000040.mp4")
    (tmp_path / "list.txt").write_text(
        "\n".join([*lines, f"{tmp_path}/{IDS[0]}_000030_000040.mp4 1", f"run/{IDS[1]}.mp4 3"])
    )
    code, found, report = report_of(tmp_path / "list.txt", "--root", sample)
    name = f"run/{IDS[0]}_000010_000020.mp4"
    assert code == 1
    assert found == {
        "missing": ["gone.mp4"], "twice": [name] * 2, "two_classes": [IDS[0]], "empty": ["2"],
    }  # fmt: skip
    assert report["left_by_cleaning"] == 4


@pytest.mark.parametrize("form", ["csv", "folder", "index"])
def test_leaks_into_another_list(report_of, check, sample, tmp_path, form):
    """By id in any form, though no file of the other is there; by content with an index."""
    other = tmp_path / "val"
    leaks = [LEFT[0], LEFT[1]]
    if form == "csv":
        other = tmp_path / "val.csv"
        rows = [f"x,{IDS[0]},55,65,val", f"x,{IDS[1]},0,1,val", "x,zzzzzzzzzzZ,0,1,val"]
        other.write_text("\n".join(["label,youtube_id,time_start,time_end,split", *rows]))
    else:
        (other / "x").mkdir(parents=True)
        shutil.copy(sample / LEFT[0], other / "x" / f"{IDS[0]}.mp4")
        shutil.copy(sample / LEFT[1], other / "x" / "renamed.mp4")
        shutil.copy(sample / "run/z.mp4", other / "x" / f"{IDS[1]}_5_6.webm")
        if form == "index":
            assert check(other, "--index", tmp_path / "val.safetensors") == 0
            other = tmp_path / "val.safetensors"
        leaks += ["run/z.mp4"]
    code, found, report = report_of(sample, "--against", other)
    assert (code, found["leak"]) == (1, leaks)
    assert report["left_by_cleaning"] == len(LEFT) - len(leaks)
    code, found, _ = report_of(sample, "--against", other, "--skip-decode")
    assert (code, found) == (1, {"leak": leaks[:2]})
