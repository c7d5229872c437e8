"""A training run: its steps, its directory, and the models that it takes and gives."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel, get_peft_model
from torch.nn import functional
from transformers import TrainerCallback

from small_runs import SETTINGS, run, tensors
from tiny_language import EOS, LastLetter, byte_tokenizer, tiny_model
from trimtab import SteeringConfig
from trimtab.methods import get_method
from trimtab.models import model_name
from trimtab.training import TrainingSettings, load_run, train


class BatchesSeen(TrainerCallback):
    """The order of the training examples, as the sampler gave it."""

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read the sampler of the last epoch."""
        self.order = list(kwargs["train_dataloader"].batch_sampler.sampler)


@pytest.mark.parametrize("max_grad_norm", [0.0, 0.05, 1.0])
def test_steps_equal_a_loop_written_by_hand(tmp_path: Path, max_grad_norm: float) -> None:
    """Three steps give the weights of AdamW written out: constant rate, clipping, mean over the labels."""
    seen = BatchesSeen()
    finished = run(tmp_path / "run", settings=replace(SETTINGS, max_grad_norm=max_grad_norm), callbacks=[seen])
    tokenizer = byte_tokenizer()
    base = tiny_model()
    torch.manual_seed(SETTINGS.seed)
    model = get_peft_model(base, SteeringConfig(r=8))
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in trained.items()}
    examples = LastLetter().load("train", seed=SETTINGS.data_seed)
    for step in range(3):
        total, count = torch.zeros(()), 0
        for index in seen.order[8 * step : 8 * step + 8]:
            prompt = tokenizer(examples[index].prompt).input_ids
            ids = torch.tensor([prompt + tokenizer(examples[index].completion).input_ids])
            log_p = functional.log_softmax(model(input_ids=ids).logits[0], -1)
            for position in range(len(prompt), ids.shape[1]):
                total = total - log_p[position - 1, ids[0, position]]
                count += 1
        model.zero_grad()
        (total / count).backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in trained.values()))
        for name, parameter in trained.items():
            clipped = max(1.0, (float(norm) + 1e-6) / max_grad_norm) if max_grad_norm else 1.0
            gradient = parameter.grad / clipped
            first, second = moments[name]
            first.mul_(0.9).add_(0.1 * gradient)
            second.mul_(0.999).add_(0.001 * gradient**2)
            unbiased = (first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1)))
            with torch.no_grad():
                parameter -= 2e-3 * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        line = finished.metrics()[step]
        assert line["loss"] == pytest.approx(float(total.detach() / count), rel=1e-4)
        assert line["grad_norm"] == pytest.approx(float(norm), rel=1e-3)
    expected = {name.replace(".default", ""): value for name, value in trained.items()}
    for name, value in tensors(finished).items():
        torch.testing.assert_close(value, expected[name].detach(), rtol=1e-3, atol=2e-5, msg=name)


def test_accumulated_steps_equal_whole_batches(tmp_path: Path) -> None:
    """Four micro-batches of two make the step of one batch of eight."""
    task = LastLetter(count=16)
    whole = run(tmp_path / "whole", task=task)
    parts = run(tmp_path / "parts", task=task, settings=TrainingSettings(**{**vars(SETTINGS), "accumulation": 4}))
    for name, value in tensors(whole).items():
        torch.testing.assert_close(tensors(parts)[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_cosine_schedule_and_constant_rate(tmp_path: Path) -> None:
    """LoRA warms up and decays to zero along a cosine; steering keeps its rate."""
    settings = TrainingSettings(batch_size=8, epochs=4)
    method = get_method("lora", learning_rate=1e-3, warmup_ratio=0.25)
    rates = [line["learning_rate"] for line in run(tmp_path / "lora", method, settings=settings).metrics()]
    warm = [step / 3 for step in range(3)]
    cosine = [0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * step / 9)))) for step in range(9)]
    assert rates == pytest.approx([1e-3 * share for share in warm + cosine], abs=1e-9)
    steering = run(tmp_path / "steering", settings=settings).metrics()
    assert {line["learning_rate"] for line in steering} == {2e-3}


def test_run_directory_holds_everything(tmp_path: Path) -> None:
    """Adapter, recipe, metrics, environment and result; no pickle and no checkpoint stays behind."""
    finished = run(tmp_path / "run")
    recipe = yaml.safe_load(finished.recipe_file.read_text())
    assert recipe["task"] == {"name": "last-letter", "count": 24, "longest": 12}
    assert recipe["method"]["adapter"] == {"r": 8}
    assert recipe["training"]["seed"] == 1
    assert [line["step"] for line in finished.metrics()] == [1, 2, 3]
    environment = json.loads(finished.environment_file.read_text())
    assert environment["versions"]["torch"] == torch.__version__
    result = finished.result()
    assert (result.steps, result.examples, result.seed) == (3, 24, 1)
    assert result.trainable_parameters == 3 * 2 * 32 * 8
    words = LastLetter().load("train", seed=2)
    assert result.tokens == sum(len(e.prompt + e.completion) for e in words)
    names = sorted(path.relative_to(finished.path).as_posix() for path in finished.path.rglob("*") if path.is_file())
    assert names == [
        "environment.json",
        "metrics.jsonl",
        "recipe.yaml",
        "result.json",
        "weights/README.md",
        "weights/adapter_config.json",
        "weights/adapter_model.safetensors",
    ]


