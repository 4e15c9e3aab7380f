"""Training and evaluation end to end: as programs, killed and continued, in two processes."""

import pytest
import torch

from eva_detection.training.output_folder import read_metrics

CONFIG = "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"

# stands in for train_net.py: both processes of a run write their weights instead of evaluating
DUMP_WEIGHTS = """
import torch
from detectron2.utils import comm
from eva_detection import command_line
from eva_detection.evaluation.test_set import EvaluationSet

def score(test_set, model, **_):
    torch.save(model.state_dict(), f"{test_set.cfg.train.output_dir}/rank{comm.get_rank()}.pth")
    return {}

EvaluationSet.score = score
if __name__ == "__main__":
    command_line.train()
"""


def test_two_processes_end_with_one_set_of_weights(
    start, finish, repository, tiny_overrides, tmp_path
):
    script = tmp_path / "dump_weights.py"
    script.write_text(DUMP_WEIGHTS)
    run = tmp_path / "run"
    arguments = ("--num-gpus", "2", "--dist-url", "auto", "--config-file", str(repository / CONFIG))
    overrides = (*tiny_overrides, "train.max_iter=2", "train.accumulate=2")
    text = finish(start(str(script), *arguments, *overrides, f"train.output_dir={run}"))
    assert text.count(" on 2 x cpu\n") == text.count("data     train") == 1, "one process speaks"
    assert len(text.splitlines()) <= 12, text
    first, second = (torch.load(run / f"rank{rank}.pth", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    saved = torch.load(run / "model_final.pth", weights_only=True)["model"]
    assert torch.equal(saved["backbone.net.pos_embed"], first["module.backbone.net.pos_embed"])
    assert (run / "log.txt.rank1").exists()
    assert [entry["iteration"] for entry in read_metrics(run)] == [0, 1]


# the main process fails as it scores; the other one waits for it
BROKEN = DUMP_WEIGHTS.replace(
    "    torch.save(",
    "    if comm.get_rank() == 0:\n        raise ValueError('broken labels')\n    torch.save(",
)


@pytest.mark.slow
def test_an_error_of_the_main_process_as_it_scores_ends_both(
    start, repository, tiny_overrides, tmp_path
):
    script = tmp_path / "broken.py"
    script.write_text(BROKEN)
    arguments = ("--num-gpus", "2", "--config-file", str(repository / CONFIG))
    words = (*tiny_overrides, "train.max_iter=1", f"train.output_dir={tmp_path / 'run'}")
    ended = start(str(script), *arguments, *words).wait(120)
    assert ended.code == 1
    assert "broken labels" in ended.text
