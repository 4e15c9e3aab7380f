"""Two processes give what one gives, with sets that 2 does not divide."""

import json
import shutil

import pytest


@pytest.fixture
def evaluate(launcher, noted_weights, folders, captions, tmp_path):
    """Function: evaluate classes and pairs, one of them torn; results, and what was written."""
    shutil.copytree(captions.parent, tmp_path / "captions")
    (tmp_path / "captions" / "3.png").write_bytes(b"torn")
    table = tmp_path / "captions" / captions.name

    def run(ranks, *more, output="out"):
        words = (
            "--weights", noted_weights, "--data", folders, "--pairs", table,
            "--max-bad-samples", 3, "--batch-size", 2, "--workers", 0, "--device", "cpu",
            "--templates", "cifar", "--output", tmp_path / output / "results", *more,
        )  # fmt: skip
        ended = launcher(["evaluate", *map(str, words)], ranks=ranks, log=tmp_path / "log_of_rank")
        assert ended.codes == [0] * ranks, ended.texts
        folder = tmp_path / output
        assert sorted(path.name for path in (folder / "results").glob("[!.]*")) == [
            "confusion.png", "per_class.csv", "predictions.csv", "report.html", "results.json",
            "samples.json", "starts.jsonl", "table.md",
        ]  # fmt: skip
        return json.loads((folder / "results" / "results.json").read_text()), ended.texts

    return run


@pytest.mark.slow
def test_the_command(evaluate, tmp_path):
    one, texts = evaluate(1, output="one")
    assert "data" in texts[0]
    two, texts = evaluate(2, output="two")
    assert "wrote" not in texts[1]
    assert "top-1" not in texts[1]
    assert one["retrieval"] == two["retrieval"]
    assert one["left_out"] == two["left_out"]
    assert "3.png" in one["left_out"][0]
    assert one["retrieval"]["pairs"]["images"] == 10
    assert 0 < one["retrieval"]["pairs"]["text_to_image_r5"] < 100
    loss = one["sets"]["data"].pop("loss")
    assert two["sets"]["data"].pop("loss") == pytest.approx(loss, rel=1e-6)
    assert one["sets"] == two["sets"]
    assert one["sets"]["data"]["samples"] == 11
    assert [found["settings"]["processes"] for found in (one, two)] == [1, 2]
    assert one["settings"]["mean"] == [0.4, 0.5, 0.6]  # as the weights note
    for name in ("per_class.csv", "table.md"):
        texts = [(tmp_path / n / "results" / name).read_text() for n in ("one", "two")]
        assert texts[0] == texts[1]
