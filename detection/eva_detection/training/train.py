"""Training and evaluation of a detector from a LazyConfig."""

import contextlib
import copy
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter, TensorboardXWriter
from omegaconf import DictConfig, OmegaConf
from torch import nn

from eva_backbone import no_init_weights
from eva_data.detection.resolve import FOLDER as OWN_DATA
from eva_data.detection.resolve import TOLD, DetectionData
from eva_detection.building import build, load_initial_weights
from eva_detection.command_line import Launch, TrainingRequest
from eva_detection.config.settings import check_schedule, load_config, lora_of, precision_of
from eva_detection.data.loading import (
    EvaluationSet,
    build_training_loader,
    choose_seed,
    read_training_set,
)
from eva_detection.evaluation.report import first_samples
from eva_detection.inference.test_time_augmentation import (
    with_slicing,
    with_test_time_augmentation,
)
from eva_detection.training.checkpoint import RunCheckpointer
from eva_detection.training.hooks import Evaluation, MetricsFile, StopOnSignal, TrainingProgress
from eva_detection.training.log import (
    close,
    opening,
    output_place,
    save_run_config,
    start_log,
)
from eva_detection.training.output_folder import (
    METRICS,
    RESULTS,
    candidates,
    check_unused,
    is_finished,
    last_checkpoint,
    logs_of,
    saved_progress,
)
from eva_detection.training.processes import Evaluations, start_processes
from eva_detection.training.trainer import DetectionTrainer
from eva_report.first_batch import watch_first_batch
from eva_report.page import write_results
from eva_report.terminal import show
from eva_runs.adapters import Adapters
from eva_runs.checkpoint_store import find_newest
from eva_runs.commands import Result, program_name
from eva_runs.errors import exit_on_error, stderr_from_main_process
from eva_runs.interruption import StopSignal
from eva_runs.output_folder import require_room_for_checkpoint, reserve_folder
from eva_runs.precision import lower_backbone, require_device, resolve, warn_of_slow_bf16
from eva_runs.processes import (
    destroy_group,
    deterministic_average_hook,
    run_on_all_ranks,
    run_on_main_rank,
)
from eva_runs.recipes import find_recipe

logger = logging.getLogger(__name__)

# what a run makes before it begins, and own data that were not in COCO's format
_TRACES = ("config.yaml", "log.txt", "log.txt.rank*", OWN_DATA)


def evaluate(test_set: EvaluationSet, model: nn.Module, *, augment: bool = True) -> dict[str, Any]:
    """Score a model, maybe wrapped for data parallelism, on the config's test set.

    `augment` uses test-time augmentation if the config has `test.aug`. The scores, also in
    `results.json`, are those of the main process; others, or no evaluator, give none.
    """
    if not test_set.is_scored:
        logger.warning("the config has no dataloader.evaluator: nothing is evaluated")
        return {}
    if augment:
        model = with_test_time_augmentation(test_set.cfg, model)
    model = with_slicing(test_set.cfg, model)
    loader = test_set.loader
    try:
        results = inference_on_dataset(model, loader, test_set.evaluator) or {}
    finally:
        loader.close()
    if results and comm.is_main_process():
        print_csv_format(results)
        write_results(Path(test_set.cfg.train.output_dir), results)
    return results


