"""What each method has gained on its task, and how far it has moved the model on texts that are none of it.

    trimtab sweep recipes/smol-drift.yaml      # or any sweep that keeps its adapters
    python benchmarks/drift.py                 # about half a minute a run

For every method of the sweep the adapters of all seeds at the chosen rate are compared with the base, as
`trimtab.analysis.drift` has it; an adapter with a dial at several strengths. Writes drift.json and drift.md into
benchmarks/results and docs/assets/drift-by-method.svg.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from _harness import HERE, table
from matplotlib.axes import Axes

from trimtab.analysis import Subject
from trimtab.analysis.drift import Drift, drift, has_dial
from trimtab.analysis.texts import encode_texts, read_texts
from trimtab.figures import figure, save_svg, series
from trimtab.files import write_text
from trimtab.models import load_model
from trimtab.results import CellRecord, Environment, RunRecord
from trimtab.sweeps import load_cells, load_results
from trimtab.training import load_run

AS_TRAINED = 1.0
"""The strength at which methods are compared."""


@dataclass(frozen=True)
class Row:
    """One method: its accuracy on the task, and its drift, averaged over the seeds text by text."""

    cell: CellRecord
    drift: Drift

    @property
    def at_trained(self) -> int:
        """Which row of the drift is the adapter as it was trained."""
        return 0 if self.drift.strengths is None else self.drift.strengths.index(AS_TRAINED)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=HERE.parent / "runs" / "smol-drift", help="its directory")
    parser.add_argument("--texts", help="a .txt or .jsonl file, or a task; trimtab's own if not given")
    parser.add_argument("--max_texts", type=int, default=100)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.25, 0.5, AS_TRAINED, 1.5, 2.0])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch_tokens", type=int, default=1024)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    options = parser.parse_args()
    if AS_TRAINED not in options.strengths:
        parser.error(f"--strengths must contain {AS_TRAINED:g}, the adapter as it was trained.")
    texts = read_texts(options.texts, options.max_texts)
    runs = {run.run: run for run in load_results(options.sweep)}
    rows = [_row(cell, runs, texts, options) for cell in load_cells(options.sweep) if cell.runs]
    record = {
        "environment": asdict(Environment.collect("cpu")),
        "settings": {name: value for name, value in vars(options).items() if not isinstance(value, Path)},
        "methods": [{**row.cell.to_dict(), "drift": row.drift.to_dict()} for row in rows],
    }
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / "drift.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_text(options.results / "drift.md", text := markdown(rows))
    save_svg(_figure(rows), options.docs / "assets" / "drift-by-method.svg")
    print(text)


def _row(cell: CellRecord, runs: dict[str, RunRecord], texts: Sequence[str], options: argparse.Namespace) -> Row:
    found = [_drift(options.sweep, runs[name], texts, options) for name in cell.runs]
    means = {
        name: torch.stack([getattr(each, name) for each in found]).mean(0) for name in ("divergence", "loss_increase")
    }
    print(f"{cell.method}: {found[0].summary}", flush=True)
    return Row(cell, replace(found[0], **means))


def _drift(sweep: Path, run: RunRecord, texts: Sequence[str], options: argparse.Namespace) -> Drift:
    model, tokenizer = load_run(sweep / "runs" / run.training / "training", dtype=options.dtype, device="cpu")
    ids = encode_texts(tokenizer, texts, options.batch_tokens)
    prompts = tuple(map(tuple, ids))
    if run.family == "full":
        base, _ = load_model(run.model, dtype=options.dtype, device="cpu")
        subject = Subject(base, tokenizer, prompts, tuned=model)
    else:
        subject = Subject(model, tokenizer, prompts)
    strengths = options.strengths if has_dial(subject) else None
    return drift(
        subject, ids, strengths=strengths, batch_tokens=options.batch_tokens, name=options.texts or "trimtab's own"
    )


def markdown(rows: Sequence[Row]) -> str:
    """Accuracy and drift of each method as it was trained."""
    cells = []
    for row in rows:
        values = (row.drift.mean_divergence, row.drift.mean_loss_increase)
        drifts = [f"{float(mean[row.at_trained]):.3f} ± {float(error[row.at_trained]):.3f}" for mean, error in values]
        score = f"{100 * (row.cell.accuracy or 0):.1f} ± {100 * (row.cell.standard_error or 0):.1f}"
        parameters = f"{row.cell.trainable_parameters or 0:,}"
        cells.append([row.cell.method, row.cell.task, parameters, score, *drifts])
    head = ["method", "task", "parameters", "accuracy, %", "KL(base to adapted), nats a token", "loss, nats a token"]
    return table(head, cells)


def _figure(rows: Sequence[Row]) -> Any:
    with figure("drift-by-method", 9, 3.6) as drawing:
        gains, dials = drawing.subplots(1, 2)
        for index, row in enumerate(rows):
            _draw(gains, dials, row, {**series(index), "label": row.cell.method})
        gains.set_ylabel("accuracy on the task, %")
        gains.set_xlabel("KL(base || adapted) on other text, nats a token")
        dials.set_ylabel("KL(base || adapted), nats a token")
        dials.set_xlabel("strength")
        for axes in (gains, dials):
            axes.grid(axis="y")
            axes.set_ylim(bottom=0)
        gains.set_xlim(left=0)
        handles, labels = gains.get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside upper center", ncols=min(5, len(labels)))
    return drawing


def _draw(gains: Axes, dials: Axes, row: Row, style: dict[str, Any]) -> None:
    mean, error = row.drift.mean_divergence
    accuracy, spread = 100 * (row.cell.accuracy or 0), 100 * (row.cell.standard_error or 0)
    at = row.at_trained
    gains.errorbar(float(mean[at]), accuracy, xerr=float(error[at]), yerr=spread, **{**style, "linestyle": ""})
    dials.errorbar(row.drift.strengths or (AS_TRAINED,), mean, yerr=error, **style)


if __name__ == "__main__":
    main()
