"""The settings of a run in the words of the transformers Trainer."""

from __future__ import annotations

import math

import torch
from trl import SFTConfig

from trimtab.methods import Method
from trimtab.training.directory import RunDirectory
from trimtab.training.settings import TrainingSettings


def trainer_arguments(
    run: RunDirectory,
    method: Method,
    settings: TrainingSettings,
    micro_batch: int,
    examples: int,
    processes: int,
    device: torch.device,
    half: bool,
) -> SFTConfig:
    """What `CompletionTrainer` takes.

    Args:
        run: where checkpoints go.
        method: the learning rule.
        settings: batches, length, seeds.
        micro_batch: examples in one forward pass of one process.
        examples: how many of an epoch's are used.
        processes: how many share each batch.
        device: of the model.
        half: whether the base is in bfloat16.
    """
    steps = settings.max_steps or math.ceil(settings.epochs * math.ceil(examples / settings.batch_size))
    arguments = SFTConfig(
        output_dir=str(run.checkpoints),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=method.learning_rate,
        lr_scheduler_type=method.schedule,
        warmup_steps=math.ceil(method.warmup_ratio * steps),
        weight_decay=method.weight_decay,
        optim="adamw_torch",
        # Not 0, with which transformers would not measure the norm either.
        max_grad_norm=settings.max_grad_norm or math.inf,
        seed=settings.seed,
        # On a CPU autocast costs more than it saves: the base computes in its own dtype there.
        bf16=half and device.type == "cuda",
        use_cpu=device.type == "cpu",
        gradient_checkpointing=settings.gradient_checkpointing,
        logging_steps=min(settings.log_every, steps),
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        save_strategy="steps",
        save_steps=settings.checkpoint_every,
        save_total_limit=1,
        report_to=settings.report_to,
        run_name=f"{method.label}, rate {method.learning_rate:g}, seed {settings.seed}",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=device.type == "cuda",
        # Otherwise accelerate fills the last batches of several processes with examples that were already seen.
        dataloader_drop_last=processes > 1,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        router_aux_loss_coef=0.0,
    )
    # On its own, one process would take cuda:0 and spread the batches over all GPUs (nn.DataParallel).
    arguments._n_gpu = min(arguments.n_gpu, 1)
    if device.type == "cuda" and processes == 1:
        torch.cuda.set_device(device)
        arguments._setup_devices = device  # where transformers keeps `arguments.device`
    return arguments
