"""The commands that a report of a pre-training names next."""

from pathlib import Path

from eva_pretrain.report import next_steps


def test_the_next_command_makes_its_data_where_they_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = next_steps("eva_debug", Path("run"))[0].command
    demo, train = first.split(" && ")
    assert "make" in demo
    assert demo.endswith("--output output/datasets/digit_folder --formats folder")
    assert "eva_debug_digits --model.init-checkpoint run --run.output run_classifier" in train
    (tmp_path / "output/datasets/digit_folder").mkdir(parents=True)
    assert next_steps("eva_debug", Path("run"))[0].command == train
    assert "&&" not in next_steps("eva_g_patch14", Path("run"))[0].command
