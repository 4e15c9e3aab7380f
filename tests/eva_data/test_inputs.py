"""Plans of demo programs, what they refuse before any work, and how they end."""

import os
from pathlib import Path

import pytest

from eva_data.inputs import files_at, plan_jobs

SUFFIXES = {".jpg", ".png", ".mov"}


@pytest.fixture
def folder(tmp_path):
    """A folder with pictures, a video, a hidden file, a pipe, loops and earlier results."""
    names = ("b.JPG", "a.png", "sub/c.png", "sub/e.mov", ".h.png", "x.txt", "out/old.png")
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    os.mkfifo(tmp_path / "in/pipe.png")
    (tmp_path / "in/sub/loop").symlink_to(tmp_path / "in")
    return tmp_path / "in"


@pytest.fixture
def plan(tmp_path):
    """Function: a plan with one result for each input, in a folder."""

    def make(*inputs, output=tmp_path / "out", **options):
        options = {"suffixes": SUFFIXES, "targets": lambda name: [output / name]} | options
        return plan_jobs(inputs, **options)

    return make


def test_folders_are_searched_and_files_taken_as_they_are(folder, plan, tmp_path):
    (tmp_path / "single.data").write_bytes(b"")
    jobs, problems = plan(folder, tmp_path / "single.data", results=[folder / "out"])
    assert not problems
    assert [job.name for job in jobs] == ["a.png", "b.JPG", "sub/c.png", "sub/e.mov", "single.data"]
    assert [job.is_video for job in jobs] == [False, False, False, True, False]
    assert jobs[2] == (folder / "sub/c.png", "sub/c.png", (tmp_path / "out/sub/c.png",))


def test_results_are_left_out_only_inside_a_folder_that_is_searched(folder, plan):
    assert "out/old.png" in [job.name for job in plan(folder).jobs]
    for results in ([folder / "out"], [folder / "sub/../out"]):
        assert "out/old.png" not in [job.name for job in plan(folder, results=results).jobs]
    assert [job.name for job in plan(folder / "out", results=[folder / "out"]).jobs] == ["old.png"]
    assert len(plan(folder / "sub", results=[folder]).jobs) == 2


def test_two_results_of_one_name_are_refused(folder, plan, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.png .*a\.png .*out/a\.png"):
        plan(folder, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"labels/a\.png"):
        plan(
            *(folder / "a.png", folder / "b.JPG"),
            targets=lambda name: [tmp_path / name, tmp_path / "labels/a.png"],
        )


def test_patterns_are_searched(folder, plan, tmp_path):
    names = [job.name for job in plan(folder / "*", results=[folder / "out"]).jobs]
    assert names == ["a.png", "b.JPG"]
    (folder / "sub/loop2").symlink_to(folder)  # two of them have 2^40 paths
    names = [job.name for job in plan(tmp_path / "i*" / "**" / "*.png").jobs]
    assert names == ["in/a.png", "in/out/old.png", "in/sub/c.png"]
    assert plan(folder / "*.bmp").problems == [f"{folder / '*.bmp'} holds no images and no videos"]
    (folder / "[1].png").write_bytes(b"")
    assert [job.name for job in plan(folder / "[1].png").jobs] == ["[1].png"]
    assert files_at(folder / "sub", SUFFIXES) == [folder / "sub/c.png", folder / "sub/e.mov"]
    assert files_at(folder / "s*" / "*.png", SUFFIXES) == [folder / "sub/c.png"]
    assert files_at(folder / "**" / "?.png", SUFFIXES)[1:] == [folder / "sub/c.png"]
    hidden = folder / ".thumbs" / "a.png"
    hidden.parent.mkdir()
    hidden.touch()
    assert hidden not in files_at(folder / "**" / "*.png", SUFFIXES)
    assert files_at(folder / ".thumbs" / "*.png", SUFFIXES) == [hidden]
    assert files_at(folder / ".th*" / "*.png", SUFFIXES) == [hidden]
    assert files_at(folder / "**", {".mov"}) == [folder / "sub/e.mov"]
    assert files_at(folder / "**" / "sub" / "**" / "e*", SUFFIXES) == [folder / "sub/e.mov"]
    with pytest.raises(ValueError, match=r"none\*\.png .*\.jpg, \.mov"):
        files_at(folder / "none*.png", SUFFIXES)


def test_a_number_is_a_camera_if_it_is_not_a_file(plan, monkeypatch, tmp_path):
    monkeypatch.setattr("eva_data.inputs.CAMERAS", str(tmp_path / "video"))
    with pytest.raises(ValueError, match="there is no camera 7 on this machine"):
        plan(Path("7"), cameras=True)
    assert plan(Path("7")).problems == ["there is no 7"]
    (tmp_path / "video7").write_bytes(b"")
    (job,) = plan(Path("7"), cameras=True).jobs
    assert job == (tmp_path / "video7", "camera-7.mp4", (tmp_path / "out/camera-7.mp4",))
    assert job.is_camera
    monkeypatch.chdir(tmp_path)
    Path("7").write_bytes(b"")
    assert plan(Path("7"), cameras=True).jobs[0].source == Path("7")


def test_an_input_is_never_written_over(folder, plan):
    with pytest.raises(ValueError, match=r"in/a\.png"):
        plan(folder, output=folder)
    (folder / "link").symlink_to(folder)
    with pytest.raises(ValueError, match="is an input"):
        plan(folder / "a.png", output=folder / "link")
