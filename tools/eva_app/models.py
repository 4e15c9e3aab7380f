"""The models of the app: what was named on the command line, loaded when it is first asked."""

import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api

from eva_app.command import Source
from eva_runs.record import read_threshold

_ONE_CALL: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
_KEPT = 8  # results, of which each slider would ask again
_KINDS: Mapping[str, tuple[str, str]] = {  # task -> module and class, where they are not the rule
    "clip": ("eva_contrastive.inference.features", "ClipFeatures"),
    "video": ("eva_video.inference.predictor", "VideoPredictor"),
}


class Models:
    """Predictors by the names of their weights; one call at a time asks them.

    `folder` is the one that was named: of runs, or of an index. `cached(function, *values)` calls
    a function unless it was called so lately.
    """

    def __init__(
        self, sources: Sequence[Source], *, folder: Path | None = None, device: str | None = None
    ) -> None:
        self.folder = folder
        self.cached: Any = functools.lru_cache(_KEPT)(lambda function, *values: function(*values))
        self.libraries: dict[Any, Any] = {}  # features of the folder, by the CLIP
        self._sources = {source.weights: source for source in sources}
        self._device = {"device": device} if device else {}  # else the predictor's own
        self._loaded: dict[tuple[str, bool], Any] = {}
        for source in sources:
            _predictor(source.task)  # Python 3.11 fails at times to import frameworks in a thread

    def names(self, *tasks: str) -> list[str]:
        """List the models of some tasks."""
        return [name for name, source in self._sources.items() if source.task in tasks]

    def source(self, name: str) -> Source:
        """Return what a model is loaded of; a ValueError for a name that was not given."""
        if name not in self._sources:
            raise ValueError(f"there is no model {name!r}; there are: {', '.join(self._sources)}")
        return self._sources[name]

    def task(self, name: str) -> str:
        """Return the task of a model."""
        return self.source(name).task

    def choose(self, names: Sequence[str], label: str = "Model", at: int = 0) -> gr.Dropdown:
        """Make the choice of a model, by the name of its folder or file where that is enough."""
        short = [Path(name).name for name in names]
        shown = [
            one if short.count(one) == 1 else name for one, name in zip(short, names, strict=True)
        ]
        choices = [*zip(shown, names, strict=True)]
        return gr.Dropdown(choices, value=names[at], label=label, visible=len(names) > 1)

    def timed(self, function: Callable[..., Any], *values: Any) -> tuple[Any, float]:
        """Call a function unless it was called so lately; its result, and seconds it took."""
        return self.cached(_time, function, *values)

    def threshold(self, name: str) -> float:
        """Return the least score of a detector's objects that was best in its run."""
        return read_threshold(self._sources[name].weights)

    def load(self, name: str, *, tiles: bool = False) -> Any:
        """Return the predictor of a model; one that looks at `tiles` has the same weights."""
        task, weights, config = self.source(name)
        build = _predictor(task)
        if (name, tiles) not in self._loaded:
            if config is None:
                predictor = build.from_weights(weights, **self._device)
            else:
                options = {**self._device, "slice": "auto" if tiles else None}
                predictor = build.from_config(config, weights=weights, **options)
            predictor.require_rgb("eva app")
            if tiles:
                whole = self.load(name).model.parameters()
                for parameter, other in zip(whole, predictor.model.parameters(), strict=True):
                    other.data = parameter.data
            self._loaded[name, tiles] = predictor
        return self._loaded[name, tiles]

    def answer(
        self,
        name: str,
        function: Callable[..., Any],
        inputs: Sequence[Any],
        outputs: Any,
        on: Sequence[Any] = (),
    ) -> None:
        """Let a function of the models and inputs answer events, in the one queue of all calls.

        They are by default other files, the first input, and what a visitor changes in the others;
        without inputs an opened page.
        """
        on = on or [
            getattr(component, "input" if at else "change") for at, component in enumerate(inputs)
        ]
        gr.on(
            on or None,
            _explain_errors()(functools.partial(function, self)),
            inputs,
            outputs,
            api_name=name,
            api_visibility="undocumented",
            trigger_mode="always_last",
            **_ONE_CALL,
        )

    @staticmethod
    def offer(function: Callable[..., Any]) -> None:
        """Let programs call a function, and agents by `--mcp`; its docstring describes it."""
        api(_explain_errors()(function), **_ONE_CALL)


def _time(function: Callable[..., Any], *values: Any) -> tuple[Any, float]:
    begun = time.perf_counter()
    return function(*values), time.perf_counter() - begun


def _predictor(task: str) -> Any:
    module, name = _KINDS.get(task, (f"eva_{task}.inference.predictor", "Predictor"))
    return getattr(import_module(module), name)


@contextlib.contextmanager
def _explain_errors() -> Iterator[None]:
    """Make a mistake of the visitor one sentence on the page."""
    try:
        yield
    except (OSError, ValueError, TypeError, FloatingPointError) as error:
        # of an upload its name alone, as the visitor knows it
        message = re.sub(rf"{re.escape(gr.utils.get_upload_folder())}/\w+/", "", str(error))
        raise gr.Error(message, print_exception=False) from error