class Training:
    """A training, with evaluations in between and at the end, without test-time augmentation.

    The config is one of detectron2's `lazyconfig_train_net.py`; besides, `train.amp.precision`
    ("fp16" or "bf16"), `train.accumulate` (batches of an optimizer step), `train.max_bad_images`
    and `train.progress_bar` are read. `resume` continues from the last checkpoint, if there is one.
    `note` is called when all is built, and nothing refused.
    """

    def __init__(
        self,
        cfg: DictConfig,
        *,
        resume: bool,
        test_set: EvaluationSet | None = None,
        note: Callable[[], None] = lambda: None,
    ) -> None:
        self.note = note
        self.cfg, self.resume, self.test_set = cfg, resume, test_set or EvaluationSet(cfg)
        self.folder, self.stop = Path(cfg.train.output_dir), StopSignal()
        self.writers: list[EventWriter] = []  # of the main process

    def run(self) -> None:
        """Train to the end.

        Raises:
            SystemExit: With `EXIT_RUN_AGAIN`, after a signal or Ctrl-C and a checkpoint.
            FloatingPointError: If a loss or a gradient is not finite.
            TooManyUnreadableError: If more images than `train.max_bad_images` cannot be read.
            ValueError: If a part, the checkpoint or the files of the dataset cannot be used.
            OtherProcessError: If another process has failed.
        """
        try:
            with self.stop.listen():
                trainer = self.build()
                run_on_all_ranks(self.note)
                trainer.train(trainer.iter + 1, self.cfg.train.max_iter)
        finally:
            for writer in self.writers:
                with contextlib.suppress(OSError):  # of a full disk, which a write has met before
                    writer.close()

    def build(self) -> DetectionTrainer:
        """Build everything that a run needs; the same call on all processes."""
        cfg, folder, options = self.cfg, self.folder, self.cfg.train
        last = run_on_main_rank(lambda: find_newest(candidates(folder)) if self.resume else None)
        model, adapters = run_on_all_ranks(lambda: _build_model(cfg, load=last is None))
        require_room_for_checkpoint(folder, model)
        optimizer, multiplier = run_on_all_ranks(lambda: _build_optimizer(cfg, model))
        model = _wrap_distributed(cfg, model)
        checkpointer = RunCheckpointer(model, str(folder))
        checkpointer.adapters = adapters
        saved: dict[str, Any] = {}
        stream_position: dict[str, int] = {}
        steps = 0
        if last is not None:
            saved = run_on_all_ranks(lambda: checkpointer.read(optimizer, options.max_iter, last))
            stream_position, steps = saved["trainer"].get("stream") or {}, saved["iteration"] + 1
        seed = choose_seed(cfg, stream_position)
        dataset = read_training_set(self.test_set, seed)
        loader = run_on_all_ranks(
            lambda: build_training_loader(cfg, dataset, stream_position, seed=seed, steps=steps)
        )
        run_on_all_ranks(self.test_set.check)
        show(*output_place(cfg, resume=self.resume, done=steps))
        warn_of_slow_bf16(precision_of(options), torch.device(options.device))
        trainer = DetectionTrainer(
            model,
            loader,
            optimizer,
            precision=precision_of(options),
            accumulate=getattr(loader, "accumulate", options.get("accumulate", 1)),
            stop=self.stop,
            max_bad_images=options.get("max_bad_images", 10),
            seed=seed,
        )
        run_on_main_rank(lambda: logs_of(folder).cut(steps, saved.get("logs") if saved else {}))
        self._register_hooks(trainer, checkpointer, multiplier, steps)
        checkpointer.add_checkpointable("trainer", trainer)
        if saved:
            run_on_all_ranks(lambda: checkpointer.restore(saved))
        return trainer

    def _register_hooks(
        self, trainer: DetectionTrainer, checkpointer: RunCheckpointer, multiplier: Any, steps: int
    ) -> None:
        cfg, options, is_main = self.cfg, self.cfg.train, comm.is_main_process()
        if is_main:  # last: what is refused leaves no files of them
            self.writers += [
                CommonMetricPrinter(options.max_iter),
                TensorboardXWriter(str(self.folder)),
            ]
        saving = _build_saving_hook(cfg, checkpointer, steps)
        metrics = MetricsFile(self.folder, options.log_period)

        def score() -> dict[str, Any]:
            checkpointer.store.writer.wait()  # data workers are forked
            return evaluate(self.test_set, trainer.model, augment=False)

        evaluation = Evaluation(
            options.eval_period, Evaluations(score), metrics=metrics, writers=self.writers[1:]
        )
        printer = hooks.PeriodicWriter(self.writers, period=options.log_period)
        of_all = [hooks.IterationTimer(), hooks.LRScheduler(scheduler=multiplier)]
        trainer.register_hooks(
            [
                *of_all,
                TrainingProgress() if is_main and options.get("progress_bar", True) else None,
                metrics if is_main else None,  # a checkpoint has the line of its iteration
                saving if is_main else None,
                StopOnSignal(checkpointer, self.stop),
                evaluation,
                printer if is_main else None,
            ]
        )
        if is_main and not steps:
            watch_first_batch(trainer.model, self.folder, partial(first_samples, cfg))


def _build_model(cfg: DictConfig, *, load: bool) -> tuple[nn.Module, Adapters | None]:
    """Build the model, with initial weights or to be restored, and its adapters."""
    lora, source = lora_of(cfg), cfg.train.init_checkpoint
    with no_init_weights(bool(source or not load)):
        model = build(cfg.model, "model")
    if source and (load or lora.rank):  # the base is not in a checkpoint
        load_initial_weights(model, source)
    adapters = Adapters(model, lora, source) if lora.rank else None
    logger.info("Model:\n%s", model)
    return model.to(cfg.train.device), adapters


