"""`eva doctor`: versions, extras, pairs, imports, and how something missing is installed."""

import sys
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from eva_command import doctor
from eva_command.doctor import (
    Finding,
    check_imports,
    check_mmcv_operators,
    check_pairs,
    check_toolkit,
    examine,
    requirements_of,
)


def versions(**known):
    """Function: versions of these distributions, `_` for a hyphen; others are not installed."""
    by_name = {name.replace("_", "-"): version for name, version in known.items()}
    return by_name.get


def test_extras_are_followed():
    assert {one.name for one in requirements_of("")} >= {"torch", "numpy"}
    assert {one.name for one in requirements_of("clip")} >= {"open_clip_torch", "av", "deepspeed"}
    assert "torch" not in {one.name for one in requirements_of("clip")}
    assert set(doctor.extras()) >= {"detection", "segmentation", "video", "demo"}
    assert "dev" not in doctor.extras()


def test_what_is_needed_is_named_with_the_command():
    findings = {one.about: one for one in check_toolkit(versions(eva_toolkit="1", torch="2.0"))}
    assert findings["torch"].state == "broken"
    assert findings["torch"].fix.startswith("pip install 'torch")
    assert findings["numpy"].state == "broken"
    alone = check_toolkit(versions())[-1]
    assert (alone.state, alone.about) == ("note", "eva-toolkit")


def test_an_extra_is_complete_or_missing_or_broken():
    known = {one.name: "999" for extra in doctor.extras() for one in requirements_of(extra)}
    known |= {"opencv-python": "4.12", "av": "18.0"}  # which "demo" bounds
    found = {one.about: one for one in examine(quick=True, version=known.get)}
    assert found["demo"] == Finding("ok", "demo", "complete")
    assert found["segmentation"].state == "broken"  # it pins versions
    known.pop("scikit-learn")
    found = {one.about: one for one in examine(quick=True, version=known.get)}
    assert found["demo"].state == "missing"
    assert found["demo"].text == "lacks scikit-learn"
    assert found["demo"].fix == "pip install 'eva-toolkit[demo]'"


@pytest.mark.parametrize(
    ("known", "state", "text"),
    [
        ({"onedl_mmengine": "0.10.12"}, None, ""),
        ({"onedl_mmengine": "0.10.12", "mmengine": "0.10.7"}, "broken", "own the same files"),
        ({"onedl_mmsegmentation": "1", "mmsegmentation": "1"}, "broken", "own the same files"),
        ({"mmcv_lite": "2"}, "note", "in place of onedl-mmcv"),
        ({"opencv_python": "4.12", "opencv_python_headless": "4.12"}, None, ""),
        ({"opencv_python": "4.12", "opencv_python_headless": "4.13"}, "broken", "and differ"),
    ],
)
def test_pairs_that_own_the_same_files(known, state, text):
    found = check_pairs(versions(**known))
    assert [one.state for one in found] == ([] if state is None else [state])
    assert all(text in one.text and one.fix.startswith("pip uninstall") for one in found)


def test_detectron2_has_two_distributions():
    def state(**known):
        found = examine(quick=True, version=versions(**known))
        return next(one.state for one in found if one.about == "detectron2")

    assert state(sal_detectron2="0.7.2+py3") == "ok"
    assert state() == "missing"
    assert state(sal_detectron2="1", detectron2="2") == "broken"


def test_operators_of_mmcv_are_missing_installed_or_compiled(tmp_path):
    assert check_mmcv_operators([tmp_path]) == [], "mmcv is not installed"
    (tmp_path / "__init__.py").write_text("")
    (missing,) = check_mmcv_operators([tmp_path])
    assert (missing.state, missing.fix) == ("missing", "eva doctor --install mmcv-operators")
    (tmp_path / "_ext.py").write_text("")
    (installed,) = check_mmcv_operators([tmp_path])
    assert (installed.state, "eva-mmcv-operators" in installed.text) == ("ok", True)
    (tmp_path / f"_ext{EXTENSION_SUFFIXES[0]}").write_text("")
    (compiled,) = check_mmcv_operators([tmp_path])
    assert (compiled.state, compiled.text) == ("ok", "compiled")
    assert len(check_mmcv_operators()) == 1, "here, by metadata alone"


def test_imports_are_tried_in_another_process(tmp_path, monkeypatch):
    """One fails, one crashes; what comes after a crash is not reported as broken."""
    (tmp_path / "fails.py").write_text("import no_such_library\n")
    (tmp_path / "crashes.py").write_text("import os; print('{}'); os.abort()\n")
    (tmp_path / "later.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor, "_OPTIONAL", {})
    found = check_imports(("not_there", "fails", "crashes", "later"))
    assert [(one.state, one.about) for one in found] == [("broken", "fails"), ("broken", "crashes")]
    assert "No module named 'no_such_library'" in found[0].text
    assert "crashed" in found[1].text


def test_the_gpu_is_looked_for():
    (found,) = [one for one in check_imports(("torch",)) if one.about == "GPU"]
    assert found.state in ("ok", "note")


def test_the_report_and_the_exit_code(monkeypatch, capsys):
    found = [
        Finding("ok", "Python", "3.11"),
        Finding("missing", "clip", "lacks x", "pip install x"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda *, quick: found)
    assert doctor.main(["--quick"]) == 0
    assert "-> pip install x" in capsys.readouterr().out
    found.append(Finding("broken", "torch", "1.0"))
    assert doctor.main([]) == 1


def test_this_environment_is_not_broken(capsys):
    assert doctor.main(["--quick"]) == 0
    out = capsys.readouterr().out
    assert "detectron2" in out
    assert "mmcv operators" in out
    assert "BROKEN" not in out


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["detectron2"], ["third_party/detectron2"]),
        (
            ["detectron2", "--source", "upstream"],
            ["uninstall --yes sal-detectron2", "--no-build-isolation git+https://github.com/"],
        ),
        (["detectron2", "--source", "./mine"], ["uninstall", "./mine"]),
        (["mmcv-operators"], ["third_party/mmcv_operators"]),
        (["segmentation"], ["'eva-toolkit[segmentation]'"]),
    ],
)
def test_what_would_be_installed(arguments, shown, capsys, monkeypatch):
    monkeypatch.setattr(
        doctor, "installed_version", {"sal-detectron2": "0.7.2+py3", "eva-toolkit": "1"}.get
    )
    assert doctor.main(["--install", *arguments, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(shown)
    for line, part in zip(lines, shown, strict=True):
        assert line.startswith(f"{sys.executable} -m pip ")
        assert part in line


def test_a_failing_command_is_the_end(monkeypatch, tmp_path):
    """The second command does not run; its exit code is that of the first."""
    written = tmp_path / "written"
    commands = [[sys.executable, "-c", "raise SystemExit(7)"]]
    commands.append([sys.executable, "-c", f"open({str(written)!r}, 'w')"])
    monkeypatch.setattr(doctor, "install_commands", lambda *_: commands)
    assert doctor.install("detectron2", "repack", dry_run=False) == 7
    assert not written.exists()


def test_unknown_part(capsys):
    assert doctor.main(["--install", "detectron3"]) == 2
    assert "detectron3" in capsys.readouterr().err
