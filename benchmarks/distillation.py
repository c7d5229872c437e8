"""A LoRA distilled into steering adapters: what is recovered, what makes it good, and is it worth the time?

    python benchmarks/distillation.py                       # ListOps-small: about 1.7 hours on one core
    python benchmarks/distillation.py --tasks boolq --compare_on listops-small --teacher_examples 800 --test 200 \\
        --task_options '{"boolq": {"data_dir": "data/boolq"}}'                  # about 2 hours more

For each task a LoRA is trained (the teacher), and answers the prompts of some training examples; then

1. ways to fit are compared at rank 8 on validation examples (on the first task, for all): sequential or parallel,
   weights, metric, refinement;
2. with the best of them (least KL where answers are predicted), adapters of rank 1, 8 and 32 and vectors are distilled
   and scored on test examples, at once and after a short training run that begins at them;
3. the same short run from scratch, and one from scratch that takes as long as distilling and training together.

What is in distillation.json already is not measured again. Writes distillation.json and distillation.md into
benchmarks/results, and docs/assets/distillation.svg.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _distillation_book import Book
from _distillation_models import Models
from _distillation_report import figure, markdown
from _distillation_variants import VARIANTS

from trimtab.encoding import Encoded
from trimtab.figures import require_matplotlib, save_svg
from trimtab.files import write_text
from trimtab.models import EMBEDDED_MODEL
from trimtab.tasks import get_task

HERE = Path(__file__).parent


class Bench:
    """One task: its models, its texts, and what is measured with them."""

    def __init__(self, name: str, options: argparse.Namespace, book: Book) -> None:
        task = get_task(name, **options.task_options.get(name, {}))
        self.name, self.options, self.book = task.name, options, book
        self.folder = options.runs / task.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.models = Models(task, self.folder, options)

    def run(self) -> None:
        """Everything, in an order in which the next step has what it needs."""
        texts = self._texts()
        self._cell("base", lambda: self.models.score(*self.models.base(), "test"))
        self._cell("tuned", lambda: self.models.score(*self.models.teacher(), "test"))
        if self.options.compare_on == self.name:
            for label, variant in VARIANTS.items():
                self._cell(f"variant {label}", lambda label=label, v=variant: self._variant(label, v, texts))
        fit, student = VARIANTS[self.best()]
        middle = self.options.ranks[len(self.options.ranks) // 2]
        of_maps, of_vectors = (
            {start: self._rate(rank, start, rates, fit, student, texts) for start in ("distilled", "scratch")}
            for rank, rates in ((middle, self.options.rates), (0, self.options.vector_rates))
        )
        for rank in (*self.options.ranks, 0):
            self._rank(rank, fit, student, texts, of_maps if rank else of_vectors)

    def best(self) -> str:
        """The way to fit with the least KL where held-out answers are predicted, of those that need forward passes
        only unless --allow_gradients."""
        cells = {
            label: self.book.content["cells"][f"{self.options.compare_on}: variant {label}"]
            for label, (fit, _) in VARIANTS.items()
            if self.options.allow_gradients or "gradient" not in fit.values()
        }
        return min(cells, key=lambda label: cells[label]["kl_validation"]["answers"])

    def _cell(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return self.book.cell(self.name, name, measure)

    def _texts(self) -> list[Encoded]:
        """The teacher's answers to the prompts of training examples."""
        return [Encoded(prompt, answer) for prompt, answer in self._cell("texts", self.models.answers)["texts"]]

    def _variant(
        self, label: str, variant: tuple[dict[str, Any], dict[str, Any]], texts: list[Encoded]
    ) -> dict[str, Any]:
        found = self.models.distilled(
            *variant, texts, 8, self.folder / "variants" / label.replace(" ", "-"), "validation"
        )
        return {**found, "kl_validation": found["kl"]}

    def _rate(
        self,
        rank: int,
        start: str,
        rates: list[float],
        fit: dict[str, Any],
        student: dict[str, Any],
        texts: list[Encoded],
    ) -> float:
        """The rate of the short run from a distilled adapter, or from scratch, by validation accuracy at one rank."""
        begin = self.folder / f"rank-{rank}" if start == "distilled" else None
        self._of_rank(rank, fit, student, texts)
        scores = {}
        for rate in rates:
            name = f"{_named(rank)} rate {start} {rate:g}"
            out = self.folder / name.replace(" ", "-")
            cell = self._cell(
                name,
                lambda rate=rate, out=out: self.models.trained(
                    rank, rate, self.options.tune, out, begin, student, "validation"
                ),
            )
            scores[rate] = cell["correct"]
        return max(scores, key=lambda rate: (scores[rate], -rate))

    def _of_rank(self, rank: int, fit: dict[str, Any], student: dict[str, Any], texts: list[Encoded]) -> dict[str, Any]:
        """The distilled adapter of a rank, scored on test; rank 0 is the vector."""
        out = self.folder / f"rank-{rank}"
        return self._cell(
            f"{_named(rank)} distilled", lambda: self.models.distilled(fit, student, texts, rank, out, "test")
        )

    def _rank(
        self,
        rank: int,
        fit: dict[str, Any],
        student: dict[str, Any],
        texts: list[Encoded],
        rates: dict[str, float],
    ) -> None:
        """Distilled, distilled and trained, trained as briefly, trained as long."""
        name, adapter = _named(rank), self.folder / f"rank-{rank}"
        found = self._of_rank(rank, fit, student, texts)
        tune = self.options.tune
        trained = self._cell(
            f"{name} distilled, trained",
            lambda: self.models.trained(
                rank, rates["distilled"], tune, self.folder / f"tuned-{rank}", adapter, student, "test"
            ),
        )
        self._cell(
            f"{name} scratch, as many examples",
            lambda: self.models.trained(
                rank, rates["scratch"], tune, self.folder / f"short-{rank}", None, student, "test"
            ),
        )
        spent = found["seconds"] + self._cell("texts", dict)["seconds"] + trained["seconds"]
        examples = max(tune, round(tune * spent / trained["seconds"]))
        self._cell(
            f"{name} scratch, as long",
            lambda: self.models.trained(
                rank, rates["scratch"], examples, self.folder / f"long-{rank}", None, student, "test"
            ),
        )


