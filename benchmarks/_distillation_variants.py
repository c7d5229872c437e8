"""The ways to fit that benchmarks/distillation.py compares."""

from __future__ import annotations

from typing import Any

STUDENT = {"normalize": True, "use_bias": True}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # settings of the fit, options of the adapter; the first is the plain linearised oracle
    "parallel, plain squares": ({"fitting": "parallel", "weights": "equal", "answer_share": None}, {}),
    "on the tuned stream": ({"fitting": "tuned_stream"}, {}),
    "sequential, plain squares": ({"weights": "equal", "answer_share": None}, {}),
    "relative squares": ({"answer_share": None}, {}),
    "answers half": ({}, {}),
    "answers 90 %": ({"answer_share": 0.9}, {}),
    "metric of logits": ({"metric": "logits"}, {}),
    "metric of gradients": ({"metric": "gradient"}, {}),
    "weights of gradients": ({"weights": "gradient", "answer_share": None}, {}),
    "metric and weights of gradients": ({"weights": "gradient", "metric": "gradient", "answer_share": None}, {}),
    "one refinement": ({"refinements": 1}, {}),
    "reads h": ({}, {"normalize": False}),
    "without bias": ({}, {"use_bias": False}),
    "all but the first token": ({}, {"positions": "all_but_first(1)"}),
    "later half of the layers": ({}, {"layers": "later"}),
}
"""Each differs from "answers half", the default, in what it names."""
