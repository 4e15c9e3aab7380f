"""Every run ends: its processes that load data, its other ranks, its interpreter."""

import json
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WORKERS = {"run__workers": 2, "limit": 40}
# A limit gives -9, and so an ending that had to be forced is none.


def test_an_error_in_a_worker_ends_a_run(launch, tmp_path):
    ended = launch(tmp_path / "run", bug=5, **WORKERS)
    assert ended.codes == [1], ended.texts
    log = (tmp_path / "run/log.txt").read_text()
    assert "SampleError: sample file-5.jpg (index 5, drawn as (0, 5)) met a bug: KeyError" in log


@pytest.mark.slow
def test_an_error_in_the_evaluation_and_in_the_save(launch, tmp_path):
    """With both loaders open; the save fails for want of space on every rank at once."""
    ended = launch(tmp_path / "run", ranks=2, run__batch_size=4, evaluation_workers=1,
                   file_size=2_000, **WORKERS)  # fmt: skip
    assert ended.codes == [1, 1], ended.texts
    assert re.search(r"program.py: .*step_00000008/.* cannot be written: File too large",
                     "".join(ended.texts))  # fmt: skip
    assert "Traceback" not in "".join(ended.texts)


@pytest.mark.parametrize(
    ("poison", "ranks"), [(6, {1}), pytest.param(3, {0}, marks=pytest.mark.slow)]
)
def test_a_loss_that_is_not_finite_points_at_the_samples_of_its_process(
    launch, tmp_path, poison, ranks
):
    ended = launch(tmp_path / "run", ranks=2, run__batch_size=4, poison=(poison,), limit=40)
    assert ended.codes == [1, 1], ended.texts
    text = "".join(ended.texts)
    assert {int(rank) for rank in re.findall(r"rank(\d)_nonfinite\.json", text)} == ranks
    (rank,) = ranks
    noted = json.loads((tmp_path / f"run/rank{rank}_nonfinite.json").read_text())
    assert f"file-{poison}.jpg" in noted["samples"]


@pytest.mark.slow
def test_a_signal_in_an_evaluation(launch, metrics, tmp_path):
    """Its workers are of the group, too; the evaluation is caught up on."""
    ranks = 2
    options = {"run__workers": 1, "evaluation_workers": 1, "ranks": ranks, "dropout": 0.0,
               "run__batch_size": 8 // ranks, "run__resume": True,
               "run__checkpoint_every": 5, "run__epochs": 2, "limit": 40}  # fmt: skip
    assert launch(tmp_path / "whole", **options).codes == [0] * ranks
    stopped = launch(tmp_path / "run", term_in_evaluation=1, on_rank=ranks - 1, **options)
    assert stopped.codes == [75] * ranks, stopped.texts
    assert "evaluation of step 8 is left for the next start" in stopped.texts[0]
    assert re.search(r"stopped by .*: step 8 is saved \(step_00000008\), and", stopped.texts[0])
    assert (tmp_path / "run/checkpoints/step_00000008/COMPLETE").exists()
    assert not [line for line in metrics(tmp_path / "run") if "val_error" in line]
    again = launch(tmp_path / "run", **options)
    assert again.codes == [0] * ranks, again.texts
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_ctrl_c_to_all_processes_saves(launch, tmp_path):
    message = r"stopped by Ctrl-C: step (\d+) is saved \(step_0*\1\), and the same command"
    ended = launch(tmp_path / "run", signal="SIGINT", lines=5, group=True, ranks=2, run__workers=1,
                   run__batch_size=4, run__checkpoint_every=3, run__epochs=9, limit=40)  # fmt: skip
    assert ended.codes == [75, 75], ended.texts
    assert re.search(message, ended.texts[0])
    assert "Ctrl-C" not in ended.texts[1]


@pytest.mark.slow
def test_an_error_on_one_rank_ends_torchrun(launch_environment, run_started, stand_in, tmp_path):
    """Its report names the error, and the traceback of rank 1 is in a file."""
    recipe, script = tmp_path / "recipe.py", tmp_path / "script.py"
    recipe.write_text(
        "from program import Config\nfrom eva_engine.config import RunConfig\n"
        f"config = Config(run=RunConfig(output={str(tmp_path / 'run')!r}, epochs=99, batch_size=4, "
        "tensorboard=False, device='cpu', workers=2), fail_at=2, on_rank=1)\n"
    )
    script.write_text("from program import main\nmain()\n")
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    environment = launch_environment(HERE) | stand_in
    ended = run_started(*torchrun, script, recipe, folder=tmp_path, environment=environment)
    assert ended.returncode == 1
    text = ended.stdout + ended.stderr
    report = text[text.index("Root Cause (first observed failure)") :]
    assert re.search(r"rank +: 1 ", report)
    assert "an accident in the step function" in report
    log = (tmp_path / "run/log_rank1.txt").read_text()
    assert "RuntimeError: an accident in the step function" in log
    assert json.loads((tmp_path / "run/config.json").read_text())["fail_at"] == 2
