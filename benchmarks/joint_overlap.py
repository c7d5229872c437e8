"""Naive against orthogonal joint training: do the adapter and LoRA push the stream in the same direction?

    python benchmarks/joint_overlap.py        # about 10 minutes on two cores; runs that are done are not repeated

Trains `joint` and `joint-orth` on the same examples (paper, section 6.5, here on SmolLM2 and ListOps-small), then
takes per layer and prompt the cosine of the adapter's shift and of LoRA's shift of the MLP output, on prompts that
were not trained on. Writes joint_overlap.json into benchmarks/results and docs/assets/joint-overlap.svg; another model
needs a name of its own: --model models/gemma-3-270m --name joint-overlap-gemma3 --runs runs/joint-overlap-gemma3.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from trimtab.analysis.layers import median
from trimtab.analysis.shift_overlap import ShiftOverlap, shift_overlap
from trimtab.encoding import encode_prompt
from trimtab.figures import MUTED, SERIES, svg_text
from trimtab.figures import figure as styled_figure
from trimtab.files import write_text
from trimtab.methods import get_method
from trimtab.models import EMBEDDED_MODEL
from trimtab.results import Environment
from trimtab.tasks import get_task
from trimtab.training import RunDirectory, TrainingSettings, load_run, train

HERE = Path(__file__).parent
METHODS = {"joint": "naive", "joint-orth": "orthogonal"}


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--task", default="listops-small")
    parser.add_argument("--examples", type=int, default=800)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--learning_rate", type=float, default=7e-4, help="from the grid of both methods")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs" / "joint-overlap")
    parser.add_argument("--name", default="joint-overlap", help="of the two files")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {name: _measure(name, options) for name in METHODS}
    record = {
        "environment": asdict(Environment.collect("cpu")),
        "settings": {name: value for name, value in vars(options).items() if not isinstance(value, Path)},
        "methods": {name: one.to_dict() for name, one in found.items()},
    }
    write_text(options.results / f"{options.name.replace('-', '_')}.json", json.dumps(record) + "\n")
    (options.docs / "assets").mkdir(parents=True, exist_ok=True)
    write_text(options.docs / "assets" / f"{options.name}.svg", figure(found, options.name))
    for name, one in found.items():
        of_prompts = median(one.cosine, dim=0)
        error = of_prompts.std() / len(of_prompts) ** 0.5
        middle, largest = median(one.cosine), one.cosine.abs().nan_to_num().max()
        written, free = median(one.written_norm), median(one.free_norm)
        print(f"{name}: cosine {middle:.3f} ± {error:.4f} (median, error over prompts), at most {largest:.3f}")
        print(f"{name}: norm of W_up, median of the layers {written:.3f}, before projection {free:.3f}")


def _measure(name: str, options: argparse.Namespace) -> ShiftOverlap:
    method = get_method(name, learning_rate=options.learning_rate)
    task = get_task(options.task)
    run = RunDirectory(options.runs / name)
    if not run.finished:
        train(options.model, method, task, run.path, settings=TrainingSettings(examples=options.examples))
    model, tokenizer = load_run(run.path, dtype="float32")
    examples = task.load("validation", limit=options.prompts)
    return shift_overlap(model, [encode_prompt(tokenizer, example) for example in examples])


def figure(found: dict[str, ShiftOverlap], name: str) -> str:
    """Cosines and norms over the layers, as SVG."""
    with styled_figure(name, 9, 3.4, font_size=9.5) as drawing:
        cosines, norms = drawing.subplots(1, 2)
        for index, (name, label) in enumerate(METHODS.items()):
            _cosines(cosines, found[name], label, index)
            norms.plot(found[name].written_norm, color=SERIES[index], marker="os"[index], markersize=4, label=label)
        norms.plot(found["joint-orth"].free_norm, color=SERIES[1], linestyle=":", label="orthogonal, before projection")
        cosines.set_ylabel("cosine (median, quartiles)")
        norms.set_ylabel("largest singular value of W_up")
        for axes in (cosines, norms):
            axes.set_xlabel("decoder layer")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(axis="y")
            axes.legend(frameon=False)
        cosines.axhline(0, color=MUTED, linewidth=0.8)
        norms.set_ylim(bottom=0)
        return svg_text(drawing)


def _cosines(axes: Axes, one: ShiftOverlap, label: str, index: int) -> None:
    quartiles = torch.nanquantile(one.cosine, torch.tensor([0.25, 0.5, 0.75]), dim=1)
    layers = range(one.cosine.shape[0])
    axes.fill_between(layers, quartiles[0], quartiles[2], color=SERIES[index], alpha=0.2, linewidth=0)
    axes.plot(layers, quartiles[1], color=SERIES[index], marker="os"[index], markersize=4, label=label)


if __name__ == "__main__":
    main()
