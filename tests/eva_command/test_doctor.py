"""`eva doctor`: versions, extras, pairs, imports, and how something missing is installed."""

import pytest

from eva_command import doctor
from eva_command.doctor import Finding, check_imports, requirements_of


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
