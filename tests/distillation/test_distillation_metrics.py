"""Metrics and weights of errors, and the divergence, against formulas written out on a small vocabulary."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from distillation_teachers import lora_teacher, texts
from tiny_models import tiny_model
from trimtab.distillation import DistillationSettings, divergence
from trimtab.distillation.divergence import kl
from trimtab.distillation.metrics import error_costs, gradient_moments, logit_metric
from trimtab.distillation.streams import BlockRunner
from trimtab.distillation.texts import batches
from trimtab.encoding import Encoded


def log_probabilities(model: torch.nn.Module, text: Encoded) -> Tensor:
    """log p of the next token at every position of one text, in float64."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*text.prompt, *text.completion]])).logits[0]
    return torch.log_softmax(logits.double(), -1)


def test_the_divergence_is_that_of_the_texts_one_by_one() -> None:
    """sum p (log p - log q), averaged where answers are predicted and everywhere, without padding."""
    base = tiny_model("llama")
    tuned = lora_teacher(base)
    found = divergence(BlockRunner(tuned), BlockRunner(base), batches(texts(7), 60, base.device))
    everywhere, answers = [], []
    for text in texts(7):
        log_p, log_q = log_probabilities(tuned, text), log_probabilities(base, text)
        each = (log_p.exp() * (log_p - log_q)).sum(-1)
        everywhere.append(each)
        answers.append(each[len(text.prompt) - 1 : -1])
    assert found.everywhere == pytest.approx(float(torch.cat(everywhere).mean()), rel=1e-4)
    assert found.answers == pytest.approx(float(torch.cat(answers).mean()), rel=1e-4)
    assert (found.answer_positions, found.positions) == (21, sum(map(len, texts(7))))


def test_the_error_of_the_divergence_is_over_texts() -> None:
    """That of a ratio of sums over texts, in numpy: no text's positions are counted as draws of their own."""
    base = tiny_model("llama")
    tuned = lora_teacher(base)
    given = [*texts(6), *texts(3, seed=1, answer=1), Encoded([5, 6, 7, 8], [])]  # the last one has no answer
    found = divergence(BlockRunner(tuned), BlockRunner(base), batches(given, 40, base.device))
    sums, counts = np.zeros((2, 10)), np.zeros((2, 10))
    for index, text in enumerate(given):
        log_p, log_q = (log_probabilities(model, text).numpy() for model in (tuned, base))
        each = (np.exp(log_p) * (log_p - log_q)).sum(-1)
        for row, part in enumerate((each[len(text.prompt) - 1 : -1], each)):
            sums[row, index], counts[row, index] = part.sum(), len(part)
    for row, error in enumerate((found.answers_error, found.everywhere_error)):
        s, n = sums[row, counts[row] > 0], counts[row, counts[row] > 0]
        residual = s - n * s.sum() / n.sum()
        assert error == pytest.approx(np.sqrt(len(n) * residual.var(ddof=1)) / n.sum(), rel=1e-3)


def test_one_text_has_no_error() -> None:
    """NaN; of answers too where there are none, together with their mean."""
    runner = BlockRunner(tiny_model("gpt2"))
    found = divergence(runner, runner, batches([Encoded([5, 6, 7], [])], 40, torch.device("cpu")))
    assert [math.isnan(each) for each in (found.answers, found.answers_error, found.everywhere_error)] == [True] * 3
    assert (found.answer_positions, found.positions) == (0, 3)


def test_words_that_are_ruled_out_do_not_count() -> None:
    """Both models give the padded end of the vocabulary -inf: KL is that of the rest."""
    generator = torch.Generator().manual_seed(0)
    reference, logits = (torch.randn(3, 9, generator=generator) for _ in range(2))
    cut = [torch.nn.functional.pad(each, (0, 2), value=-torch.inf) for each in (reference, logits)]
    assert_close(kl(*cut), kl(reference, logits))


def test_nothing_diverges_from_itself() -> None:
    """KL 0; no text is an error."""
    runner = BlockRunner(tiny_model("gpt2"))
    assert divergence(runner, runner, batches(texts(3), 1000, torch.device("cpu"))).everywhere < 1e-6
    with pytest.raises(ValueError, match="no text"):
        divergence(runner, runner, [])


def test_the_metric_of_logits_is_the_fisher_information_of_the_last_norm_and_head() -> None:
    """D W^T (diag(p) - p p^T) W D with the norm's own gain D, token by token; p the mean of both models'."""
    base = tiny_model("llama")
    tuned = lora_teacher(base)
    found = logit_metric(BlockRunner(base), BlockRunner(tuned), batches(texts(6), 60, base.device))
    head, gain = base.lm_head.weight.detach().double(), base.model.norm.weight.detach().double()
    wanted = torch.zeros(24, 24, dtype=torch.float64)
    count = 0
    for text in texts(6):
        both = (log_probabilities(base, text).exp() + log_probabilities(tuned, text).exp()) / 2
        for p in both[len(text.prompt) - 1 : -1]:
            wanted += torch.diag(gain) @ head.T @ (torch.diag(p) - torch.outer(p, p)) @ head @ torch.diag(gain)
            count += 1
    assert_close(found.double(), wanted / count, rtol=1e-2, atol=1e-3 * float(wanted.abs().max() / count))


