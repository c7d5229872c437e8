"""Does lm-evaluation-harness score a steered model as `trimtab eval` does?

    python benchmarks/lm_eval_agreement.py --adapter runs/arc --examples 300     # 10 minutes on one core

Exports the adapter's own task, lets both score the model, and compares every answer. Writes lm_eval_agreement.json into
benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from trimtab.cli.recipes import flatten
from trimtab.evaluation import evaluate
from trimtab.exports import Source, get_export
from trimtab.exports.lm_eval_run import score_with_lm_eval
from trimtab.files import read_json_lines, write_text
from trimtab.tasks import get_task
from trimtab.training import RunDirectory, load_run


def main() -> None:
    """Score twice, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="a run directory that was not trained with chat")
    parser.add_argument("--data_dir", help="the task's files, if they are elsewhere than in training")
    parser.add_argument("--split", default="test")
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = flatten(RunDirectory(Path(options.adapter)).recipe())
    own = recipe["task_options"] | ({"data_dir": options.data_dir} if options.data_dir else {})
    task = get_task(recipe["task"], **own)
    model, tokenizer = load_run(Path(options.adapter))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = Source(task=task, split=options.split, examples=options.examples)
        get_export("lm-eval").write(source, folder / "task")
        ours = evaluate(
            model, tokenizer, task, split=options.split, limit=options.examples, out=folder / "records.jsonl"
        )
        records = read_json_lines(folder / "records.jsonl")
        theirs = score_with_lm_eval(model, tokenizer, folder / "task", batch_size=options.batch_size)
    same = [record["output"] == output for record, output in zip(records, theirs.outputs, strict=True)]
    result: dict[str, Any] = {
        "task": task.name,
        "method": RunDirectory(Path(options.adapter)).result().method,
        "split": options.split,
        "n": ours.accuracy.n,
        "trimtab": {"accuracy": ours.accuracy.value, "standard_error": ours.accuracy.standard_error},
        "lm_eval": {
            "accuracy": theirs.accuracy,
            "standard_error": theirs.standard_error,
            "version": version("lm_eval"),
        },
        "identical_outputs": sum(same),
        "within_one_standard_error": abs(ours.accuracy.value - theirs.accuracy) <= ours.accuracy.standard_error,
        "environment": asdict(ours.environment),
    }
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / "lm_eval_agreement.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "environment"}, indent=1))


if __name__ == "__main__":
    main()
