"""What one of two processes meets ends both, with real interpreters."""

import os
import subprocess
import sys

import pytest
from mmengine.config import Config

FAULTY = """
import eva_segmentation.plugin
from mmengine.dist import get_rank
from eva_segmentation.model.segmentor import EVASegmentor
loss = EVASegmentor.loss
def spoilt(*arguments):
    losses = loss(*arguments)
    if get_rank() == 1:
        if {fault!r} == "error":
            raise RuntimeError("a fault of process 1")
        losses = {{name: value * float("nan") for name, value in losses.items()}}
    return losses
EVASegmentor.loss = spoilt
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["error", "nan"])
def test_what_one_of_two_processes_meets_ends_both(fault, tiny_run, configs, tmp_path):
    """With a real interpreter, and with workers, which ignore the signals of a launcher."""
    (tmp_path / "faulty.py").write_text(FAULTY.format(fault=fault))
    cfg = Config.fromfile(tiny_run / "tiny.py")
    cfg.custom_imports.imports.append("faulty")
    cfg.train_dataloader.update(num_workers=1, persistent_workers=True)
    cfg.dump(tmp_path / "two.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    script = [configs.parent / "train.py", tmp_path / "two.py", "--work-dir", tmp_path / "run"]
    run = subprocess.run(
        [*command, "--standalone", *map(str, script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}"},
    )
    assert run.returncode == 1
    assert "terminate called" not in run.stderr  # gloo may abort a process that ends as a member
    ours = [line for line in run.stderr.splitlines() if line.startswith("train.py: ")]
    if fault == "error":
        assert "a fault of process 1" in (tmp_path / "run" / "log_rank1.txt").read_text()
        assert any("a fault of process 1" in line for line in ours)
    else:
        (line,) = ours
        assert "iteration 1" in line
        assert "process 1: " in line
    assert not list((tmp_path / "run").glob("*.pth"))