def test_a_metric_of_half_precision_is_positive_where_the_models_are_sure() -> None:
    """Where p is nearly one word, diag(p) - p p^T is a small difference: rounding must not outweigh it."""
    base = tiny_model("llama")
    with torch.no_grad():
        base.lm_head.weight.mul_(500)
    tuned = lora_teacher(base)
    runners = BlockRunner(base.to(torch.bfloat16)), BlockRunner(tuned.to(torch.bfloat16))
    found = logit_metric(*runners, batches(texts(6), 60, base.device)).double()
    values = torch.linalg.eigvalsh((found + found.T) / 2)
    assert values[0] > -1e-5 * values[-1]


def test_gradients_are_those_of_the_drawn_tokens() -> None:
    """Over many draws, sum g g^T behind the last layer is its expectation, from the derivative for every token."""
    base = tiny_model("gpt2")
    tuned = lora_teacher(base)
    text = texts(1)[0]
    repeats = 600
    runners = BlockRunner(base), BlockRunner(tuned)
    outer, squares = gradient_moments(*runners, batches([text] * repeats, 3000, base.device), seed=0)
    for layer in range(3):
        total = sum(float(each[layer].sum()) for each in squares)
        assert total == pytest.approx(float(outer[layer].trace()), rel=1e-4)

    (batch,) = batches([text], 1000, base.device)
    stream = runners[1].run(batch, 0, 2)[0].double()
    norm, head = copy_in_double(tuned)
    wanted = torch.zeros(24, 24, dtype=torch.float64)
    p = (log_probabilities(base, text).exp() + log_probabilities(tuned, text).exp()) / 2
    for position in range(len(text.prompt) - 1, len(text) - 1):
        gradients = torch.autograd.functional.jacobian(
            lambda h: torch.log_softmax(head(norm(h)), -1), stream[position]
        )  # (vocabulary, d)
        wanted += gradients.T @ (p[position][:, None] * gradients)
    error = (outer[2].double() / repeats - wanted).norm() / wanted.norm()
    assert float(error) < 0.15


def copy_in_double(tuned: torch.nn.Module) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The last norm and the head of GPT-2, without adapters, in float64."""
    inner = tuned.get_base_model()
    head = torch.nn.Linear(24, 61, bias=False).double()
    with torch.no_grad():
        head.weight.copy_(inner.get_output_embeddings().weight)
    norm = torch.nn.LayerNorm(24, eps=inner.transformer.ln_f.eps).double()
    norm.load_state_dict(inner.transformer.ln_f.state_dict())
    return norm, head


def test_relative_weights_count_errors_relative_to_the_stream() -> None:
    """1 / mean(h^2) of each token; equal weights are 1."""
    base = tiny_model("llama")
    runners = BlockRunner(base), BlockRunner(lora_teacher(base))
    h = torch.randn(2, 3, 24)
    relative = error_costs(*runners, [], DistillationSettings()).of_tokens(0, 0, h)
    assert_close(relative, 1 / (h**2).mean(-1))
    assert torch.equal(
        error_costs(*runners, [], DistillationSettings(weights="equal")).of_tokens(0, 0, h), torch.ones(2, 3)
    )


def test_metrics_are_scaled_as_the_identity_is() -> None:
    """Trace d in every layer; that of logits counts the more, the nearer the layer is to the end."""
    base = tiny_model("llama")
    runners = BlockRunner(base), BlockRunner(lora_teacher(base))
    given = batches(texts(6), 60, base.device)
    for name in ("logits", "gradient"):
        costs = error_costs(*runners, given, DistillationSettings(metric=name))
        metrics = [costs.metric(layer) for layer in range(3)]
        assert [float(each.trace()) for each in metrics] == pytest.approx([24.0] * 3, rel=1e-4)
        assert all(float(torch.linalg.eigvalsh(each)[0]) > 0 for each in metrics)
        if name == "logits":
            distances = [float((each - torch.eye(24)).norm()) for each in metrics]
            assert distances == sorted(distances)


def test_texts_without_an_answer_have_no_such_metric() -> None:
    """It is taken where answers are predicted."""
    base = tiny_model("llama")
    runners = BlockRunner(base), BlockRunner(lora_teacher(base))
    silent = batches([Encoded(text.prompt, []) for text in texts(3)], 100, base.device)
    for name in ("logits", "gradient"):
        with pytest.raises(ValueError, match="no text has an answer"):
            error_costs(*runners, silent, DistillationSettings(metric=name))
