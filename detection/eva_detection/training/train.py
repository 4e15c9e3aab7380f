"""Training and evaluation of a detector from a LazyConfig."""

import argparse
import contextlib
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from detectron2.data import build_detection_train_loader
from detectron2.engine import default_argument_parser, default_writers, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from eva_backbone import no_init_weights
from eva_data.interruption import (
    StopSignal,
    passed_on_to_children,
)
from eva_data.seeding import seed_all
from eva_detection.config.command_line import load_config, start_processes
from eva_detection.config.settings import (
    build,
    check_compression,
    check_schedule,
)
from eva_detection.data.custom_data import (
    add_arguments,
)
from eva_detection.data.run_checks import (
    EvaluationLoader,
    check_labels,
    check_pictures,
    records_of,
)
from eva_detection.data.stream import SAMPLER, build_train_stream
from eva_detection.evaluation.predictions import write_results
from eva_detection.inference.test_time_augmentation import with_test_time_augmentation
from eva_detection.training.agreement import together
from eva_detection.training.checkpoint import RunCheckpointer, load_initial_weights
from eva_detection.training.endings import RunLog, claimed, leave_gloo, one_sentence, start_log
from eva_detection.training.hooks import (
    Evaluation,
    MetricsHistory,
    ProgressBar,
    StopOnSignal,
    leave_together,
)
from eva_detection.training.run_files import last_checkpoint
from eva_detection.training.trainer import DetectionTrainer

logger = logging.getLogger(__name__)

_EPILOG = """
Examples:

Fine-tune on COCO with 8 GPUs:
    python detection/train_net.py --num-gpus 8 \\
        --config-file detection/configs/coco/cascade_mask_rcnn_vitdet_eva_g_1280.py \\
        train.init_checkpoint=eva_o365.pth train.output_dir=output/coco

Train on your own data in COCO format (classes, masks or boxes as in the files):
    python detection/train_net.py --train-annotations train.json --train-images photos/train \\
        --val-annotations val.json --val-images photos/val \\
        --config-file detection/configs/custom/cascade_mask_rcnn_vitdet_eva_g_24gb.py \\
        train.init_checkpoint=eva_o365.pth train.output_dir=output/mine

Continue a run after an interruption:
    the same command with --resume; SIGTERM and SIGUSR1 save a checkpoint and exit with code 75

Evaluate:
    python detection/train_net.py --num-gpus 8 --eval-only \\
        --config-file detection/configs/coco/cascade_mask_rcnn_vitdet_eva_g_1536.py \\
        train.init_checkpoint=eva_coco_seg.pth
"""


def evaluate(cfg: DictConfig, model: nn.Module, *, augment: bool = True) -> dict[str, Any]:
    """Score a model on the config's test set.

    Args:
        cfg: The config; `dataloader.test`, `dataloader.evaluator` and `test.aug` are used.
        model: The detector, maybe wrapped for data parallelism.
        augment: Use test-time augmentation if the config has `test.aug`.

    Returns:
        The evaluator's results on the main process (also in `results.json` of the output
        folder), an empty dict on others or without an evaluator.
    """
    if "evaluator" not in cfg.dataloader:
        logger.warning("the config has no dataloader.evaluator: nothing is evaluated")
        return {}
    if augment:
        model = with_test_time_augmentation(cfg, model)
    loader = EvaluationLoader(build(cfg.dataloader.test, "dataloader.test"))
    evaluator = build(cfg.dataloader.evaluator, "dataloader.evaluator")
    try:
        results = inference_on_dataset(model, loader, evaluator) or {}
    finally:
        loader.close()
    if results and comm.is_main_process():
        print_csv_format(results)
        write_results(results, Path(cfg.train.output_dir) / "results.json")
    return results


def train(cfg: DictConfig, *, resume: bool) -> None:
    """Train, evaluating periodically and at the end, without test-time augmentation.

    Args:
        cfg: The config, as for detectron2's `lazyconfig_train_net.py`; besides,
            `train.amp.precision` ("fp16" or "bf16"), `train.accumulate` (batches of an optimizer
            step), `train.max_bad_images` and `train.progress_bar` are read.
        resume: Continue from the last checkpoint of the output folder if there is one.

    Raises:
        SystemExit: With `EXIT_RUN_AGAIN`, after SIGTERM or SIGUSR1 and a checkpoint.
        FloatingPointError: If a loss or a gradient is not finite.
        UnreadableImagesError: If more images than `train.max_bad_images` cannot be read.
        ValueError: If a part cannot be built, the checkpoint is damaged or of another model, or
            files of the data set are missing.
        OtherProcessError: If another process has failed.
    """
    stop = StopSignal()
    with stop.listen():
        _train(cfg, resume, stop)


