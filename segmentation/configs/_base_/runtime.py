"""What all runs share: the plugin, and mmengine's loops, hooks and logging."""

custom_imports = dict(imports=["eva_segmentation.plugin"], allow_failed_imports=False)
default_scope = "mmseg"
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl", timeout=6 * 3600),  # seconds: one process scores for all
    matmul_precision="high",  # TF32 on Ampere and newer, as torch 1.9 of the official runs did
)
default_hooks = dict(
    run=dict(type="RunHook"),
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="EVACheckpointHook", by_epoch=False, interval=2000, max_keep_ckpts=2, save_best="mIoU"
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
)
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(type="SegLocalVisualizer", vis_backends=vis_backends, name="visualizer")
log_processor = dict(by_epoch=False)
log_level = "INFO"
load_from = None
resume = False

train_cfg = dict(type="EVATrainLoop", val_interval=2000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
val_evaluator = dict(type="IoUAndConfusion", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
