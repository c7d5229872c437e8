"""A task for lm-evaluation-harness: its prompts, its generation limit and its way to read answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from trimtab.exports.base import Export, Source
from trimtab.exports.lm_eval_scoring import DESCRIPTION, METRIC, PROMPTS, SPLIT
from trimtab.files import new_directory, write_text
from trimtab.tasks import Example, JsonlTask, Task, task_names
from trimtab.tasks.python_file import file_of

_SCORING = '''"""How answers to this task are read and scored: by trimtab, which has to be installed."""

from pathlib import Path

from trimtab.exports.lm_eval_scoring import Scoring

scoring = Scoring(Path(__file__).parent)
load, parse, score = scoring.load, scoring.parse, scoring.score
'''

_CONFIGURATION = """# {description}
task: {title}
custom_dataset: !function scoring.load
test_split: {split}
output_type: generate_until
doc_to_text: prompt
doc_to_target: label
generation_kwargs:
  until: []  # up to the end of the text, as `trimtab eval` does
  do_sample: false
  max_gen_toks: {tokens}
filter_list:
  - name: trimtab
    filter:
      - function: custom
        filter_fn: !function scoring.parse
      - function: take_first
process_results: !function scoring.score
metric_list:
  - metric: {metric}
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


class LmEvalTask(Export):
    """A folder for `lm_eval --include_path`: `generate_until` on our prompts, greedily, scored by our rule.

    | file | what |
    | --- | --- |
    | `trimtab_TASK.yaml` | the task as lm-evaluation-harness reads it; its name there is `trimtab_TASK` |
    | `prompts.jsonl` | a line for each example: id, prompt and label |
    | `task.json` | name and options of the task, by which answers are read |
    | `scoring.py` | the functions that the YAML names; they call `Task.parse` and `Task.is_correct` |

    The folder can be moved. Of a task in a Python file it holds a copy.
    """

    name = "lm-eval"
    of = "task"

    def write(self, source: Source, out: Path) -> str:
        """As `Export.write`; the data of the task is read."""
        self.check(source, out)
        task = cast(Task, source.task)
        examples = task.load(source.split, limit=source.examples, seed=source.data_seed)
        title = f"trimtab_{task.name}".replace("-", "_").replace(".", "_")
        count = f"{len(examples):,} examples of {source.split}, data_seed {source.data_seed}"
        with new_directory(out) as folder:
            write_text(folder / DESCRIPTION, json.dumps(_description(task, folder), indent=2, default=str) + "\n")
            write_text(folder / PROMPTS, "".join(_line(example) for example in examples))
            write_text(folder / "scoring.py", _SCORING)
            configuration = _CONFIGURATION.format(
                description=f"trimtab's task {task.name!r}: {count}",
                title=title,
                split=SPLIT,
                tokens=task.max_new_tokens,
                metric=METRIC,
            )
            write_text(folder / f"{title}.yaml", configuration)
        return f"{count} in {out}\nnext: lm_eval run --include_path {out} --tasks {title} --model hf --model_args ..."


def _line(example: Example) -> str:
    """Id, prompt and label; the lines are in the order of `Task.load`."""
    content = {"id": example.id, "prompt": example.prompt, "label": example.label}
    return json.dumps(content, ensure_ascii=False) + "\n"


def _description(task: Task, folder: Path) -> dict[str, Any]:
    """Name and options with which `get_task` makes the task again; a Python file is copied into `folder`."""
    options = {each.name: getattr(task, each.name) for each in fields(cast(Any, task))}
    if isinstance(task, JsonlTask) or task.name in task_names():
        return {"name": task.name, "options": options}
    file = file_of(task)
    if file is None:
        raise ValueError(
            f"The task {task.name!r} is neither one of trimtab's nor in a file of its own, so another program cannot "
            "find its rule. Put its class into a Python file and name that: get_task('my_task.py')."
        )
    shutil.copyfile(file, folder / file.name)
    return {"name": file.name, "options": options}
