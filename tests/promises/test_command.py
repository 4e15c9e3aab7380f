"""The command `eva`: help, recipes, weights, own machine, publishing, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eva_command.main import main as eva

DETECTOR = "demo/cascade_mask_rcnn_vitdet_eva_debug"


def test_help_is_immediate(measure):
    seconds, ended = measure("--help")
    assert ended.code == 0
    assert ended.names("detection", "segmentation", "doctor")
    assert measure("--version")[1].out.startswith("eva-toolkit ")
    assert seconds < 0.5


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["detectoin", "train"], "detectoin"),
        (["detection", "trian"], "trian"),
        (["config", "nothing"], "nothing"),
        (["config", "eva_debug_motoin"], "eva_debug_motion"),
        (["quickstart", "nothing"], "nothing"),
        (["recipes", "nothing"], "nothing"),
        (["data", "verify"], "verify"),
        (["data", "make-demo", "--output", "x", "--formats", "nothing"], "nothing"),
        (["detection", "train", "demo/nothing"], "nothing"),
        (["segmentation", "train", "demo/nothing"], "nothing"),
        (["segmentation", "demo", "no/run", "photo.jpg", "--output", "x"], "no/run"),
        (["convert", "no.pth", "--to", "mmdet", "--output", "x.pth"], "no.pth"),
        (["push", "nothing", "someone/name"], "nothing"),
        (["doctor", "--install", "nothing"], "nothing"),
    ],
)
def test_what_is_wrong_is_named(words, value, call_eva, fails, tmp_path):
    ended = call_eva("eva", *words)
    fails(ended, value)
    assert ended.code in (1, 2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        "segmentation evaluate out/run_god",
        "mmdetection evaluate out/run_god",
        "detection evaluate out/run_god",
        "video evaluate out/run_god --data out",
        "segmentation demo out/run_god out --output x",
        "detection demo out/run_god out --output x",
        "classification demo out/run_god out --output x",
        "clip evaluate --weights out/run_god --data out",
        "detection export --weights out/run_god --format onnx --output x.onnx",
        "pretrain train eva_debug_distill --student.init-checkpoint out/run_god",
    ],
)
def test_a_mistyped_run_folder_is_answered_with_what_is_close(
    words, call_eva, fails, demo, tmp_path
):
    (tmp_path / "out" / "run_good").mkdir(parents=True)
    more = ("--data.train", demo("folder"), "--data.val", "") if "pretrain" in words else ()
    fails(call_eva("eva", *words.split(), *more), "out/run_god", "out/run_good")


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        ("detection train coco/cascade_mask_rcnn_vitdet_eva_l_1280", DETECTOR),
        ("mmdetection train coco/cascade_mask_rcnn_eva_l_1280", "cascade_mask_rcnn_eva_debug"),
        ("segmentation train ade20k/upernet_eva_l_512_160k", "eva_debug"),
        ("segmentation evaluate ade20k/upernet_eva_l_512_160k eva_l_psz14.pt", "eva_debug"),
    ],
)
def test_missing_weights_and_an_output_that_cannot_be_are_known_at_once(
    words, recipe, measure, fails, tmp_path
):
    seconds, ended = measure(*words.split(), "--no-download")
    fails(ended, "eva_l_psz14.pt", recipe)
    assert seconds < 3
    (tmp_path / "file").write_text("")
    output = "train.output_dir=" if words.startswith("detection") else "--work-dir="
    weights = "train.init_checkpoint=" if words.startswith("detection") else "load_from=None"
    if "evaluate" not in words:
        words = f"{words} {weights} {output}{tmp_path}/file/run"
        seconds, ended = measure(*words.split())
        fails(ended, tmp_path / "file")
        assert seconds < 3


def test_weights_are_listed_found_and_never_fetched_where_that_is_off(call_eva, fails, tmp_path):
    listed = call_eva("eva", "weights", "list", code=0).out
    assert all(name in listed for name in ("eva_psz14.pt", "eva_coco_det.pth", "eva_lvis.pth"))
    (file,) = call_eva("eva", "weights", "get", "eva_debug", code=0).out.split()
    assert Path(file).stat().st_size > 1_000_000
    ended = call_eva("eva", "weights", "get", "eva_o365.pth", EVA_WEIGHTS=tmp_path)
    fails(ended, "eva_o365.pth", tmp_path)


def test_the_doctor_finds_nothing_broken_here(call_eva):
    assert call_eva("eva", "doctor", "--quick", code=0).names(
        "eva-toolkit", "detectron2", "mmdetection"
    )
    shown = call_eva("eva", "doctor", "--install", "detectron2", "--dry-run", code=0).out
    assert "pip install" in shown


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"set -o pipefail; {sys.executable} -m eva_command recipes | head -1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_the_gap_of_coco_and_lvis_is_a_table_of_two_results(finished, call_eva, tmp_path):
    results = finished("detection") / "results.json"
    words = ("--name", "mine", "--paper", "--coco", results, "--lvis", results)
    shown = call_eva("eva", "detection", "coco-lvis-gap", "table", *words, code=0)
    assert "| mine |" in shown.out
    shown = call_eva("eva", "detection", "coco-lvis-gap", "table", *words, "--json", code=0)
    assert json.loads(shown.out)[-1]["model"] == "mine"


def test_json_is_all_that_is_printed(call_eva):
    """Of the commands that other programs ask most; evaluations have it in their own promises."""
    listed = json.loads(call_eva("eva", "weights", "list", "--json", code=0).out)
    assert "eva_psz14.pt" in [one["name"] for one in listed]
    recipes = json.loads(call_eva("eva", "recipes", "video", "--json", code=0).out)
    assert "eva_debug_motion" in [one["name"] for one in recipes]
    found = json.loads(call_eva("eva", "doctor", "--quick", "--json", code=0).out)
    assert {one["state"] for one in found} <= {"ok", "missing", "broken", "note"}


@pytest.mark.slow
def test_the_quick_start_makes_data_trains_and_reports(run, read_page, tmp_path):
    words = ("detection", "--output", tmp_path / "out", "train.max_iter=2")
    run("eva", "quickstart", *words, folder=tmp_path, timeout=600)
    page = read_page(tmp_path / "out" / "report.html")
    assert page.images


def test_a_run_of_another_task_is_named(tmp_path, capsys):
    for name in ("config.yaml", "model_final.pth"):  # detectron2's
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match="1"):
        eva(["segmentation", "demo", str(tmp_path), str(tmp_path), "--output", str(tmp_path)])
    assert f"eva detection demo {tmp_path}" in capsys.readouterr().err
