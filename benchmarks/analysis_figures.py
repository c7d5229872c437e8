"""The figures of docs/analysis.md: `trimtab analyze` on some models, and what the page shows of it.

    python benchmarks/analysis_figures.py smollm2=smollm2-135m gemma3=models/gemma-3-270m
    python benchmarks/analysis_figures.py smollm2-lora=runs/analysis/lora smollm2-joint=runs/joint-overlap/joint

Each word is a name for the figures and a base model, or the run directory of an adapter. The page goes into
runs/analysis-pages/NAME, the numbers into benchmarks/results/analysis/NAME.json, the figures into
docs/assets/analysis-NAME-FIGURE.svg. What is there is not measured again (--overwrite does).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from _harness import HERE

from trimtab.analysis import AnalysisOptions
from trimtab.cli.analyze import analyze
from trimtab.cli.loading import LoadOptions, recipe_of

ROOT = HERE.parent


def main() -> None:
    """Measure what is not there, copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="+", metavar="NAME=MODEL", help="a base or a run directory")
    parser.add_argument("--task", default="listops-small")
    parser.add_argument("--data_dir", help="of the task, where it is not read from a hub")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--only", nargs="+", default=None, help="analyses by name")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--pages", type=Path, default=ROOT / "runs" / "analysis-pages")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "analysis")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for subject in options.subjects:
        name, found, path = subject.partition("=")
        if not found:
            parser.error(f"{subject!r} is not NAME=MODEL.")
        page = options.pages / name
        if options.overwrite or not (page / "analysis.json").is_file():
            of_run = bool(recipe_of(path))
            analyze(
                model=None if of_run else path,
                adapter=path if of_run else None,
                task=options.task,
                task_options={"data_dir": options.data_dir} if options.data_dir else None,
                prompts=options.prompts,
                only=options.only,
                settings=AnalysisOptions(),
                options=LoadOptions(),
                out=str(page),
                overwrite=options.overwrite,
            )
        options.results.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page / "analysis.json", options.results / f"{name}.json")
        for figure in sorted((page / "figures").glob("*.svg")):
            shutil.copyfile(figure, options.docs / "assets" / f"analysis-{name}-{figure.stem}.svg")


if __name__ == "__main__":
    main()
