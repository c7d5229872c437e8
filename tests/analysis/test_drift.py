"""Drift on texts against full logits in float64, one text at a time and without padding."""

from __future__ import annotations

import json
import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.special import log_softmax, rel_entr

from analysis.subjects import moved, steered, subject
from joint_models import draw, joint_model
from tiny_language import tiny_model as language_model
from tiny_models import draw_adapters, tiny_model, token_ids
from trimtab import SteeringConfig, get_strengths
from trimtab.analysis import AnalysisOptions, Subject, analyze, next_tokens
from trimtab.analysis.drift import Drift, drift, token_mean
from trimtab.figures import svg_text

TEXTS = [token_ids(1, length, seed=length)[0].tolist() for length in (7, 3, 11, 1, 7)]


def lora_on_the_head() -> Any:
    """LoRA on attention and on the language-model head."""
    config = LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(tiny_model("llama"), config).eval()


def fine_tuned() -> Subject:
    """A base and a copy of which every weight has moved, the head's too."""
    return subject(tuned=moved(size=0.05))


SUBJECTS = {
    "post-block": lambda: subject(steered()),
    "pre-MLP": lambda: subject(steered(site="mlp_input")),
    "soft-capped logits": lambda: subject(steered("gemma2")),
    "scaled logits": lambda: subject(steered("granite")),
    "gpt2": lambda: subject(steered("gpt2")),
    "opt": lambda: subject(steered("opt")),
    "LoRA on the head": lambda: subject(lora_on_the_head()),
    "joint": lambda: subject(draw(joint_model())),
    "all weights": fine_tuned,
}


def log_probabilities(model: Any, text: list[int]) -> np.ndarray:
    """(tokens, vocabulary), by scipy from the model's own logits."""
    with torch.no_grad():
        return log_softmax(model(input_ids=torch.tensor([text])).logits[0].double().numpy(), axis=1)


def by_hand(chosen: Subject, text: list[int]) -> tuple[float, float]:
    """The mean KL(base || tuned) over the tokens of a text, and the increase of its loss."""
    with chosen.as_base() as model:
        log_p = log_probabilities(model, text)
    with chosen.as_tuned() as model:
        log_q = log_probabilities(model, text)
    following = (range(len(text) - 1), text[1:])
    loss = (log_p[following] - log_q[following]).mean() if len(text) > 1 else math.nan
    return rel_entr(np.exp(log_p), np.exp(log_q)).sum(1).mean(), loss


@pytest.mark.parametrize("name", sorted(SUBJECTS))
def test_drift_is_that_of_the_full_logits(name: str) -> None:
    """KL(base || adapted) and the increase of the loss, for every text, whatever was trained."""
    chosen = SUBJECTS[name]()
    found = drift(chosen, TEXTS, batch_tokens=22)
    assert found.tokens == tuple(map(len, TEXTS))
    assert found.divergence.min() > 1e-4
    for index, text in enumerate(TEXTS):
        kl, loss = by_hand(chosen, text)
        assert found.divergence[0, index].item() == pytest.approx(kl, rel=1e-3, abs=1e-6)
        assert found.loss_increase[0, index].item() == pytest.approx(loss, rel=1e-3, abs=1e-6, nan_ok=True)


def test_the_base_reads_each_batch_once_for_all_strengths() -> None:
    """Strength 0 is no drift, bit for bit; 1 is the adapter; the dial is where it was, and the base ran once."""
    model = steered(strength=0.7)
    passes: list[int] = []
    model.get_base_model().model.register_forward_hook(lambda *_: passes.append(1))
    found = drift(subject(model), TEXTS, strengths=(0.0, 1.0, 2.0), batch_tokens=1000)
    assert len(passes) == 4 + 4  # base and three strengths on one batch; before that two looks at each head
    assert get_strengths(model) == {"default": 0.7}
    assert (found.divergence[0] == 0).all()
    assert found.strengths == (0.0, 1.0, 2.0)
    alone = drift(subject(steered(strength=2.0)), TEXTS)
    torch.testing.assert_close(found.divergence[2], alone.divergence[0], rtol=1e-5, atol=1e-7)
    assert found.divergence[2].sum() > found.divergence[1].sum() > 0


