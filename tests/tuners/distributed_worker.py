"""One process of a distributed run; `test_training_distributed.py` starts two of them with torchrun.

    torchrun --nproc-per-node 2 distributed_worker.py DIRECTORY

Every mode trains on the global batches of `distributed_training.py`, half of each batch in either process,
and writes the adapter to DIRECTORY/mode. All modes run in one go: starting takes longer than training.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from peft import PeftModel
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, DistributedConfig, PreTrainedModel

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from distributed_training import counted_loop, penalised, plain_loop, sft_trainer, steered, trainer  # noqa: E402

from tiny_language import tiny_model  # noqa: E402


def own_rows() -> slice:
    """The rows of a global batch that this process has."""
    return slice(dist.get_rank(), None, dist.get_world_size())


def ddp(directory: Path) -> None:
    """torch's DistributedDataParallel around the PeftModel, which starts from the first process's adapter."""
    model = steered(tiny_model(), adapter_seed=dist.get_rank())
    plain_loop(DistributedDataParallel(model), own_rows())
    if dist.get_rank() == 0:
        model.save_pretrained(directory)


def fsdp2(directory: Path) -> None:
    """fully_shard on every decoder layer, its steering layer included, and on the rest."""
    model = steered(tiny_model())
    for layer in model.get_base_model().model.layers:
        fully_shard(layer)
    fully_shard(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    plain_loop(model, own_rows())
    save_gathered(model, directory)


def trainer_ddp(directory: Path) -> None:
    """transformers' Trainer, which wraps the model in DistributedDataParallel."""
    run = trainer(directory, steered(tiny_model(), adapter_seed=dist.get_rank()), rows_a_process=2)
    run.train()
    run.save_model()


def sft_ddp(directory: Path) -> None:
    """TRL's SFTTrainer in the same way."""
    run = sft_trainer(directory, tiny_model(), rows_a_process=2, adapter_seed=dist.get_rank())
    run.train()
    run.save_model()


def trainer_fsdp2(directory: Path) -> None:
    """transformers' Trainer on a base that transformers shards with FSDP2 when it loads it."""
    run = trainer(directory, steered(load_sharded(directory), adapter_seed=dist.get_rank()), rows_a_process=2)
    run.train()
    run.save_model()


def sft_fsdp2(directory: Path) -> None:
    """TRL's SFTTrainer on such a base."""
    run = sft_trainer(directory, load_sharded(directory), rows_a_process=2, adapter_seed=dist.get_rank())
    run.train()
    run.save_model()


def penalty_ddp(directory: Path) -> None:
    """A penalty in the loss of transformers' Trainer, with DistributedDataParallel."""
    run = trainer(directory, penalised(tiny_model(), adapter_seed=dist.get_rank()), rows_a_process=2)
    run.train()
    run.save_model()


def penalty_fsdp2(directory: Path) -> None:
    """The same on a sharded base."""
    run = trainer(directory, penalised(load_sharded(directory), adapter_seed=dist.get_rank()), rows_a_process=2)
    run.train()
    run.save_model()


def penalty_sharded(directory: Path) -> None:
    """A penalty on scalers that fully_shard has cut; the processes have 20 and 6 of a step's 26 labels."""
    model = penalised(tiny_model())
    for layer in model.get_base_model().model.layers:
        fully_shard(layer)
    fully_shard(model)
    counted_loop(model, own_rows(), dist.get_world_size())
    save_gathered(model, directory)


def load_sharded(directory: Path) -> PreTrainedModel:
    """The base, each process holding half of every weight."""
    if dist.get_rank() == 0:
        tiny_model().save_pretrained(directory / "base")
    dist.barrier()
    base = AutoModelForCausalLM.from_pretrained(
        directory / "base",
        distributed_config=DistributedConfig(fsdp_size=dist.get_world_size()),
        dtype=torch.float32,
    )
    assert all(isinstance(parameter, DTensor) for parameter in base.parameters())
    return base


def save_gathered(model: PeftModel, directory: Path) -> None:
    """Collect the shards of all processes and let the first one write the adapter."""
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank() == 0:
        model.save_pretrained(directory, state_dict=state)


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    replicated, sharded = (ddp, trainer_ddp, penalty_ddp, sft_ddp), (fsdp2, trainer_fsdp2, penalty_fsdp2, sft_fsdp2)
    for mode in (*replicated, *sharded, penalty_sharded):
        mode(Path(sys.argv[1]) / mode.__name__)
    dist.destroy_process_group()
