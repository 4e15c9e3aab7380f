"""Plans of demo programs, what they refuse before any work, and how they end."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from eva_data.files import UnwritableError
from eva_data.inputs import (
    Job,
    Plan,
    do_jobs,
    plan_jobs,
    require_free,
    run_demo,
    save_picture,
    share,
    written_name,
)

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


def test_what_is_not_there_or_empty_is_a_problem_and_not_an_error(plan, tmp_path):
    (tmp_path / "empty").mkdir()
    jobs, problems = plan(tmp_path / "none.jpg", tmp_path / "empty", kinds="pictures")
    assert not jobs
    assert problems == [
        f"there is no {tmp_path / 'none.jpg'}",
        f"{tmp_path / 'empty'} holds no pictures",
    ]


def test_two_results_of_one_name_are_refused(folder, plan, tmp_path):
    with pytest.raises(ValueError, match=r"a\.png and .*a\.png would both become .*out/a\.png"):
        plan(folder, folder / "a.png")
    with pytest.raises(ValueError, match=r"would both become .*labels/a\.png: give the folder"):
        plan(
            *(folder / "a.png", folder / "b.JPG"),
            targets=lambda name: [tmp_path / name, tmp_path / "labels/a.png"],
        )


def test_an_input_is_never_written_over(folder, plan):
    with pytest.raises(ValueError, match=r"in/a\.png is an input: choose another --output"):
        plan(folder, output=folder)
    (folder / "link").symlink_to(folder)
    with pytest.raises(ValueError, match="is an input"):
        plan(folder / "a.png", output=folder / "link")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a.jpg", "a.jpg"), ("a.PNG", "a.PNG"), ("s/a.jpeg", "s/a.jpeg"), ("a.webp", "a.webp.png"),
        ("a", "a.png"), ("a.MP4", "a.MP4"), ("s/a.mov", "s/a.mov.mp4"),
    ],
)  # fmt: skip
def test_names_of_what_is_written(name, written):
    assert written_name(Path(name)) == Path(written)


def test_outputs_must_be_free(tmp_path):
    (tmp_path / "old.png").write_text("")
    (tmp_path / "folder.png").mkdir()
    require_free([tmp_path / "new.png", tmp_path / "new/a.png"], overwrite=False)
    require_free([tmp_path / "old.png"], overwrite=True)
    with pytest.raises(ValueError, match=r"old\.png is there already: give --overwrite"):
        require_free([tmp_path / "new.png", tmp_path / "old.png"], overwrite=False)
    for overwrite in (True, False):
        with pytest.raises(ValueError, match=r"folder\.png is a folder and would have to be a f"):
            require_free([tmp_path / "folder.png"], overwrite=overwrite)
        with pytest.raises(ValueError, match=r"old\.png is a file and would have to be a folder"):
            require_free([tmp_path / "old.png" / "sub" / "a.png"], overwrite=overwrite)


def test_a_picture_appears_when_it_is_complete(tmp_path):
    save_picture(Image.new("RGB", (4, 3)), tmp_path / "a/b/c.png")
    with Image.open(tmp_path / "a/b/c.png") as picture:
        assert picture.size == (4, 3)
    with pytest.raises(OSError, match="cannot write mode F as PNG"):
        save_picture(Image.new("F", (4, 3)), tmp_path / "a/d.png")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_problems_of_jobs_are_logged_and_the_others_are_done(caplog):
    jobs = [Job(Path(name), name, ()) for name in "abc"]
    done = []

    def do(job):
        done.append(job.name)
        return "b is damaged" if job.name == "b" else None

    assert do_jobs(jobs, do, title="test") == ["b is damaged"]
    assert done == ["a", "b", "c"]
    assert caplog.messages == ["b is damaged"]


# --- how a program ends ---


@pytest.fixture
def run():
    """Function: run a program; its exit code, or the text that it ends with."""

    def start(prepare, work=lambda plan: []):
        try:
            run_demo(argparse.ArgumentParser("demo.py"), prepare=prepare, work=work)
        except SystemExit as end:
            return end.code
        return 0

    return start


def _raise(error):
    raise error


def test_ends_of_a_program(run, capsys):
    job = Job(Path("a"), "a", ())
    assert run(lambda: Plan([job], [])) == 0
    assert run(lambda: _raise(ValueError("two results"))) == 2
    assert "demo.py: error: two results" in capsys.readouterr().err
    closed = PermissionError(13, "Permission denied", "in/closed")
    assert run(lambda: _raise(closed)) == 2
    assert "demo.py: error: [Errno 13] Permission denied: 'in/closed'" in capsys.readouterr().err
    expected = "not everything could be read:\n  there is no b\n  a is damaged"
    assert run(lambda: Plan([job], ["there is no b"]), lambda plan: ["a is damaged"]) == expected
    assert run(lambda: Plan([job], []), lambda _: _raise(KeyboardInterrupt)) == 130
    full = UnwritableError("a cannot be written: No space left on device")
    assert run(lambda: Plan([job], []), lambda _: _raise(full)) == f"demo.py: {full}"


def test_without_jobs_no_work_is_done(run):
    end = run(lambda: Plan([], ["there is no b"]), lambda _: _raise(AssertionError))
    assert end == "not everything could be read:\n  there is no b"


def test_a_bug_is_not_hidden(run):
    with pytest.raises(ValueError, match="a bug"):
        run(lambda: Plan([Job(Path("a"), "a", ())], []), lambda _: _raise(ValueError("a bug")))


def test_shares():
    assert share("0.25") == 0.25
    for text in ("1.5", "-0.1", "nan"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"must be in \[0, 1\], got"):
            share(text)
    with pytest.raises(ValueError, match="much"):
        share("much")


def test_mistakes_are_answered_before_anything_heavy_is_loaded():
    script = (
        "import sys, eva_data.inputs\n"
        "sys.exit(' '.join({'numpy', 'PIL', 'torch', 'av', 'tqdm'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