@pytest.mark.parametrize("tokens", [1, 4])
def test_no_more_than_a_block_of_distributions_exists_at_a_time(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head never reads more tokens than a block has, and the blocks add up to the same."""
    model = steered()
    whole = drift(subject(model), TEXTS)
    monkeypatch.setattr(next_tokens, "BLOCK_BYTES", tokens * 4 * 61)
    read: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, __: read.append(inputs[0][..., 0].numel()))
    found = drift(subject(model), TEXTS)
    assert max(read[4:]) == tokens  # behind the look at two tokens, of base and adapter: by itself and in the model
    torch.testing.assert_close(found.divergence, whole.divergence, rtol=1e-5, atol=1e-8)


def test_what_the_base_rules_out_does_not_count() -> None:
    """A word of probability 0 in the base adds nothing, instead of nan."""
    chosen = fine_tuned()
    chosen.model.get_output_embeddings().register_forward_hook(
        lambda _, __, logits: logits.masked_fill(torch.arange(61) == 60, -torch.inf)
    )
    found = drift(chosen, TEXTS)
    assert bool(found.divergence.isfinite().all())
    assert found.divergence[0, 0].item() == pytest.approx(by_hand(chosen, TEXTS[0])[0], rel=1e-3)


def test_measuring_leaves_the_model_as_it_was() -> None:
    """Mode, what is trained, and logits are those from before."""
    model = steered().train()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    drift(subject(model), TEXTS, strengths=(0.5, 2.0))
    assert model.training
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == trained


def test_error_of_texts_of_equal_length() -> None:
    """There it is the standard error of a plain mean."""
    values = torch.randn(2, 9, dtype=torch.float64)
    mean, error = token_mean(values, torch.full((9,), 5))
    for row in range(2):
        numbers = values[row].tolist()
        assert mean[row].item() == pytest.approx(statistics.fmean(numbers))
        assert error[row].item() == pytest.approx(statistics.stdev(numbers) / 3)


def test_error_of_texts_of_unequal_length() -> None:
    """It agrees with the jackknife over texts; the mean is over tokens."""
    tokens = torch.randint(1, 40, (400,))
    values = torch.rand(1, 400, dtype=torch.float64) + tokens / 20
    mean, error = token_mean(values, tokens)
    assert mean.item() == pytest.approx(np.average(values[0].numpy(), weights=tokens.numpy()))
    kept = [torch.arange(400) != left_out for left_out in range(400)]
    partial = np.array([np.average(values[0, each].numpy(), weights=tokens[each].numpy()) for each in kept])
    assert error.item() == pytest.approx(math.sqrt(399 / 400 * ((partial - partial.mean()) ** 2).sum()), rel=0.02)


def test_one_text_has_no_error() -> None:
    """Its mean is known, how far others would be is not."""
    mean, error = token_mean(torch.tensor([[2.0]]), torch.tensor([3]))
    assert mean.item() == 2
    assert error.isnan().all()


def test_as_an_analysis() -> None:
    """On the texts that come with trimtab, at the strengths asked for; words and JSON have the numbers."""
    model = get_peft_model(language_model(), SteeringConfig(r=2)).eval()
    draw_adapters(model, scale=0.1)
    options = AnalysisOptions(max_texts=3, strengths=(0.5, 1.0), batch_tokens=64)
    found = analyze(subject(model), options, only=["drift"]).findings["drift"]
    assert isinstance(found, Drift)
    assert max(found.tokens) == 64  # longer texts are cut into pieces
    assert sum(found.tokens) > 600
    assert "At strength 0.5, KL " in found.summary
    assert f"{len(found.tokens)} texts" in found.caption
    assert len(json.loads(json.dumps(found.to_dict(), allow_nan=False))["divergence"]) == 2
    assert "KL(base || adapted)" in svg_text(found.figure())


def test_without_a_dial() -> None:
    """LoRA and full fine-tuning have one row, and a figure of every text."""
    for chosen in (subject(lora_on_the_head()), fine_tuned()):
        found = drift(chosen, TEXTS)
        assert found.strengths is None
        assert found.summary.startswith("KL ")
        assert "in ascending order" in svg_text(found.figure())


def test_what_cannot_be_measured() -> None:
    """Nothing trained, no dial, no texts; and texts that are not there are named before anything runs."""
    with pytest.raises(ValueError, match="drift cannot be measured here"):
        analyze(subject(), AnalysisOptions(), only=["drift"])
    with pytest.raises(ValueError, match="has no dial"):
        drift(subject(lora_on_the_head()), TEXTS, strengths=(0.5,))
    with pytest.raises(ValueError, match="none of them may be empty"):
        drift(subject(steered()), [[3], []])
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        analyze(subject(steered()), AnalysisOptions(texts="nothing.txt"))
    with pytest.raises(ValueError, match="listops-small"):
        analyze(subject(steered()), AnalysisOptions(texts="listops-smal"))
    with pytest.raises(ValueError, match="strengths="):
        AnalysisOptions(strengths=(math.inf,))
