"""The table of methods: site x intervention x positions x weights, and the rule to train each by.

Rules of the paper (appendix F.5): AdamW for all; a cosine schedule with warm-up for full fine-tuning and LoRA; a
constant rate without warm-up and without weight decay for steering and ReFT. Learning rates are chosen on validation
data, from a grid of five that lies the higher the fewer parameters a method has (appendix F.2). The default is the
middle of the grid. docs/methods.md says where each grid comes from, and the rules that the paper does not give.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trimtab.methods.configurations import Family
from trimtab.methods.method import Method, Schedule

RATES_OF_ALL_WEIGHTS = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4)
RATES_OF_LORA = (5e-5, 1e-4, 3e-4, 7e-4, 1.5e-3)
RATES_OF_MATRICES = (5e-4, 1e-3, 2e-3, 3e-3, 5e-3)
RATES_OF_WRITING = (1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3)
"""Lower ones, for W_up where W_down and the bias have multiples of its rate."""
RATES_OF_VECTORS = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
"""Those of rank 1 and of heads too: one number or two for each dimension of a layer."""

_LORA = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0}
# The largest power of two at which the adapter has no more parameters than LoRA of rank 8 on each of the paper's
# models; the paper's script for naive joint training has it too.
_JOINT_RANK = 64


def _row(
    name: str,
    description: str,
    rates: tuple[float, ...],
    family: Family = "steering",
    schedule: Schedule = "constant",
    warmup_ratio: float = 0.0,
    **adapter: Any,
) -> Method:
    return Method(name, description, family, rates[len(rates) // 2], adapter, rates, schedule, warmup_ratio)


def _lora(name: str, description: str, **changes: Any) -> Method:
    return _row(name, description, RATES_OF_LORA, "lora", "cosine", 0.03, **{**_LORA, **changes})


def _low_rank(name: str, description: str, **adapter: Any) -> Method:
    return _row(name, description, RATES_OF_MATRICES, r=8, **adapter)


def _reft(name: str, description: str, intervention: str, **changes: Any) -> Method:
    published = {"site": "mlp", "positions": "first_last(7,7)"}
    return _low_rank(name, description, intervention=intervention, **{**published, **changes})


def _joint(name: str, description: str, constraint: str) -> Method:
    options = {"r": _JOINT_RANK, "constraint": constraint, "lora": _LORA}
    return _row(name, description, RATES_OF_LORA, "joint", "cosine", 0.06, **options)


def _lofit(name: str, description: str, **adapter: Any) -> Method:
    return _row(name, description, RATES_OF_VECTORS, site="heads", intervention="head_bias", **adapter)


def _vector(name: str, description: str, **adapter: Any) -> Method:
    return _row(name, description, RATES_OF_VECTORS, intervention="vector", **adapter)


_ROWS = (
    # All weights, and low-rank updates of them.
    _row("sft", "full fine-tuning: every weight", RATES_OF_ALL_WEIGHTS, "full", "cosine", 0.03),
    _lora("lora", "LoRA, rank 8, on the seven projections of every block"),
    _lora("lora-r16", "the same, rank 16", r=16, lora_alpha=16),
    _lora("dora", "DoRA, rank 8, on the same projections", use_dora=True),
    # After the block: the paper's.
    _low_rank("post-block", "linear, rank 8, on the stream after every block (the paper's)"),
    _low_rank("post-block-nonlinear", "the same with a SiLU inside", activation="silu"),
    _row("post-block-r1", "linear, rank 1, on the stream after every block", RATES_OF_VECTORS, r=1),
    _vector("1-vec", "one vector after every block"),
    _row(
        "post-block-normalized",
        "post-block that reads h / rms(h), with a bias (ours)",
        RATES_OF_MATRICES,
        "steering",
        "cosine",
        0.05,
        r=8,
        normalize=True,
        use_bias=True,
    ),
    replace(
        _row(
            "post-block-plus",
            "post-block with a bias that leaves the first token alone, started along the gradient, W_down and the bias "
            "at higher rates (ours)",
            RATES_OF_WRITING,
            "steering",
            "cosine",
            0.05,
            r=8,
            positions="all_but_first(1)",
            use_bias=True,
            init_weights="gradient",
        ),
        rate_factors={"down": 3.0, "bias": 10.0},
    ),
    # Inside the block.
    _low_rank("post-mlp", "linear, rank 8, on what the MLP adds to the stream", site="mlp"),
    _low_rank("post-mlp-nonlinear", "the same with a SiLU inside", site="mlp", activation="silu"),
    _vector("post-mlp-vector", "one vector there", site="mlp"),
    _low_rank("pre-mlp", "linear, rank 8, on what the MLP reads", site="mlp_input"),
    _low_rank("pre-mlp-nonlinear", "the same with a SiLU inside", site="mlp_input", activation="silu"),
    _vector("pre-mlp-vector", "one vector there", site="mlp_input"),
    _low_rank("post-attention", "linear, rank 8, on what attention adds to the stream", site="attention"),
    _low_rank("post-attention-nonlinear", "the same with a SiLU inside", site="attention", activation="silu"),
    _vector("post-attention-vector", "one vector there", site="attention"),
    # ReFT: the positions are chosen on validation among the last token and the first and last seven (appendix F.2).
    _reft("reft", "LoReFT, rank 8, as the paper runs it", "loreft"),
    _reft("reft-last", "the same on the last token of the prompt", "loreft", positions="last_prompt"),
    _reft("reft-all", "the same on every token", "loreft", positions="all"),
    _reft("reft-block", "LoReFT after the block, where its own library has it", "loreft", site="block"),
    _reft("direft", "DiReFT, rank 8, as its library has it", "direft"),
    _reft("direft-block", "DiReFT after the block", "direft", site="block"),
    _reft("nodireft", "DiReFT as its article writes it", "nodireft"),
    # The attention heads' outputs; all of them, as the paper has it, or those that a first stage selects.
    _lofit("lofit-all-heads", "LoFiT's vectors, on all heads as the paper runs it"),
    _lofit("lofit", "LoFiT, on the 3 % of the heads that its first stage selects", select_heads=0.03),
    _row(
        "jola",
        "JoLA: each head scaled and shifted as far as its gates are open",
        RATES_OF_VECTORS,
        "steering",
        "cosine",
        0.1,
        site="heads",
        intervention="jola",
    ),
    # Weights and activations together (sections 4 and 5.2).
    _joint("joint", "post-block and LoRA, trained together", "none"),
    _joint("joint-orth", "the same, the adapter outside of what LoRA writes", "orthogonal"),
)

METHODS: dict[str, Method] = {method.name: method for method in _ROWS}
"""Every method by its name."""
