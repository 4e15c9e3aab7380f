"""Validation during a training run: retrieval on pairs, zero-shot accuracy on class folders.

Shapes: N images, D values of a feature.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor, nn

from eva_contrastive.config import OF_CLASSES, OF_PAIRS
from eva_contrastive.evaluation.prompts import find_templates, names_of
from eva_contrastive.evaluation.retrieval import EncodedPairs, encode_pairs, retrieval_scores
from eva_contrastive.evaluation.zero_shot import ZeroShotClassifier, class_features
from eva_contrastive.model.eva_clip import EvaClip
from eva_contrastive.reports import retrieval_examples
from eva_data.captions.sources import CaptionedImages
from eva_data.transforms import ImageTransform
from eva_engine.config import RunConfig
from eva_engine.evaluation.class_report import BestSections, class_sections
from eva_engine.evaluation.counting import LEFT_OUT, OneLabel, ShownSamples, count
from eva_report.content import Section
from eva_runs.interruption import StopSignal
from eva_runs.step_guard import BadSamples


class ContrastiveValidation:
    """Evaluates a run on pairs, on classes, or on both.

    Images that cannot be read are left out, at most `run.max_bad_samples` of each; the log names
    them.

    Args:
        run: Batch size and accumulation, on whose product `loss` depends, workers and
            `max_bad_samples`.
        transform: Transform of an image of `pairs` to the model's input.
        pairs: Images with captions; `loss` takes the first of an image's, the retrieval all.
        classes: Images with labels, whose folders' names are the classes, see `prompts.names_of`.
        templates: Sentences for them, see `prompts.find_templates`.

    Attributes:
        results: Names of the results.
        sections: Makes the sections of a report on the best evaluation by `run.best_metric`, or
            else by the first result that is not the loss.
    """

    def __init__(
        self,
        run: RunConfig,
        transform: ImageTransform,
        *,
        pairs: CaptionedImages | None = None,
        classes: ShownSamples | None = None,
        templates: Sequence[str] = ("a photo of a {}.",),
    ) -> None:
        self._run, self.pairs, self._transform = run, pairs, transform
        self.classes, self._templates = classes, find_templates(templates)
        self._names = [] if classes is None else names_of(classes.classes)
        self._left_out = BadSamples(run.max_bad_samples, done=LEFT_OUT)
        self.results = (
            *(OF_PAIRS if pairs is not None else ()),
            *(OF_CLASSES if classes is not None else ()),
        )
        metric = run.best_metric or next(name for name in self.results if name != "loss")
        self.sections = BestSections(metric)

    def __call__(self, model: nn.Module, stop: StopSignal | None = None) -> dict[str, float]:
        """Compute `results`, accuracies and shares in percent; called on all processes.

        Args:
            model: `EvaClip` in evaluation mode, or DeepSpeed's engine around it.
            stop: Signal of the run, which ends the evaluation.

        Raises:
            TooManyUnreadableError: If more images than allowed cannot be read.
        """
        clip: Any = getattr(model, "module", model)
        results: dict[str, float] = {}
        sections: list[Callable[[], list[Section]]] = []
        options: dict[str, Any] = {
            "batch_size": self._run.batch_size,
            "workers": self._run.workers,
            "stop": stop,
        }
        if self.pairs is not None:
            encoded = encode_pairs(
                clip, self.pairs, self._transform, max_bad_samples=len(self.pairs), **options
            )
            self._left_out.add(dict.fromkeys(encoded.left_out, ""))
            shares = retrieval_scores(encoded.images, encoded.texts, encoded.owners)
            contrasted = self._run.batch_size * self._run.accumulate
            shares["loss"] = _contrastive_loss(clip, encoded, batch_size=contrasted)
            results |= {name: shares[name] for name in OF_PAIRS}
            sections.append(partial(retrieval_examples, encoded, self.pairs))
        if self.classes is not None:
            weights = class_features(clip, self._names, self._templates)
            counted = count(
                ZeroShotClassifier(clip, weights),
                self.classes,
                {"val": OneLabel()},
                device=weights.device,
                details=True,
                max_bad_samples=len(self.classes),  # which `BadSamples` limits
                **options,
            )
            self._left_out.add(dict.fromkeys(counted.left_out, ""))
            results |= {name: getattr(counted.scores["val"], name) for name in OF_CLASSES}
            sections.append(partial(class_sections, self.classes, counted, classes=self._names))
        self.sections.offer(results, lambda: [section for make in sections for section in make()])
        return results


@torch.inference_mode()
def _contrastive_loss(model: EvaClip, encoded: EncodedPairs, *, batch_size: int) -> float:
    """Compute the mean loss of images and first captions, in the same batches on all processes."""
    bias = model.text.logit_bias
    measure = ClipLoss() if bias is None else SigLipLoss()
    bias_argument = {} if bias is None else {"logit_bias": bias.float()}
    scale = model.text.logit_scale.float().exp()
    image_indexes = torch.arange(len(encoded.images), device=encoded.owners.device)
    first_texts = torch.searchsorted(encoded.owners, image_indexes)
    texts = encoded.texts[first_texts]
    total = 0.0
    for images, words in zip(
        encoded.images.split(batch_size), texts.split(batch_size), strict=True
    ):
        loss: Tensor = measure(images, words, logit_scale=scale, **bias_argument)
        total += loss.item() * len(images)
    return total / len(encoded.images)