def _named(rank: int) -> str:
    return f"rank {rank}" if rank else "vector"


def main() -> None:
    """Measure what is missing, write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--tasks", nargs="+", default=["listops-small"])
    parser.add_argument("--compare_on", help="the task on which ways to fit are compared; the first if not given")
    parser.add_argument("--task_options", type=json.loads, default={}, help="JSON: options of the tasks by name")
    parser.add_argument("--teacher_examples", type=int, default=1600)
    parser.add_argument("--prompts", type=int, default=120, help="training prompts that the teacher answers")
    parser.add_argument("--answer_tokens", type=int, help="of the teacher's answers; the task's limit if not given")
    parser.add_argument("--tune", type=int, default=200, help="examples of the short training run")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[5e-4, 2e-3], help="of maps, chosen at the middle rank"
    )
    parser.add_argument("--vector_rates", type=float, nargs="+", default=[5e-3, 2e-2])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--validation", type=int, default=200)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--allow_gradients", action="store_true", help="choose among fits with a backward pass too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs" / "distillation")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    options = parser.parse_args()
    require_matplotlib()
    torch.set_num_threads(options.threads)
    options.compare_on = options.compare_on or options.tasks[0]
    unsaved = ("tasks", "task_options", "runs", "results", "docs")
    settings = {name: value for name, value in vars(options).items() if name not in unsaved}
    options.results.mkdir(parents=True, exist_ok=True)
    book = Book(options.results / "distillation.json")
    for name in options.tasks:
        bench = Bench(name, options, book)
        book.open(bench.name, settings)
        bench.run()
    write_text(options.results / "distillation.md", markdown(book.content))
    save_svg(figure(book.content), options.docs / "assets" / "distillation.svg")


if __name__ == "__main__":
    main()
