"""Two processes give what one gives, with videos that 2 does not divide."""

import json
import shutil

import pytest

pytestmark = pytest.mark.slow


def read_lines(folder):
    return [json.loads(line) for line in (folder / "videos.jsonl").read_text().splitlines()]


def same(one, two):
    """Equal lines, but for the rounding of their numbers."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    return one == pytest.approx(two, abs=1e-6) if isinstance(one, float) else one == two


def test_the_evaluation(launch, classifier, videos, tmp_path):
    shutil.copytree(videos, tmp_path / "data")
    for name in ("clap/1.mp4", "clap/2.mp4"):  # of the second process and of the first
        (tmp_path / "data" / name).write_bytes(b"torn")
    results = {}
    for ranks in (1, 2):
        output = tmp_path / f"of_{ranks}"
        output.mkdir()
        codes, texts = launch(
            "evaluate", "--weights", classifier[1], "--data", tmp_path / "data", "--output", output,
            "--workers", 0, "--device", "cpu", "--draws", "random", "--max-bad-samples", 3,
            ranks=ranks,
        )  # fmt: skip
        assert codes == [0] * ranks, texts
        for text in texts[1:]:
            assert "wrote" not in text
            assert "top-1" not in text
        results[ranks] = json.loads((output / "results.json").read_text())
        assert sorted(path.name for path in output.glob("[!.]*")) == [
            "confusion.png", "per_class.csv", "predictions.csv", "report.html", "results.json",
            "samples.json", "starts.jsonl", "videos.jsonl",
        ]  # fmt: skip
    assert same(read_lines(tmp_path / "of_1"), read_lines(tmp_path / "of_2"))
    assert len(read_lines(tmp_path / "of_2")) == 11
    names = [(tmp_path / f"of_{ranks}" / "per_class.csv").read_text() for ranks in (1, 2)]
    assert names[0] == names[1]
    assert results[1]["left_out"] == results[2]["left_out"]
    one, two = (results[ranks]["sets"]["data"] for ranks in (1, 2))
    assert two.pop("loss") == pytest.approx(one.pop("loss"), rel=1e-6)
    assert one == two
    assert two["videos"] == 9
    assert "clap/1.mp4" in results[2]["left_out"][0]
