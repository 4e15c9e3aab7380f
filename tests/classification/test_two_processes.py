"""Two processes give what one gives, with images that 2 does not divide."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # one evaluation in two processes is a promise, too


def test_what_one_process_cannot_read_is_left_out_by_both(
    launch, classifier, write_picture, tmp_path
):
    for name in ("0", "1", "2"):
        write_picture(tmp_path / "data" / name / "a.png")
    torn = tmp_path / "data" / "1" / "a.png"  # of the second process
    torn.write_bytes(b"no picture")
    command = ("evaluate", "--weights", classifier[1], "--data", tmp_path / "data", "--workers", 0,
               "--device", "cpu")  # fmt: skip
    codes, texts = launch(*command, "--max-bad-samples", 1, "--output", tmp_path / "out", ranks=2)
    assert codes == [0, 0], texts
    assert str(torn) in texts[0]
    assert str(torn) not in texts[1]
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["sets"]["data"]["images"] == 2
    assert len(results["left_out"]) == 1
    codes, texts = launch(*command, "--max-bad-samples", 0, ranks=2)
    assert codes == [1, 1], texts
    said = "".join(texts)
    assert said.count(str(torn)) == 1
    assert "Traceback" not in said


def test_frozen_features(launch, digits, tmp_path):
    results = {}
    for ranks in (1, 2):
        codes, texts = launch(
            "frozen", "--weights", "eva_debug", "--train", digits, "--val", digits,
            "--image-size", 32, "--neighbours", 3, "--batch-size", 2, "--workers", 0,
            "--device", "cpu", "--output", tmp_path / f"of_{ranks}", ranks=ranks,
        )  # fmt: skip
        assert codes == [0] * ranks, texts
        results[ranks] = json.loads((tmp_path / f"of_{ranks}/results.json").read_text())["sets"]
    assert results[1].keys() == {"3 neighbours", "linear"}
    for name, score in results[1].items():
        other = results[2][name]
        assert score.pop("loss") == pytest.approx(other.pop("loss"), rel=1e-3)
        assert score == other


def test_a_probe_is_scored_with_the_statistics_that_are_saved(launch, digits, tmp_path):
    """Each process sees other images; the saved batch norm is the first one's."""
    recipe = ROOT / "classification" / "configs" / "eva_debug_digits_linear.py"
    codes, texts = launch(
        "train", recipe, "--data.train", digits, "--data.val", digits, "--run.output",
        tmp_path / "run", "--run.batch-size", 2, "--run.epochs", 2, "--model.image-size", 32,
        "--run.no-tensorboard", "--run.device", "cpu", ranks=2,
    )  # fmt: skip
    assert codes == [0, 0], texts
    (file,) = (tmp_path / "run" / "best").glob("*.safetensors")
    codes, texts = launch(
        "evaluate", "--weights", file, "--data", digits, "--workers", 0, "--device", "cpu",
        "--output", tmp_path / "scores", ranks=1,
    )  # fmt: skip
    assert codes == [0], texts
    found = json.loads((tmp_path / "scores" / "results.json").read_text())["sets"]["data"]
    best = json.loads((tmp_path / "run" / "best" / "best.json").read_text())[file.name]["results"]
    assert found["loss"] == pytest.approx(best["loss"], rel=1e-5)
    assert found["top1"] == best["top1"]