def _build_optimizer(cfg: DictConfig, model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
    multiplier = build(cfg.lr_multiplier, "lr_multiplier")
    check_schedule(multiplier, cfg.train.max_iter)
    cfg.optimizer.params.model = model
    return build(cfg.optimizer, "optimizer"), multiplier


def _wrap_distributed(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """Wrap the model if there are several processes."""
    ddp: dict[str, Any] = {"gradient_as_bucket_view": True} | dict(cfg.train.ddp)
    ddp |= {"device_ids": None} if cfg.train.device == "cpu" else {}
    wrapped = build(ddp, "train.ddp", lambda options: create_ddp_model(model, **options))
    if wrapped is not model and cfg.train.device == "cpu":
        wrapped.register_comm_hook(None, lambda _, bucket: deterministic_average_hook(bucket))
    return wrapped


def _build_saving_hook(
    cfg: DictConfig, checkpointer: RunCheckpointer, steps: int
) -> hooks.PeriodicCheckpointer:
    """Build the hook that saves, which knows what was saved up to the step that was restored."""
    saving = hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer)
    checkpointer.keeps_one = saving.max_to_keep == 1
    files = Path(cfg.train.output_dir).glob(f"model_{'[0-9]' * 7}.pth")
    earlier = [file for file in sorted(files) if int(file.stem[6:]) < steps]
    saving.recent_checkpoints = [*map(str, earlier)]
    return saving


class DetectionRun:
    """A training or an evaluation: what is asked for is resolved, then built and run.

    Attributes:
        request: What is asked for.
        cfg: The config.
        folder: The output folder; None until it is known.
        test_set: What is evaluated on; it has the own data.
        notes: Messages for the log.
    """

    cfg: DictConfig
    test_set: EvaluationSet

    def __init__(self, request: TrainingRequest) -> None:
        self.request, self.began = request, time.monotonic()
        self.folder: Path | None = None
        self.notes: list[str] = []
        self._log: Path | None = None

    def resolve(self, data: DetectionData | None) -> None:
        """Load the config, with own data that may have been read already."""
        self.cfg, data, self.notes = load_config(self.request, data)
        require_device(self.cfg.train.device)
        self.folder, self.test_set = Path(self.cfg.train.output_dir), EvaluationSet(self.cfg, data)

    def perform(self) -> int:
        """Reserve the output folder, train or evaluate, and close with a report."""
        folder, evaluates = Path(self.cfg.train.output_dir), self.request.evaluates
        with reserve_folder(
            folder,
            "evaluation" if evaluates else "training",
            traces=_TRACES,
            begun=RESULTS if evaluates else METRICS,
            settings={"--resume": self.request.run.resume, **OmegaConf.to_container(self.cfg)},
            check=self._check_folder,
        ):
            run_on_main_rank(self._write_data)
            self._log = start_log(self.cfg, self.request)
            finished = self.request.resumes and run_on_main_rank(
                lambda: is_finished(folder, self.cfg.train.max_iter)
            )
            if not finished:
                told = [note for note in self.notes if not note.startswith(TOLD)]
                show(*opening(self.cfg, self.request), *told)
                logger.info("%s", "\n".join(self.notes))
                if evaluates:
                    self._evaluate()
                else:
                    recipe = find_recipe("detection", self.request.recipe)
                    saved = copy.deepcopy(self.cfg)  # as it is before models are built of it
                    note = partial(save_run_config, saved, recipe)
                    resume = self.request.resumes
                    Training(self.cfg, resume=resume, test_set=self.test_set, note=note).run()
            close(self.test_set, self.request, began=None if finished else self.began)
        return Result(folder / RESULTS)

    def find_log(self) -> Path | None:
        """Return the log of this process; a run that is refused leaves none."""
        return self._log if self._log and self._log.exists() else None

    def saved_progress(self) -> str:
        """Say what is saved, and how to go on."""
        return saved_progress(self._log and self.folder)

    def _check_folder(self) -> bool:
        """Refuse a folder with another run; return whether this one continues."""
        assert self.folder
        if not self.request.run.resume:
            check_unused(self.folder)
        return self.request.run.resume and last_checkpoint(self.folder) is not None

    def _write_data(self) -> None:
        if self.test_set.data is not None and self.folder:
            continues = self.request.resumes and bool(last_checkpoint(self.folder))
            self.test_set.data.write(continues=continues)

    def _evaluate(self) -> None:
        cfg = self.cfg
        with no_init_weights():
            model = run_on_all_ranks(lambda: build(cfg.model, "model"))
        with_slicing(cfg, with_test_time_augmentation(cfg, model))  # before weights are read
        run_on_all_ranks(self.test_set.check)
        show(*output_place(cfg))
        source = cfg.train.init_checkpoint
        run_on_all_ranks(lambda: load_initial_weights(model, source, complete=True))
        device = torch.device(cfg.train.device)
        asked: Any = self.request.run.precision or "fp32"
        precision = resolve(asked, device)
        cfg.train.precision = precision  # for the report
        lower_backbone(model.to(device).backbone, precision, device)
        evaluate(self.test_set, model)


def run(request: TrainingRequest, data: DetectionData | None = None) -> int:
    """Run one process, with own data or to read them; return the exit code, with its scores."""
    this_run = DetectionRun(request)
    saved = None if request.evaluates else this_run.saved_progress
    try:
        with exit_on_error(program_name("train_net.py"), log=this_run.find_log, saved=saved):
            this_run.resolve(data)
            del data  # of which the run frees what it has packed
            return this_run.perform()
    finally:
        destroy_group()


def start(launch: Launch) -> int:
    """Start the processes of this machine, after a look at the config."""
    request = launch.request
    if request.processes == 1:
        return run(request, launch.take_data())
    with stderr_from_main_process(), exit_on_error(program_name("train_net.py")):
        cfg, *_ = load_config(request, launch.take_data())  # each process reads the data again
    return start_processes(run, request, on_gpu=cfg.train.device != "cpu")