def test_a_model_that_is_passed_stays_what_it_was(tmp_path: Path) -> None:
    """After training, the base answers bit for bit as before and carries nothing of PEFT or TRL."""
    model = tiny_model()
    ids = torch.arange(12)[None]
    before, keys = model(input_ids=ids).logits, set(model.state_dict())
    run(tmp_path / "run", model=model)
    assert torch.equal(model(input_ids=ids).logits, before)
    assert set(model.state_dict()) == keys
    assert "forward" not in vars(model)


@pytest.mark.parametrize("method", ["post-block", "lora", "sft"])
def test_load_run_gives_the_trained_model(tmp_path: Path, method: str) -> None:
    """The model of a run directory answers with the trained weights, which are not the base's."""
    base = tiny_model()
    base.save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    settings = TrainingSettings(max_steps=2, dtype="float32")
    finished = train(tmp_path / "base", method, LastLetter(), tmp_path / "run", settings=settings, progress=False)
    model, tokenizer = load_run(tmp_path / "run", dtype="float32")
    assert tokenizer.eos_token == EOS
    ids = torch.arange(12)[None]
    assert not torch.allclose(model(input_ids=ids).logits, base(input_ids=ids).logits, atol=1e-4)
    named = {name.replace(".default", ""): value for name, value in model.state_dict().items()}
    for name, value in tensors(finished).items():
        assert torch.equal(named[name], value), name
    if isinstance(model, PeftModel):
        assert model_name(model) == str(tmp_path / "base")


def test_full_fine_tuning_moves_every_weight(tmp_path: Path) -> None:
    """SFT of a bfloat16 base trains all weights, in float32."""
    base = tiny_model(tie_word_embeddings=False).to(torch.bfloat16)
    before = copy.deepcopy(base.state_dict())
    finished = run(tmp_path / "run", "sft", model=base, settings=TrainingSettings(max_steps=3))
    after = tensors(finished)
    assert set(after) == set(before)
    for name, value in after.items():
        assert value.dtype == torch.float32
        assert not torch.equal(value, before[name].float()), name


def test_bfloat16_base_gets_a_float32_adapter(tmp_path: Path) -> None:
    """Mixed precision as on a CPU: the base computes in bfloat16, the adapter is kept in float32."""
    finished = run(tmp_path / "run", model=tiny_model().to(torch.bfloat16))
    assert {value.dtype for value in tensors(finished).values()} == {torch.float32}


def test_prompt_positions_are_trained_at_the_prompts_end(tmp_path: Path) -> None:
    """Though no labels reach the model, the trainer says where prompts end."""
    finished = run(tmp_path / "run", get_method("post-block", positions="last_prompt"))
    model, tokenizer = tiny_model(), byte_tokenizer()
    torch.manual_seed(SETTINGS.seed)
    steered = get_peft_model(model, SteeringConfig(r=8, positions="last_prompt"))
    first = LastLetter().load("train", seed=2)[0]
    prompt = len(tokenizer(first.prompt).input_ids)
    ids = torch.tensor([tokenizer(first.prompt + first.completion).input_ids])
    labels = ids.clone()
    labels[:, :prompt] = -100
    steered(input_ids=ids, labels=labels).loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in steered.parameters())
    everywhere = run(tmp_path / "all")
    assert finished.metrics()[0]["loss"] == pytest.approx(everywhere.metrics()[0]["loss"], rel=1e-6)
    assert finished.metrics()[0]["grad_norm"] != pytest.approx(everywhere.metrics()[0]["grad_norm"], rel=1e-2)


def test_rare_logging_still_gives_a_loss(tmp_path: Path) -> None:
    """Fewer steps than the logging interval: one line, the mean."""
    every = [line["loss"] for line in run(tmp_path / "every").metrics()]
    rare = run(tmp_path / "rare", settings=TrainingSettings(**{**vars(SETTINGS), "log_every": 50}))
    assert rare.result().loss == pytest.approx(sum(every) / 3, rel=1e-5)


def test_progress_bar_shows_steps_loss_speed_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard error; standard output stays free. At its end nothing is left."""
    monkeypatch.setenv("COLUMNS", "200")
    finished = run(tmp_path / "run", progress=True)
    captured = capsys.readouterr()
    loss = finished.metrics()[-1]["loss"]
    assert re.search(rf"post-block on last-letter \S+ 3/3 loss {loss:.3f}  [\d,]+ tokens/s ", captured.err)
    assert captured.err.rstrip().endswith(" left 0:00:00")
    assert captured.out == ""


@pytest.mark.parametrize("method", ["post-block", "post-block-normalized"])
def test_a_run_starts_from_the_gradient_if_asked(tmp_path: Path, method: str) -> None:
    """With a rate too small to move anything, W_down has the orthogonal rows of that start, and no other start has."""
    settings = TrainingSettings(max_steps=1, start_examples=10)

    def gram(init_weights: bool | str) -> torch.Tensor:
        chosen = get_method(method, init_weights=init_weights, learning_rate=1e-12)
        finished = run(tmp_path / str(init_weights), chosen, settings=settings)
        (down,) = (value for name, value in tensors(finished).items() if "layers.1." in name and name.endswith("down"))
        return down @ down.T

    torch.testing.assert_close(gram("gradient"), torch.eye(8) / 3, rtol=0, atol=1e-5)
    assert (gram(True) - torch.eye(8) / 3).abs().max() > 0.01
