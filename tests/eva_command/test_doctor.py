"""`eva doctor`: extras, versions, imports, and how something missing is installed."""

from importlib import metadata
from types import SimpleNamespace

from eva_command import doctor
from eva_command.doctor import check_imports
from eva_runs.extras import PACKAGES


def test_a_part_is_complete_or_missing(monkeypatch):
    every = {name for packages in PACKAGES.values() for name in packages}
    known = {name: ["pip"] for name in every - {"av", "torch"}}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: known)
    parts = {part.about: part for part in doctor.check_packages()}
    assert parts["clip"].state == "ok"
    assert parts["eva-toolkit"].state == "broken"
    assert "torch" in parts["eva-toolkit"].text
    assert parts["video"].state == "missing"
    assert (parts["video"].text, parts["video"].fix) == (
        "lacks av",
        "pip install 'eva-toolkit[video]'",
    )
    assert parts["detectron2"].fix == "eva doctor --install detectron2"


def test_a_version_that_does_not_fit_is_broken(monkeypatch):
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: done)  # pip finds nothing more
    versions = {"eva-toolkit": "1", "torch": "2.0", "gradio": "1.0", "pillow": "12.0"}
    monkeypatch.setattr(doctor, "installed_version", versions.get)
    conflicts = doctor.check_versions()
    assert {conflict.state for conflict in conflicts} == {"broken"}
    text = " ".join(conflict.text for conflict in conflicts)
    assert "torch is 2.0" in text
    assert "gradio is 1.0" in text
    assert "pillow" not in text


def test_bounds_of_a_part_that_is_not_installed_break_nothing(monkeypatch):
    """The app needs Pillow below 13, the rest does not."""
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: done)
    versions = {"eva-toolkit": "1", "torch": "2.13.0", "pillow": "13.0.0"}
    monkeypatch.setattr(doctor, "installed_version", versions.get)
    assert doctor.check_versions() == []
    versions["gradio"] = "6.31.0"
    (conflict,) = doctor.check_versions()
    assert "pillow is 13.0.0" in conflict.text


def test_bounds_of_a_part_that_lacks_a_package_are_compared(monkeypatch):
    """Such as detection without boundary AP; setuptools 82 lacks what detectron2 imports."""
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: done)
    versions, installed = {"faster-coco-eval": None, "setuptools": "83.0"}, doctor.installed_version
    monkeypatch.setattr(doctor, "installed_version", lambda n: versions.get(n, installed(n)))
    (conflict,) = doctor.check_versions()
    assert "setuptools is 83.0" in conflict.text


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
