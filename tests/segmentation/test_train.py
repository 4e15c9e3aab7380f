"""The command lines: training, continuing, mmsegmentation's own tools, refusals."""

import multiprocessing

import pytest

from eva_segmentation.commands import evaluate, train
from eva_segmentation.model.segmentor import EVASegmentor

pytestmark = pytest.mark.filterwarnings("ignore:The draw is False:UserWarning")


def fault(*_):
    raise RuntimeError("a fault of\nthe program")


@pytest.mark.parametrize(("program", "method"), [(train, "loss"), (evaluate, "predict")])
def test_a_fault_is_one_line_with_its_traceback_in_a_file_and_leaves_no_worker(
    program, method, tiny_run, fails, monkeypatch, tmp_path
):
    monkeypatch.setattr(EVASegmentor, method, fault)
    weights = [] if program is train else [tiny_run / "run" / "iter_3.pth"]
    workers = "train_dataloader.num_workers=1"
    line = fails(program, tiny_run / "tiny.py", *weights, "--work-dir", tmp_path, workers)
    log = tmp_path / "log_rank0.txt"
    assert "a fault of the program" in line
    assert str(log) in line
    assert "in fault" in log.read_text()
    assert not multiprocessing.active_children()
