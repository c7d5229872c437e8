"""The verb `distill`: a LoRA, a run's adapter or a whole model into an adapter that the other verbs read."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from distillation_teachers import lora_teacher
from tiny_directory import save_tiny_model
from tiny_language import byte_tokenizer, tiny_model
from trimtab.cli.distill import distill
from trimtab.cli.parser import UsageError, build_parser, call
from trimtab.distillation import DistillationResult, read_prompts
from trimtab.models import load_model

Run = Callable[[str], None]
FAST = "--examples 12 --answer_tokens 3 --dtype float32 --device cpu"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a LoRA on it, a model fine-tuned in full, a task and prompts."""
    folder = tmp_path_factory.mktemp("cli-distill")
    save_tiny_model(folder / "base")
    base, tokenizer = load_model(folder / "base", dtype="float32", device="cpu")
    tuned = lora_teacher(base)
    tuned.save_pretrained(folder / "lora")
    tuned.merge_and_unload().save_pretrained(folder / "full")
    tokenizer.save_pretrained(folder / "full")
    words = [f"word {number * 7919}" for number in range(20)]
    lines = [json.dumps({"prompt": f"{word}\n", "completion": f"={word[-1]}"}) for word in words]
    (folder / "task.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "prompts.txt").write_text("\n".join(words) + "\n\n")
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`trimtab distill` in an empty folder that has those of the fixture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for each in folder.iterdir():
        Path(each.name).symlink_to(each)
    parser = build_parser({"distill": distill})

    def invoke(line: str) -> None:
        parsed = parser.parse_args(["distill", *shlex.split(line)])
        call(distill, vars(parsed["distill"]))

    return invoke


def test_a_lora_becomes_a_steering_adapter(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Base and tuned are the first words; the adapter is one of PEFT's, the report says what was fitted and scored."""
    run(f"base lora --task task.jsonl {FAST} --score 4 --r 2 --out out")
    result = DistillationResult.load(Path("out/report.json"))
    assert result.adapter["r"] == 2
    assert result.parameters == 3 * (2 * 2 * 32 + 32)
    assert result.after["answers"] < result.before["answers"]
    assert {label: score["n"] for label, score in result.scores.items()} == {"base": 4, "tuned": 4, "distilled": 4}
    assert json.loads(Path("out/adapter_config.json").read_text())["peft_type"] == "STEERING"
    said = capsys.readouterr().out
    assert "distilled: " in said
    assert "adapter and report.json in out" in said


def test_a_whole_model_and_prompts_of_a_file(run: Run) -> None:
    """The same teacher, merged: the same shifts, so nearly the same result; prompts without answers suffice."""
    for teacher in ("lora", "full"):
        run(f"base {teacher} --prompts prompts.txt {FAST} --intervention vector --out {teacher}-vector")
    one, other = (DistillationResult.load(Path(f"{name}-vector/report.json")) for name in ("lora", "full"))
    assert one.after["everywhere"] == pytest.approx(other.after["everywhere"], rel=1e-2)
    assert one.parameters == 3 * 32


def test_what_is_there_is_not_written_over(run: Run) -> None:
    """Neither a distilled adapter without being asked to, nor files of something else at all."""
    run(f"base lora --prompts prompts.txt {FAST} --out out")
    with pytest.raises(FileExistsError, match="--overwrite"):
        run(f"base lora --prompts prompts.txt {FAST} --out out")
    run(f"base lora --prompts prompts.txt {FAST} --out out --overwrite")
    Path("mine").mkdir()
    with pytest.raises(FileExistsError, match="something else"):
        run(f"base lora --prompts prompts.txt {FAST} --out mine --overwrite")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("base lora", "Give --task or --prompts"),
        ("base lora --task task.jsonl --prompts prompts.txt", "one of them"),
        ("base lora --prompts prompts.txt --score 5", "--score needs a task"),
        ("base lora --task task.jsonl --examples 0", "examples=0"),
        ("base lora --task task.jsonl --score -1", "score=-1 must be at least 1, or 0"),
        ("base lora --task lsitops", "Did you mean 'listops'"),
        ("base lora --task task.jsonl --intervention loreft", "no closed form"),
        ("base lora --task task.jsonl --metric logit", "Did you mean 'logits'"),
        ("base lora --prompts prompts.csv", "prompts are read from"),
    ],
)
def test_mistakes_are_named_before_a_model_is_loaded(run: Run, line: str, message: str) -> None:
    """As errors of usage."""
    with pytest.raises(UsageError, match=message):
        run(line)


