"""The models of the app: what was named on the command line, loaded when it is first asked."""

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import gradio as gr
from gradio.events import api

R = TypeVar("R")
_ONE_CALL: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
_KEPT = 32  # results, of which each slider would ask again
_KINDS: Mapping[str, tuple[str, str]] = {  # task -> module and class, where they are not the rule
    "clip": ("eva_contrastive.inference.features", "ClipFeatures"),
    "video": ("eva_video.inference.predictor", "VideoPredictor"),
}


class Source(NamedTuple):
    """A model to load: its task, its weights, and the config of a detector or segmentor."""

    task: str
    weights: str
    config: Path | None = None


class Models:
    """Predictors by the names of their weights; one call at a time asks them.

    `folder` is the one that was named: of runs, or of an index. `cached(function, *values)` calls
    a function unless it was called so lately. Files of the list `served` may be fetched.
    """

    def __init__(
        self, sources: Sequence[Source], *, folder: Path | None = None, device: str | None = None
    ) -> None:
        self.folder, self.served = folder, list[str]()
        self.cached: Any = functools.lru_cache(_KEPT)(lambda function, *values: function(*values))
        self._sources = {source.weights: source for source in sources}
        self._device = {"device": device} if device else {}  # else the predictor's own
        self._loaded: dict[tuple[str, bool], Any] = {}
        for source in sources:
            _predictor(source.task)  # Python 3.11 fails at times to import frameworks in a thread

    def names(self, *tasks: str) -> list[str]:
        """List the models of some tasks."""
        return [name for name, source in self._sources.items() if source.task in tasks]

    def task(self, name: str) -> str:
        """Return the task of a model; a ValueError for a name that was not given."""
        if name not in self._sources:
            raise ValueError(f"there is no model {name!r}; there are: {', '.join(self._sources)}")
        return self._sources[name].task

    def load(self, name: str, *, tiles: bool = False) -> Any:
        """Return the predictor of a model; one that looks at `tiles` has the same weights."""
        task, weights, config = self.task(name), *self._sources[name][1:]
        if (name, tiles) not in self._loaded:
            build = _predictor(task)
            if config is None:
                found = build.from_weights(weights, **self._device)
            else:
                options = {**self._device, "slice": "auto" if tiles else None}
                found = build.from_config(config, weights=weights, **options)
            if tiles:
                whole = self.load(name).model.parameters()
                for one, other in zip(whole, found.model.parameters(), strict=True):
                    other.data = one.data
            self._loaded[name, tiles] = found
        return self._loaded[name, tiles]

    def answer(
        self, function: Callable[..., Any], on: Sequence[Any], inputs: Any, outputs: Any, name: str
    ) -> None:
        """Let a function answer events, or an opened page, in the one queue of all calls."""
        gr.on(
            [*on] or None, _explained(function), inputs, outputs, api_name=name,
            api_visibility="undocumented", trigger_mode="always_last", **_ONE_CALL,
        )  # fmt: skip

    def tool(self, function: Callable[..., Any]) -> None:
        """Let programs call a function, and agents by `--mcp`; its docstring describes it."""
        api(_explained(function), api_name=function.__name__, **_ONE_CALL)


def _predictor(task: str) -> Any:
    module, name = _KINDS.get(task, (f"eva_{task}.inference.predictor", "Predictor"))
    return getattr(import_module(module), name)


def show_images(label: str, columns: int) -> gr.Gallery:
    """Make the place of images with captions."""
    return gr.Gallery(label=label, columns=columns, object_fit="contain", height="auto")


def _explained(function: Callable[..., R]) -> Callable[..., R]:
    """Make a mistake of the visitor one sentence on the page."""

    @functools.wraps(function)
    def call(*values: Any, **named: Any) -> R:
        try:
            return function(*values, **named)
        except (OSError, ValueError, FloatingPointError) as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call
