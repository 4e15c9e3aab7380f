"""What others' files and folders do not do: run programs, wait for ever, cost minutes."""

import errno
import os
import shutil
import signal
import time

import pytest

RECORD = "import pathlib; pathlib.Path({mark!r}).write_text('it ran')\n"
LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
sys.argv = ["eva", *sys.argv[1:]]
runpy.run_module("eva_command", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("task", "alone"),
    [
        pytest.param("segmentation", False, id="finished run"),
        pytest.param("mmdetection", True, id="weights alone"),
    ],
)
def test_no_other_program_beside_weights_is_run(task, alone, finished, demo, run, tmp_path):
    folder, mark = tmp_path / "downloads", tmp_path / "mark"
    if alone:
        folder.mkdir()
        weights = folder / "weights.pth"
        shutil.copy(finished(task) / "iter_6.pth", weights)
    else:
        weights = shutil.copytree(finished(task), folder)
    (folder / "plot.py").write_text(RECORD.format(mark=str(mark)))
    picture = sorted((demo("coco") / "coco" / "val").iterdir())[0]
    words = (weights, picture, "--output", tmp_path / "out")
    run("eva", task, "demo", *words, code=None)
    assert not mark.exists()


def _writer(pipe):
    """The open end of a pipe that somebody reads, or None."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


@pytest.mark.parametrize("name", ["Annotations/train_000003.xml", "instances.json"])
def test_a_pipe_in_a_data_set_does_not_hang(name, demo, start, tmp_path):
    place = shutil.copytree(demo("coco", "yolo", "voc") / "voc", tmp_path / "voc")
    pipe = place / name
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    checked = place if name.startswith("Annotations") else pipe
    program = start("eva", "data", "verify", checked)
    while program.process.poll() is None:
        writer = _writer(pipe)
        if writer is not None:
            time.sleep(2)
            hangs = program.process.poll() is None
            program.kill()
            os.close(writer)
            assert not hangs
        time.sleep(0.05)
    assert program.wait().names(pipe.name)


def test_a_megabyte_of_yaml_is_answered_in_seconds(run, tmp_path):
    (tmp_path / "images").mkdir()
    names = "[" + "a," * 500_000 + "]"
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: {names}\n")
    ended = run("python", "-c", LIMITED, "data", "verify", tmp_path / "data.yaml", code=None)
    assert ended.code not in (-signal.SIGXCPU, -signal.SIGKILL)
