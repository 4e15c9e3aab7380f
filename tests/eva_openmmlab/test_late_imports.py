"""Imports that a module swallowed are made up for, and nothing else in it changes."""

import importlib
import sys
from types import ModuleType

import pytest

from eva_openmmlab.late_imports import make_up_for

SOURCE = """
try:
    from mmcv.ops import point_sample as sampled, unheard_of
except ImportError:
    def sampled(*_):
        raise RuntimeError("install mmcv")
    unheard_of = None
try:
    from mmdet.models.dense_heads import Mask2FormerHead as Base
except ModuleNotFoundError:
    from mmengine.model import BaseModule as Base
try:
    from nothing_like_it import other
except ImportError:
    other = None
from mmengine.model import BaseModule

class Head(Base):
    pass

class Plain(BaseModule):
    pass
"""


@pytest.fixture
def late(tmp_path, monkeypatch):
    """A module of mmseg that was imported while mmcv's operations could not be."""
    file = tmp_path / "late_head.py"
    file.write_text(SOURCE)
    module = ModuleType("mmseg.late_head")
    module.__file__ = str(file)
    names = ("mmcv.ops", "mmdet.models.dense_heads")
    with monkeypatch.context() as patch:
        for name in names:
            importlib.import_module(name)
            patch.setitem(sys.modules, name, None)  # its import fails
        exec(compile(SOURCE, file, "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_names_and_base_classes_are_made_up_for(late):
    from mmcv.ops import point_sample
    from mmdet.models.dense_heads import Mask2FormerHead
    from mmengine.model import BaseModule

    head = late.Head
    assert Mask2FormerHead not in head.__mro__
    with pytest.raises(RuntimeError, match="install mmcv"):
        late.sampled()
    changed = make_up_for()
    assert {"mmseg.late_head.sampled", "mmseg.late_head.Base"} <= set(changed)
    assert late.sampled is point_sample
    assert late.Head is head, "who holds the class has it complete"
    assert Mask2FormerHead in head.__mro__
    assert late.Plain.__bases__ == (BaseModule,)
    assert late.unheard_of is late.other is None
    assert make_up_for() == []