def _train(cfg: DictConfig, resume: bool, stop: StopSignal) -> None:
    folder, max_iter = Path(cfg.train.output_dir), cfg.train.max_iter
    continues = together(lambda: resume and last_checkpoint(folder) is not None)
    continues = comm.all_gather(continues)[0]  # the main process saves, and its folder counts
    if resume and not continues:
        logger.info("%s has no checkpoint to continue from: starting", folder)
    model, optimizer, multiplier = together(lambda: _build(cfg, continues))
    model = _distributed(cfg, model)
    amp = cfg.train.amp
    trainer = DetectionTrainer(
        model,
        None,  # the place in the data is in the checkpoint
        optimizer,
        precision=amp.get("precision", "fp16") if amp.enabled else "fp32",
        accumulate=cfg.train.get("accumulate", 1),
        stop=stop,
        max_bad_images=cfg.train.get("max_bad_images", 10),
    )
    checkpointer = RunCheckpointer(model, str(folder), trainer=trainer)
    writers = default_writers(str(folder), max_iter) if comm.is_main_process() else []
    try:
        _register_hooks(cfg, trainer, checkpointer, multiplier, writers)
        start = together(lambda: _restore(trainer, checkpointer, max_iter)) if continues else 0
        trainer.data_loader = together(lambda: _build_loader(cfg, trainer))
        together(lambda: _check_evaluation_data(cfg))
        trainer.train(start, max_iter)
    finally:
        for writer in writers:  # also where a signal ends the last evaluation
            with contextlib.suppress(OSError):  # of a full disk, which a write has met before
                writer.close()


def _build(cfg: DictConfig, continues: bool) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    """The model with its initial weights, the optimizer and the multiplier of its rates."""
    multiplier = build(cfg.lr_multiplier, "lr_multiplier")
    check_schedule(multiplier, cfg.train.max_iter)
    loads = continues or bool(cfg.train.init_checkpoint)
    with no_init_weights() if loads else contextlib.nullcontext():
        model = build(cfg.model, "model")
    logger.info("Model:\n%s", model)
    if cfg.train.init_checkpoint and not continues:
        load_initial_weights(model, cfg.train.init_checkpoint)
    model.to(cfg.train.device)
    cfg.optimizer.params.model = model
    return model, build(cfg.optimizer, "optimizer"), multiplier


def _distributed(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """The model, wrapped if there are several processes."""
    if comm.get_world_size() > 1:
        check_compression(cfg.train)
    ddp = dict(cfg.train.ddp)
    if cfg.train.device == "cpu":
        ddp["device_ids"] = None
    return build(ddp, "train.ddp", lambda options: create_ddp_model(model, **options))


def _register_hooks(
    cfg: DictConfig,
    trainer: DetectionTrainer,
    checkpointer: RunCheckpointer,
    multiplier: Any,
    writers: list[EventWriter],
) -> None:
    main_process = comm.is_main_process()
    checkpoints = hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer)
    evaluation = Evaluation(
        cfg.train.eval_period,
        lambda: leave_together(lambda: evaluate(cfg, trainer.model, augment=False)),
        folder=Path(cfg.train.output_dir),
        writers=[one for one in writers if not isinstance(one, CommonMetricPrinter)],
        log_period=cfg.train.log_period,
    )
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=multiplier),
            MetricsHistory(),
            ProgressBar() if main_process and cfg.train.get("progress_bar", False) else None,
            checkpoints if main_process else None,
            StopOnSignal(checkpointer, trainer.stop),
            evaluation,
            hooks.PeriodicWriter(writers, period=cfg.train.log_period) if main_process else None,
        ]
    )


def _restore(trainer: DetectionTrainer, checkpointer: RunCheckpointer, max_iter: int) -> int:
    """Restore the last checkpoint; returns the iteration to go on with."""
    if not checkpointer.has_checkpoint():
        raise ValueError(
            f"{checkpointer.save_dir} has no checkpoint on this machine: put train.output_dir on a "
            "file system that all machines share"
        )
    checkpointer.resume_or_load("", resume=True)
    start = int(trainer.iter) + 1
    if start > max_iter:
        raise ValueError(
            f"{checkpointer.get_checkpoint_file()} is after {start} iterations, and "
            f"train.max_iter={max_iter}: raise it, or choose another train.output_dir"
        )
    logger.info("Continuing at iteration %d", start)
    return start


def _looks_at_files() -> bool:
    """Whether this is the process of its machine that looks at the data for all."""
    return comm.get_world_size() == 1 or comm.get_local_rank() == 0


