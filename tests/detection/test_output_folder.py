"""What a run leaves in its folder, and what is read of it."""

import pytest

from eva_detection.training.output_folder import (
    check_unused,
    is_finished,
    repair_metrics,
    saved_progress,
)


def test_what_is_saved_is_said(tmp_path):
    (tmp_path / "model_0000049.pth").touch()
    (tmp_path / "last_checkpoint").write_text("model_0000049.pth")
    goes_on = ", and the same command with --resume continues after it"
    assert saved_progress(tmp_path) == f"iteration 50 is saved (model_0000049.pth){goes_on}"
    (tmp_path / "model_stopped.pth").touch()
    (tmp_path / "last_checkpoint").write_text("model_stopped.pth")
    assert saved_progress(tmp_path) == f"model_stopped.pth is saved{goes_on}"
    (tmp_path / "last_checkpoint").write_text("../x.pth")
    assert "'../x.pth'" in saved_progress(tmp_path)


@pytest.mark.parametrize("name", ["last_checkpoint", "model_0000004.pth", "metrics.json"])
def test_a_used_folder(tmp_path, name):
    (tmp_path / "config.yaml").touch()
    (tmp_path / "log.txt").write_text("of a run that never began")
    (tmp_path / "metrics.json").touch()
    check_unused(tmp_path)
    (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=r"has a run .*: .* --resume, .* another train.o"):
        check_unused(tmp_path)


def test_a_finished_run(tmp_path):
    """Trained to its end and scored: nothing is left for `--resume`."""
    (tmp_path / "model_final.pth").touch()
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "metrics.json").write_text('{"iteration": 9, "bbox/AP": 1.0}\n')
    assert not is_finished(tmp_path, 10), "scored in the middle alone"
    with (tmp_path / "metrics.json").open("a") as file:
        file.write('{"iteration": 10, "bbox/AP": NaN}\n')
    assert is_finished(tmp_path, 10)
    assert not is_finished(tmp_path, 20), "more iterations are wanted"
    (tmp_path / "last_checkpoint").write_text("model_0000004.pth")
    (tmp_path / "model_0000004.pth").touch()
    assert not is_finished(tmp_path, 10)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"iteration": 1}\n', '{"iteration": 1}\n'),
        ('{"iteration": 1}\n{"iter', '{"iteration": 1}\n'),
        ('{"iter', ""),
        ("", ""),
        ("\n" + "x" * 100_000, "\n"),
        ("x" * 70_000 + "\n" + "y" * 65_536, "x" * 70_000 + "\n"),
    ],
)
def test_a_torn_last_line_is_removed(tmp_path, text, kept):
    (tmp_path / "metrics.json").write_text(text)
    repair_metrics(tmp_path)
    assert (tmp_path / "metrics.json").read_text() == kept