def test_a_test_split_that_cannot_be_read_is_refused_before_a_model_is_loaded(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where scores were asked for; without them nobody reads it."""
    Path("torn.py").write_text(
        "from dataclasses import dataclass\n"
        "from trimtab.tasks.base import Example, Task\n"
        "@dataclass(frozen=True)\n"
        "class Torn(Task):\n"
        "    name, max_new_tokens, parse = 'torn', 3, str\n"
        "    def examples(self, split, seed):\n"
        "        if split == 'test':\n"
        "            raise FileNotFoundError('no test.jsonl: download it')\n"
        "        return (Example(f'word {i}', '=1', '1', str(i)) for i in range(20))\n"
    )
    run(f"base lora --task torn.py {FAST} --out unscored")
    monkeypatch.setattr("trimtab.cli.distill.load_model", None)
    with pytest.raises(FileNotFoundError, match="download it"):
        run(f"base lora --task torn.py {FAST} --score 4 --out scored")


def test_a_test_prompt_that_is_too_long_is_refused_before_anything_is_answered(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example is named, as when it is evaluated; training prompts alone would do."""
    lines = [{"prompt": f"word {number}\n", "completion": "=1"} for number in range(12)]
    Path("short.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("long.jsonl").write_text(json.dumps({"prompt": "word " * 3000, "completion": "=1"}) + "\n")
    monkeypatch.setattr("trimtab.cli.distill.answered", None)
    with pytest.raises(ValueError, match=r"Example 'long.jsonl:1' has a prompt of .* context of 1,024"):
        run(f"base lora --task short.jsonl --task_options.test long.jsonl {FAST} --score 1 --out out")


def test_a_tuned_model_that_is_the_base_leaves_nothing(run: Run, folder: Path) -> None:
    """There is no shift to fit: an error, and neither an adapter nor a report."""
    with pytest.raises(ValueError, match="there is no shift to fit"):
        run(f"base {folder / 'base'} --prompts prompts.txt {FAST} --out out")
    assert not Path("out").exists()
    assert {each.name for each in Path().iterdir()} == {each.name for each in folder.iterdir()}


def test_another_tokenizer_is_refused(run: Run, folder: Path) -> None:
    """The first token that differs is named."""
    other = Path("other")
    tiny_model().save_pretrained(other)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(other)
    assert len(AutoTokenizer.from_pretrained(other)) > len(byte_tokenizer())
    with pytest.raises(ValueError, match="the token '<extra>' is id 258 there and not known in the base"):
        run(f"base other --prompts prompts.txt {FAST}")


def test_an_adapter_for_another_base_is_refused(run: Run) -> None:
    """Shapes that do not fit are said to be another base's, not torch's list of them."""
    tiny_model(hidden_size=16).save_pretrained("small")
    byte_tokenizer().save_pretrained("small")
    with pytest.raises(ValueError, match="made for another base model"):
        run(f"small lora --prompts prompts.txt {FAST}")


def test_prompts_of_files(tmp_path: Path) -> None:
    """Lines of a .txt, "prompt" of a .jsonl; a missing file, an empty one and another suffix are errors."""
    (tmp_path / "a.jsonl").write_text('{"prompt": "one", "other": 1}\n{"prompt": "two"}\n')
    (tmp_path / "b.txt").write_text("one\n\ntwo\n")
    (tmp_path / "c.txt").write_text("\n")
    for name in ("a.jsonl", "b.txt"):
        assert [example.prompt for example in read_prompts(tmp_path / name)] == ["one", "two"]
    with pytest.raises(ValueError, match="holds no prompt"):
        read_prompts(tmp_path / "c.txt")
    with pytest.raises(FileNotFoundError):
        read_prompts(tmp_path / "d.txt")
    with pytest.raises(ValueError, match="only"):
        read_prompts(tmp_path / "e.csv")
