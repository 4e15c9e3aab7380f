"""`eva doctor`: versions, extras, pairs, imports, and how something missing is installed."""

import sys
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from eva_command import doctor
from eva_command.doctor import Finding, check_imports, check_mmcv_operators, requirements_of


@pytest.fixture
def findings(monkeypatch):
    """Function: findings about distributions of these versions; others are not installed."""

    def check(**known):
        by_name = {name.replace("_", "-"): version for name, version in known.items()}
        monkeypatch.setattr(doctor, "installed_version", by_name.get)
        return {one.about: one for one in doctor.check_versions()}

    return check


def test_a_part_is_complete_or_missing_or_broken(findings):
    known = {one.name: "999" for extra in doctor.extras() for one in requirements_of(extra)}
    known |= {"opencv-python": "4.12", "av": "18.0", "eva-toolkit": "1", "torch": "2.0"}
    found = findings(**known)
    assert found["demo"] == Finding("ok", "demo", "complete")
    assert found["segmentation"].state == "broken"  # it pins versions
    assert found["eva-toolkit"].state == "broken"
    assert "torch 2.0" in found["eva-toolkit"].text
    found = findings(**{name: one for name, one in known.items() if name != "scikit-learn"})
    expected = "pip install 'eva-toolkit[demo]'"
    assert found["demo"] == Finding("missing", "demo", "lacks scikit-learn", expected)
    assert findings()["eva-toolkit"].state == "note"


@pytest.mark.parametrize(
    ("package", "owners", "state"),
    [
        ("mmengine", {"onedl_mmengine": "0.10.12", "mmengine": "0.10.7"}, "broken"),
        ("detectron2", {"sal_detectron2": "1", "detectron2": "2"}, "broken"),
        ("detectron2", {"sal_detectron2": "1"}, "ok"),
        ("cv2", {"opencv_python": "4.12", "opencv_python_headless": "4.13"}, "broken"),
        ("cv2", {"opencv_python": "4.12", "opencv_python_headless": "4.12"}, None),
        ("mmcv", {"onedl_mmcv": "2", "eva_mmcv_operators": "1"}, None),
    ],
)
def test_distributions_that_own_the_same_files(findings, monkeypatch, package, owners, state):
    names = {package: [name.replace("_", "-") for name in owners]}
    monkeypatch.setattr(doctor.metadata, "packages_distributions", lambda: names)
    found = findings(**owners).get(package)
    assert (found and found.state) == state


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


def test_imports_are_tried_in_another_process(tmp_path, monkeypatch):
    """One fails, one crashes; what comes after a crash is tried, too."""
    (tmp_path / "torch.py").write_text(
        "class cuda: device_count, get_device_name = int, str\nclass version: cuda = None"
    )
    (tmp_path / "fails.py").write_text("import no_such_library\n")
    (tmp_path / "crashes.py").write_text("import os; os.abort()\n")
    (tmp_path / "later.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = check_imports(("not_there", "fails", "crashes", "later"))
    assert [(one.state, one.about) for one in found] == [("broken", "fails"), ("broken", "crashes")]
    assert "No module named 'no_such_library'" in found[0].text
    (gpu,) = check_imports(("torch",))
    assert (gpu.state, gpu.about) == ("note", "GPU"), "there is none"


def test_what_a_package_prints_at_its_import_is_no_gpu(tmp_path, monkeypatch):
    (tmp_path / "talkative.py").write_text("print('[WARNING] Setting accelerator to CPU.')\n")
    (tmp_path / "torch.py").write_text(
        "import talkative\n"
        "class cuda: device_count, get_device_name = int, str\nclass version: cuda = None"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = check_imports(("torch", "talkative"))
    assert (found.state, found.text) == ("note", "CUDA None: none")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["detectron2"], ["third_party/detectron2"]),
        (["detectron2", "--source", "upstream"],
         ["uninstall --yes sal-detectron2", "--no-build-isolation git+https://github.com/"]),
        (["mmcv-operators"], ["third_party/mmcv_operators"]),
        (["segmentation"], ["'eva-toolkit[segmentation]'"]),
    ],
)  # fmt: skip
def test_what_would_be_installed(arguments, shown, capsys, monkeypatch):
    known = {"sal-detectron2": "0.7.2+py3", "eva-toolkit": "1"}
    monkeypatch.setattr(doctor, "installed_version", known.get)
    assert doctor.main(["--install", *arguments, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(shown)
    for line, part in zip(lines, shown, strict=True):
        assert line.startswith(f"{sys.executable} -m pip ")
        assert part in line
