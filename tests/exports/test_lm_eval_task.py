"""A task for lm-evaluation-harness, by what the harness is given: prompts, settings, and functions that score."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from trimtab.exports import Source, get_export
from trimtab.tasks import Task, get_task

DATA = Path(__file__).parents[1] / "data"
ADVERSARIAL = [
    "",
    "Answer: (B)",
    "the answer is c. No: answer: (D) x",
    "42",
    "1,234.50",
    "Answer: true/false",
    "é\u2028\x00",
]
OWN = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
from trimtab.tasks.base import Example, Task

@dataclass(frozen=True)
class Vowels(Task):
    most: int = 5
    name: ClassVar[str] = "vowels.v2"
    max_new_tokens: ClassVar[int] = 3

    def examples(self, split, seed):
        return (Example(f"{'a' * i}\\n", "e" * i, str(i), f"{split}:{i}") for i in range(1, self.most))

    def parse(self, output):
        return output.strip() or None

    def is_correct(self, parsed, label):
        return parsed is not None and abs(len(parsed) - int(label)) <= 1
"""


def files(folder: Path) -> tuple[dict[str, Any], Any]:
    """The YAML of an exported folder, and the module whose functions it names by `!function MODULE.NAME`."""
    spec = importlib.util.spec_from_file_location(f"scoring_of_{folder.name}", folder / "scoring.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Loader(yaml.SafeLoader):
        pass

    def named(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        file, _, name = str(node.value).rpartition(".")
        assert file == "scoring"
        return getattr(module, name)

    Loader.add_constructor("!function", named)
    (configuration,) = folder.glob("*.yaml")
    return yaml.load(configuration.read_text(), Loader), module  # noqa: S506 - a safe loader and one word


def scored(configuration: dict[str, Any], document: dict[str, str], output: str) -> float:
    """What the harness makes of an output, from its response on."""
    filters = configuration["filter_list"][0]["filter"]
    assert [each["function"] for each in filters] == ["custom", "take_first"]
    ((answer,),) = filters[0]["filter_fn"]([[output]], [document])
    (value,) = configuration["process_results"](document, [answer]).values()
    return float(value)


def tasks(folder: Path) -> dict[str, Task]:
    """A stored task, a drawn one, and one of the user's own in each form."""
    rows = [{"prompt": f"{i}?\n", "completion": f"Result: 2020-01-{i:02}"} for i in range(1, 9)]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "own.yaml").write_text("train: own.jsonl\ntest: 0.5\nanswer: 'Result: (\\S+)'\nmax_new_tokens: 7\n")
    (folder / "own.py").write_text(OWN)
    return {
        "stored": get_task("arc_challenge", data_dir=str(DATA / "arc_challenge")),
        "drawn": get_task("listops-small", max_depth=2),
        "jsonl": get_task(str(folder / "own.jsonl"), answer=r"Result: (\S+)"),
        "yaml": get_task(str(folder / "own.yaml")),
        "python": get_task(str(folder / "own.py"), most=7),
    }


@pytest.mark.parametrize("form", ["stored", "drawn", "jsonl", "yaml", "python"])
def test_the_harness_gets_our_prompts_and_our_rule(form: str, tmp_path: Path) -> None:
    """In order; answers are right for it when they are for us; also after the folder has moved, data and all gone."""
    (tmp_path / "data").mkdir()
    task = tasks(tmp_path / "data")[form]
    examples = task.load("test", limit=20, seed=1)
    said = get_export("lm-eval").write(Source(task=task, examples=20, data_seed=1), tmp_path / "out")
    shutil.rmtree(tmp_path / "data")
    configuration, _ = files((tmp_path / "out").rename(tmp_path / "elsewhere"))
    assert f"--tasks {configuration['task']}" in said
    assert "." not in configuration["task"]
    documents = list(configuration["custom_dataset"]()[configuration["test_split"]])
    prompts, labels = configuration["doc_to_text"], configuration["doc_to_target"]
    assert [(each[prompts], each[labels]) for each in documents] == [(e.prompt, e.label) for e in examples]
    for document, example in zip(documents, examples, strict=True):
        for output in (*ADVERSARIAL, example.completion, example.completion + "\nAnswer: (A)"):
            assert scored(configuration, document, output) == task.is_correct(task.parse(output), example.label)
        assert scored(configuration, document, example.completion) == 1


def test_answers_are_generated_as_ours_are(tmp_path: Path) -> None:
    """Greedily, to the end of the text, within the task's limit; accuracy is a mean."""
    get_export("lm-eval").write(Source(task=tasks(tmp_path)["drawn"], examples=2), tmp_path / "out")
    configuration, _ = files(tmp_path / "out")
    assert configuration["output_type"] == "generate_until"
    assert configuration["generation_kwargs"] == {"until": [], "do_sample": False, "max_gen_toks": 10}
    assert [each["aggregation"] for each in configuration["metric_list"]] == ["mean"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "prompts.jsonl",
        "scoring.py",
        "task.json",
        "trimtab_listops_small.yaml",
    }
