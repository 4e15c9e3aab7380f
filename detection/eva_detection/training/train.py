"""Training and evaluation of a detector from a LazyConfig: resolve, build, run."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from pprint import pformat
from typing import Any

import torch
from detectron2.engine import hooks
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import CommonMetricPrinter, TensorboardXWriter
from omegaconf import DictConfig, OmegaConf

from eva_backbone import no_init_weights
from eva_backbone.checkpoints.run_folders import describe_weights
from eva_data.detection.resolved import FOLDER as OWN_DATA, TOLD
from eva_detection.building import (
    build,
    build_model,
    build_optimizer,
    load_initial_weights,
    training_precision,
    wrap_distributed,
)
from eva_detection.command_line import TrainingRequest
from eva_detection.config.files import literal, save_config
from eva_detection.config.settings import images_per_step, load_config
from eva_detection.data.loading import build_training_loader, choose_seed, read_training_set
from eva_detection.evaluation.report import (
    demo_command,
    first_samples,
    make_report,
    read_results,
    score_table,
)
from eva_detection.evaluation.test_set import EvaluationSet
from eva_detection.inference.predictor import find_categories
from eva_detection.inference.test_time_augmentation import with_slicing, with_test_time_augmentation
from eva_detection.training.checkpoint import RunCheckpointer
from eva_detection.training.hooks import Evaluation, MetricsWriter, StopOnSignal, progress_bar
from eva_detection.training.output_folder import METRICS, RESULTS, SAVED, TrainingFolder
from eva_detection.training.trainer import DetectionTrainer
from eva_report.first_batch import watch_first_batch
from eva_report.page import close_run
from eva_report.terminal import logging_to, opening_lines, show
from eva_runs.checkpoint_store import find_newest
from eva_runs.commands import Result, program_name
from eva_runs.errors import exit_on_error
from eva_runs.interruption import StopSignal
from eva_runs.output_folder import require_room_for_checkpoint, reserve_folder, watch
from eva_runs.precision import lower_backbone, require_device, resolve, warn_of_slow_bf16
from eva_runs.processes import destroy_group, run_on_all_ranks, run_on_main_rank
from eva_runs.recipes import find_recipe, recipe_name
from eva_runs.record import Kind, software
from eva_runs.run_folder import MESSAGES

logger = logging.getLogger(__name__)

# what a run makes before it begins, and own data that were not in COCO's format
_TRACES = (SAVED, "log.txt", "log.txt.rank*", OWN_DATA)


class DetectionRun:
    """A training or an evaluation: what is asked for is resolved, built and run.

    The config is one of detectron2's `lazyconfig_train_net.py`; besides, `train.amp.precision`
    ("fp16" or "bf16"), `train.accumulate` (batches of an optimizer step), `train.max_bad_images`
    and `train.progress_bar` are read.

    Attributes:
        request: What is asked for.
        recipe: Name of the recipe.
        cfg: The config.
        output: The output folder.
        test_set: What is evaluated on; it has the own data.
        notes: Messages for the log.
    """

    cfg: DictConfig
    test_set: EvaluationSet
    output: TrainingFolder

    def __init__(self, request: TrainingRequest) -> None:
        self.request, self.began = request, time.monotonic()
        self.evaluates, self.resumes = request.evaluates, request.resumes
        self.kind: Kind = "evaluation" if self.evaluates else "training"
        self.recipe = recipe_name("detection", request.recipe)
        self.notes: list[str] = []
        self.stop = StopSignal()
        self.log: Path | None = None
        self._begun: Callable[[], bool] = lambda: False

    def run(self) -> int:
        """Run this process to its end; return the exit code, with the scores."""

        def log() -> Path | None:  # a run that is refused leaves none
            return self.log if self.log and self.log.exists() else None

        def saved() -> str:
            return self.output.describe_saved() if self.log else "nothing is saved"

        described, name = None if self.evaluates else saved, program_name("train_net.py")
        try:
            with exit_on_error(name, log=log, begun=lambda: self._begun(), saved=described):
                self.resolve()
                return self.perform()
        finally:
            destroy_group()

    def resolve(self) -> None:
        """Load the config, with own data."""
        self.cfg, data, self.notes = load_config(self.request)
        require_device(self.cfg.train.device)
        self.output = TrainingFolder(Path(self.cfg.train.output_dir))
        self.test_set = EvaluationSet(self.cfg, data)

    def perform(self) -> int:
        """Reserve the output folder, train or evaluate, and close with a report."""
        cfg, folder, rank = self.cfg, self.output.path, comm.get_rank()
        begins = RESULTS if self.evaluates else METRICS  # file that is written then
        self._begun = watch(folder / begins)
        reserved = reserve_folder(
            folder,
            self.kind,
            traces=_TRACES,
            begun=begins,
            settings={"--resume": self.request.resume, **OmegaConf.to_container(cfg)},
            check=lambda: self.output.continues(resume=self.request.resume),
        )
        log = folder / (f"log.txt.rank{rank}" if rank else "log.txt")
        with reserved, logging_to(log) as self.log:
            self._prepare()
            finished = self.resumes and run_on_main_rank(
                lambda: self.output.is_finished(cfg.train.max_iter)
            )
            if not finished:
                show(*self._opening())
                logger.info("%s", "\n".join(self.notes))
                if self.evaluates:
                    self.evaluate()
                else:
                    self.train()
            if comm.is_main_process():  # the other processes do not wait for it
                self._close(finished=finished)
        return Result(folder / RESULTS)

    def train(self) -> None:
        """Train to the end, with evaluations in between, without test-time augmentation.

        Raises:
            SystemExit: With `EXIT_RUN_AGAIN`, after a signal or Ctrl-C and a checkpoint.
            FloatingPointError: If a loss or a gradient is not finite.
            TooManyUnreadableError: If more images than `train.max_bad_images` cannot be read.
            ValueError: If a part, the checkpoint or the files of the dataset cannot be used.
            OtherProcessError: If another process has failed.
        """
        with self.stop.listen():
            trainer = self.build()
            run_on_main_rank(self._save_config)  # when nothing is refused any more
            trainer.train(trainer.iter + 1, self.cfg.train.max_iter)

    def build(self) -> DetectionTrainer:
        """Build everything that a training needs; the same call on all processes."""
        cfg, folder, options = self.cfg, self.output.path, self.cfg.train
        checkpoints = self.output.checkpoints if self.resumes else []
        last = run_on_main_rank(lambda: find_newest(checkpoints))
        model, adapters = run_on_all_ranks(lambda: build_model(cfg, load=last is None))
        require_room_for_checkpoint(folder, model)
        optimizer, multiplier = run_on_all_ranks(lambda: build_optimizer(cfg, model))
        model = wrap_distributed(cfg, model)
        checkpointer = RunCheckpointer(model, str(folder))
        checkpointer.adapters = adapters
        saved: dict[str, Any] = {"trainer": {}, "iteration": -1, "logs": {}}  # of a run that begins
        if last is not None:
            saved = run_on_all_ranks(lambda: checkpointer.read(last, optimizer, options.max_iter))
        elif self.resumes:
            show(MESSAGES.nothing_to_resume(folder))
        stream, steps = saved["trainer"].get("stream") or {}, saved["iteration"] + 1
        seed = choose_seed(cfg, stream)
        dataset = read_training_set(self.test_set, seed)
        loader = run_on_all_ranks(
            lambda: build_training_loader(cfg, dataset, stream, seed=seed, steps=steps)
        )
        run_on_all_ranks(self.test_set.check)
        if last is not None:
            show(MESSAGES.resumed(steps, options.max_iter, last))
        warn_of_slow_bf16(training_precision(options), torch.device(options.device))
        trainer = DetectionTrainer(
            model,
            loader,
            optimizer,
            precision=training_precision(options),
            accumulate=getattr(loader, "accumulate", options.get("accumulate", 1)),
            stop=self.stop,
            max_bad_images=options.get("max_bad_images", 10),
            seed=seed,
        )
        run_on_main_rank(lambda: self.output.cut_logs(steps, saved, last=options.max_iter))
        self._register_hooks(trainer, checkpointer, multiplier, steps)
        checkpointer.add_checkpointable("trainer", trainer)
        if last is not None:
            run_on_all_ranks(lambda: checkpointer.restore(saved))
        return trainer

    def _register_hooks(
        self, trainer: DetectionTrainer, checkpointer: RunCheckpointer, multiplier: Any, steps: int
    ) -> None:
        options, folder = self.cfg.train, self.output.path
        period, saving = options.log_period, dict(options.checkpointer)
        checkpointer.keep = saving.pop("max_to_keep", None)

        def score() -> dict[str, Any]:
            checkpointer.store.writer.wait()  # data workers are forked
            results = self.test_set.score(trainer.model, augment=False)
            comm.all_gather(None)  # by gloo: if the main process fails as it scores, all end
            return results

        trainer.register_hooks([hooks.IterationTimer(), hooks.LRScheduler(scheduler=multiplier)])
        metrics = MetricsWriter(folder / METRICS, period) if comm.is_main_process() else None
        if comm.is_main_process():
            if options.get("progress_bar", True) and steps < options.max_iter:
                trainer.register_hooks([progress_bar(steps, options.max_iter)])
            writer = hooks.PeriodicWriter([metrics], period)  # before a checkpoint, which notes it
            trainer.register_hooks([writer, hooks.PeriodicCheckpointer(checkpointer, **saving)])
        stopping = StopOnSignal(checkpointer, self.stop)
        evaluation = Evaluation(options.eval_period, score, self.output, metrics)
        trainer.register_hooks([stopping, evaluation])
        if comm.is_main_process():
            writers = [CommonMetricPrinter(options.max_iter), TensorboardXWriter(str(folder))]
            trainer.register_hooks([hooks.PeriodicWriter(writers, period)])
            if not steps:
                watch_first_batch(trainer.model, folder, partial(first_samples, self.cfg))

    def evaluate(self) -> None:
        """Score the weights of the config, with the test-time augmentation of its recipe."""
        cfg = self.cfg
        with no_init_weights():
            model = run_on_all_ranks(lambda: build(cfg.model, "model"))
        with_slicing(cfg, with_test_time_augmentation(cfg, model))  # before weights are read
        run_on_all_ranks(self.test_set.check)
        weights = cfg.train.init_checkpoint
        run_on_all_ranks(lambda: load_initial_weights(model, weights, complete=True))
        device = torch.device(cfg.train.device)
        asked: Any = self.request.precision or "fp32"
        cfg.train.precision = precision = resolve(asked, device)  # for the report
        lower_backbone(model.to(device).backbone, precision, device)
        self.test_set.score(model)

    def _prepare(self) -> None:
        """Do what detectron2's `default_setup` does, but for the config of a training."""
        cfg, rank, data = self.cfg, comm.get_rank(), self.test_set.data
        if data is not None:
            saved = self.output.newest if self.resumes else None
            run_on_main_rank(lambda: data.write(continues=saved is not None))
        logger.info("Process %d of %d. %s", rank, comm.get_world_size(), software())
        logger.info("%s\nThe config:\n%s", self.request, pformat(OmegaConf.to_container(cfg)))
        if "own_data" not in cfg:  # whose names are of a file elsewhere
            cfg.class_names = [[key, literal(name)] for key, name in find_categories(cfg)]
        if self.evaluates and self.output.newest is None:
            run_on_main_rank(self._save_config)
        seed = cfg.train.get("seed", -1)
        seed_all_rng(None if seed is None or seed < 0 else seed + rank)
        if not self.evaluates:
            torch.backends.cudnn.benchmark = bool(cfg.train.get("cudnn_benchmark", False))

    def _save_config(self) -> None:
        recipe = find_recipe("detection", self.request.recipe)
        save_config(self.cfg, self.output.path / SAVED, source=recipe)

    def _opening(self) -> list[str]:
        """Format the opening lines; those of the data follow when they are read."""
        cfg, processes = self.cfg, self.request.processes
        devices = f"{processes} x {cfg.train.device}" if processes > 1 else str(cfg.train.device)
        task, weights = f"evaluate {self.recipe} on {devices}", cfg.train.init_checkpoint
        if not self.evaluates:
            images = images_per_step(cfg)
            step = f" of {images} images" if images else ""
            task = f"train {self.recipe}: {cfg.train.max_iter:,} iterations{step} on {devices}"
            weights = (self.resumes and self.output.newest) or weights
        told = [note for note in self.notes if not note.startswith(TOLD)]
        weights, output = describe_weights(str(weights)), self.output.path
        return opening_lines(task=task, weights=weights, data=(), output=output, more=told)

    def _close(self, *, finished: bool) -> None:
        """Write the report and say what came out."""
        cfg, folder, weights = self.cfg, self.output.path, self.output.weights
        if finished:
            show(MESSAGES.finished(folder, cfg.train.max_iter))
        options = dict(kind=self.kind, processes=comm.get_world_size(), recipe=self.recipe)
        source = cfg.train.init_checkpoint if self.evaluates else weights
        close_run(
            folder,
            self.kind,
            lambda: make_report(cfg, self.test_set, **options),
            began=None if finished else self.began,
            scores=score_table(read_results(folder)),
            weights=weights if not self.evaluates and weights.is_file() else None,
            next_command=lambda: demo_command(cfg, str(source)),
        )