def _check_evaluation_data(cfg: DictConfig) -> None:
    """Look at every file of the evaluation, once on each machine, and build its evaluator."""
    node = cfg.dataloader.get("test")
    if "evaluator" not in cfg.dataloader or not _looks_at_files() or "dataset" not in (node or ()):
        return
    build(cfg.dataloader.evaluator, "dataloader.evaluator")
    records = records_of(build(node.dataset, "dataloader.test.dataset"))
    check_pictures(records, part="evaluation")


def _build_loader(cfg: DictConfig, trainer: DetectionTrainer) -> Any:
    """The training data, from where the trainer's checkpoint ends; seeds the trainer as well."""
    node, saved = cfg.dataloader.train, trainer.restored_stream
    configured = cfg.train.get("seed", -1)
    seed = configured if configured is not None and configured >= 0 else comm.shared_random_seed()
    if saved and configured is not None and 0 <= configured != saved["seed"]:
        logger.warning(
            "train.seed=%d has no effect: the run that continues began with seed %d",
            configured,
            saved["seed"],
        )
    seed = saved.get("seed", seed)
    trainer.seed = seed
    seed_all(seed, SAMPLER)  # samplers without a seed of their own draw one when they are built
    target = node.get("_target_")
    if (locate(target) if isinstance(target, str) else target) is not build_detection_train_loader:
        logger.warning(
            "dataloader.train is not detectron2's build_detection_train_loader: a continued run "
            "starts again in the data, and an image that cannot be read stops it"
        )
        return build(node, "dataloader.train")
    arguments = {
        name: build(node[name], f"dataloader.train.{name}") for name in node if name != "_target_"
    }
    if _looks_at_files():
        records = records_of(arguments["dataset"])
        for text in check_pictures(records, part="training", allowed=trainer.max_bad_images):
            logger.warning("An image that will be replaced: %s", text)
        classes = OmegaConf.select(cfg, "model.roi_heads.num_classes")
        if isinstance(classes, int):
            check_labels(records, classes)
    processes, batch = comm.get_world_size(), arguments["total_batch_size"]
    if saved and (saved["processes"], saved["total_batch_size"]) != (processes, batch):
        seen = trainer.batches_seen * saved["total_batch_size"]
        trainer.batches_seen = -(-seen // batch)
    arguments |= dict(seed=seed, start=trainer.batches_seen, max_bad_images=trainer.max_bad_images)
    loader = build(arguments, "dataloader.train", lambda options: build_train_stream(**options))
    if saved and saved != loader.state_dict():
        logger.warning(
            "The order of the data is not that of the uninterrupted run: it had %s, this start %s",
            saved,
            loader.state_dict(),
        )
    return loader


def run(args: argparse.Namespace) -> None:
    """One process of a run; `args` are those of `main`.

    Raises:
        SystemExit: If it does not succeed; the reason was printed, its traceback is in the log.
    """
    log = RunLog()
    try:
        with one_sentence(log):
            _run(args, log)
    finally:
        leave_gloo()


def _run(args: argparse.Namespace, log: RunLog) -> None:
    cfg, notes = load_config(args)
    folder = Path(cfg.train.output_dir)
    with claimed(folder, trains=not args.eval_only, resume=args.resume):
        start_log(cfg, args)
        log.folder, log.trains = folder, not args.eval_only
        for note in notes:
            logger.info(note)
        # inside detectron2: poolers, anchors, masks; nothing that a user could do about
        logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        if args.eval_only:
            _evaluate_only(cfg)
        else:
            train(cfg, resume=args.resume)


def _evaluate_only(cfg: DictConfig) -> None:
    with no_init_weights():
        model = together(lambda: build(cfg.model, "model"))
    try:
        with_test_time_augmentation(cfg, model)  # before the weights are read
    except ValueError as error:
        raise ValueError(f"test.aug: {error}") from error
    together(lambda: _check_evaluation_data(cfg))
    together(lambda: load_initial_weights(model, cfg.train.init_checkpoint, complete=True))
    model.to(cfg.train.device)
    evaluate(cfg, model)


def main() -> None:
    """Command line of `train_net.py`; exits with 75 if a signal stopped it after a checkpoint."""
    parser = default_argument_parser(epilog=_EPILOG)
    add_arguments(parser)
    args = parser.parse_args()
    many = args.num_gpus * args.num_machines > 1
    if many:
        with one_sentence(RunLog()):
            load_config(args)  # what is wrong with it is said once, not by every process
    with passed_on_to_children() if many else contextlib.nullcontext():
        start_processes(run, args)
