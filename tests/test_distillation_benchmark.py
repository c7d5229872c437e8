"""benchmarks/distillation.py: every cell is measured once, tables and figure say what the cells say."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from tiny_directory import save_tiny_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_a_small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a tiny model: fits, ranks and trainings of one task; started again nothing is measured again."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("distillation")
    kept = ("parallel, plain squares", "answers half", "later half of the layers")
    monkeypatch.setattr(script, "VARIANTS", {name: script.VARIANTS[name] for name in kept})
    model = str(save_tiny_model(tmp_path / "model"))
    sizes = "--teacher_examples 8 --prompts 6 --answer_tokens 3 --tune 4 --validation 3 --test 3 --ranks 2 --rates 1e-3"
    folders = [f"--{name}={tmp_path / name}" for name in ("runs", "results", "docs")]
    words = ["distillation.py", "--model", model, "--tasks", "listops-small", *sizes.split(), *folders]
    monkeypatch.setattr(sys, "argv", words)
    script.main()
    written = (tmp_path / "results" / "distillation.json").read_text(encoding="utf-8")
    content = json.loads(written, parse_constant=pytest.fail)  # one held-out text has no error: null, not NaN
    assert content["cells"]["listops-small: rank 2 distilled"]["kl"]["answers_error"] is None
    cells = content["cells"]
    assert {name for name in cells if "variant" in name} == {f"listops-small: variant {name}" for name in kept}
    for student in ("rank 2", "vector"):
        for run in ("distilled", "distilled, trained", "scratch, as many examples", "scratch, as long"):
            assert cells[f"listops-small: {student} {run}"]["n"] == 3
    assert cells["listops-small: vector distilled"]["parameters"] in (3 * 32, 2 * 32)
    page = (tmp_path / "results" / "distillation.md").read_text(encoding="utf-8")
    assert page.count("| rank 2 |") == page.count("| vector |") == 1
    assert (tmp_path / "docs" / "assets" / "distillation.svg").read_text(encoding="utf-8").count("listops-small") >= 2

    models = importlib.import_module("_distillation_models")
    monkeypatch.setattr(models, "distill", None)
    monkeypatch.setattr(models, "train", None)
    monkeypatch.setattr(models, "evaluate", None)
    script.main()
    monkeypatch.setattr(sys, "argv", [*words, "--test", "4"])
    with pytest.raises(SystemExit, match="other settings"):
        script.main()


def test_a_short_run_begins_at_the_distilled_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback puts the saved numbers in at the start, and leaves a resumed run alone."""
    import torch
    from peft import get_peft_model
    from transformers import TrainerControl, TrainerState

    from tiny_models import draw_adapters, steering_layers, tiny_model
    from trimtab import SteeringConfig

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    models = importlib.import_module("_distillation_models")
    saved, fresh = (get_peft_model(tiny_model("llama"), SteeringConfig(r=2)) for _ in range(2))
    draw_adapters(saved)
    saved.save_pretrained(tmp_path)
    start = models.StartAt(tmp_path)
    start.on_train_begin(None, TrainerState(global_step=3), TrainerControl(), model=fresh)
    assert not steering_layers(fresh)[0].intervention("default").up.any()
    start.on_train_begin(None, TrainerState(global_step=0), TrainerControl(), model=fresh)
    for ours, theirs in zip(steering_layers(fresh), steering_layers(saved), strict=True):
        assert torch.equal(ours.intervention("default").up, theirs.intervention("default").up)


def test_the_share_of_the_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """(distilled - base) / (tuned - base), each a share of its own n."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    report = importlib.import_module("_distillation_report")
    cells = [{"correct": correct, "n": n} for correct, n in ((20, 50), (10, 100), (70, 100))]
    assert report.recovered(*cells) == pytest.approx(0.5)


def test_each_task_keeps_the_commands_that_measured_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later command on another task leaves a task's environment as it is; on the same task it is added."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    path = tmp_path / "distillation.json"
    for line in ("d.py --tasks a", "d.py --tasks b", "d.py --tasks a", "d.py --tasks a --again"):
        monkeypatch.setattr(sys, "argv", line.split())
        book = importlib.import_module("_distillation_book").Book(path)  # each command reads what is there
        task = line.split()[2]
        for cell in ("one", "two"):
            book.cell(task, f"{cell} of {line}", dict)
    recorded = json.loads(path.read_text(encoding="utf-8"))["environment"]
    commands = {task: [each["command"] for each in environments] for task, environments in recorded.items()}
    assert commands == {"a": ["d.py --tasks a", "d.py --tasks a --again"], "b": ["d.py --tasks b"]}


def test_tables_have_the_divergence_of_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after, of the committed cells, which have no errors, and of cells that have."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    report = importlib.import_module("_distillation_report")
    content = json.loads((BENCHMARKS / "results" / "distillation.json").read_text(encoding="utf-8"))
    assert content["environment"].keys() == content["settings"].keys()
    for task, student in (("listops-small", "rank 8"), ("boolq", "vector")):
        cell = content["cells"][f"{task}: {student} distilled"]
        cell["kl_before"], cell["kl"] = ({"answers": value, "everywhere": 1.0} for value in (7.5, 0.25))
        assert sum(row.endswith("| 7.5000 | 0.2500 |") for row in report.markdown(content).splitlines()) == 1
        cell["kl"] |= {"answers_error": 0.125, "everywhere_error": None}
        (row,) = (each for each in report.markdown(content).splitlines() if "| 7.5000 |" in each)
        assert row.startswith(f"| {student} | {cell['parameters']:,} |")
        assert row.endswith("| 7.5000 | 0.2500 ± 0.1250 |")
        cell["kl_before"] = {"answers": 1.0}
