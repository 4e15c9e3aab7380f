"""Folders that nobody named: a run does not meet an earlier one; a resumed run finds its own."""

from eva_runs.output_folder import number_folder


def test_a_folder_with_a_run_gets_a_number_unless_it_is_resumed(tmp_path):
    def choose(resume):
        return number_folder(tmp_path / "run", lambda folder: any(folder.glob("*")), resume=resume)

    assert choose(resume=False) == choose(resume=True) == tmp_path / "run"
    for name in ("run", "run-2"):
        (tmp_path / name / "step_1").mkdir(parents=True)
    assert choose(resume=False).name == "run-3"
    assert choose(resume=True).name == "run-2"
    for name in ("run-4", "run-2026", "run-02", "run-x"):  # and run-3 was deleted
        (tmp_path / name / "step_1").mkdir(parents=True)
    assert choose(resume=False).name == "run-5"
    assert choose(resume=True).name == "run-4"
    (tmp_path / "run.onnx").touch()
    file = number_folder(tmp_path / "run", lambda path: path.is_file(), suffix=".onnx")
    assert file.name == "run-2.onnx"
