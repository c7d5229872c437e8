"""What prompts begin with, computed once: the same loss, gradients and answers as with whole rows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from tiny_language import byte_tokenizer
from tiny_language import tiny_model as language_model
from tiny_models import FAMILIES, draw_adapters, tiny_model, token_ids
from trimtab import SteeringConfig
from trimtab.evaluation import generate_answers
from trimtab.prefix import can_share_prefixes, shared_prefix
from trimtab.training.loss import IGNORED, CompletionLoss

PREFIX = 9
POLICIES = ("all", "all_but_first(1)", "last_prompt", "first_last(2,3)", "generated")


def batch(prompts: tuple[int, ...] = (14, 12, 16), answer: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of unequal length, padded on the right, that begin with the same 9 tokens; the answers are supervised."""
    rows, columns = len(prompts), max(prompts) + answer
    ids = token_ids(rows, columns)
    ids[:, :PREFIX] = ids[0, :PREFIX].clone()
    ids[:, PREFIX] = torch.arange(3, 3 + rows)  # no token more is alike
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, length in enumerate(prompts):
        mask[row, : length + answer] = 1
        labels[row, length : length + answer] = ids[row, length : length + answer]
    return ids * mask, mask, labels


def steered(family: str = "llama", **options: Any) -> PeftModel:
    """A tiny model with an adapter that is not a no-op."""
    model = get_peft_model(tiny_model(family), SteeringConfig(r=2, **options))
    draw_adapters(model)
    return model


def loss_and_gradients(model: PreTrainedModel | PeftModel, share: bool) -> tuple[Tensor, dict[str, Tensor], int]:
    """The loss of the batch, all gradients, and how many tokens went through the layers."""
    model = copy.deepcopy(model)
    seen: list[int] = []
    embedding = model.get_input_embeddings()
    loss_of = CompletionLoss(model, share)
    embedding.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].numel()))
    loss = loss_of(*batch())
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, sum(seen)


def assert_shared_equals_whole(model: PreTrainedModel | PeftModel, prefix: int = PREFIX) -> None:
    shared_loss, shared_gradients, shared_tokens = loss_and_gradients(model, True)
    loss, gradients, tokens = loss_and_gradients(model, False)
    assert tokens == 3 * 18
    assert shared_tokens == prefix + 3 * (18 - prefix)
    torch.testing.assert_close(shared_loss, loss, rtol=1e-5, atol=1e-5)
    assert shared_gradients.keys() == gradients.keys()
    assert gradients
    for name, gradient in gradients.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(shared_gradients[name], gradient, rtol=1e-4, atol=2e-5 * max(scale, 1), msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_whole_rows(family: str) -> None:
    """In every family, with sliding windows, position tables and mixtures of experts, for a steering adapter."""
    assert_shared_equals_whole(steered(family).eval())


@pytest.mark.parametrize("positions", POLICIES)
def test_positions_steer_the_same_tokens(positions: str) -> None:
    """The last tokens of a prompt are steered in their own row, the first ones in the shared one."""
    assert_shared_equals_whole(steered(positions=positions).train())


def test_tokens_steered_as_the_last_of_one_prompt_are_not_shared() -> None:
    """The shortest prompt has 12 tokens; where its last 5 are steered, only 7 of the 9 equal ones are shared."""
    assert_shared_equals_whole(steered(positions="first_last(2,5)").train(), prefix=7)


@pytest.mark.parametrize("trained", ["LoRA", "everything"])
def test_other_methods_share_too(trained: str) -> None:
    """LoRA, and the weights themselves."""
    model: PreTrainedModel | PeftModel = tiny_model("llama")
    if trained == "LoRA":
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    assert_shared_equals_whole(model.train())


def test_last_token_of_a_prompt_is_not_shared() -> None:
    """Equal prompts share all but their last token, which predicts the answer."""
    ids, _, _ = batch(prompts=(9, 9, 9), answer=1)
    assert shared_prefix(tiny_model("llama"), ids, torch.tensor([9, 9, 9])) == 8


@pytest.mark.parametrize(
    ("prefix", "rows", "found"), [(9, 4, 9), (1, 4, 0), (9, 1, 0)], ids=["worth it", "one token", "one row"]
)
def test_prefix_that_saves_little_is_not_shared(prefix: int, rows: int, found: int) -> None:
    """Less than a fifth of the tokens is not worth a second pass through the layers."""
    ids = token_ids(rows, 18)
    ids[:, :prefix] = ids[0, :prefix].clone()
    ids[:, prefix] = torch.arange(3, 3 + rows)
    assert shared_prefix(tiny_model("llama"), ids, torch.full((rows,), 14)) == found


def dropout_in_lora() -> PeftModel:
    return get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.1))


def dropout_in_attention() -> PreTrainedModel:
    return tiny_model("llama", attention_dropout=0.1)


def random_gates() -> PeftModel:
    return get_peft_model(tiny_model("llama"), SteeringConfig(site="heads", intervention="jola"))


@pytest.mark.parametrize("build", [dropout_in_lora, dropout_in_attention, random_gates])
def test_training_that_draws_numbers_shares_nothing(build: Any) -> None:
    """Rows would share their draws; in evaluation mode nothing is drawn."""
    model = build()
    assert not can_share_prefixes(model.train())
    assert can_share_prefixes(model.eval())


def test_gradient_checkpointing_shares_nothing() -> None:
    """It turns the cache off."""
    model = tiny_model("llama").train()
    assert can_share_prefixes(model)
    model.gradient_checkpointing_enable()
    assert not can_share_prefixes(model)


def test_models_that_keep_other_states_share_nothing() -> None:
    """Mamba has no keys and values that rows could read."""
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=61, hidden_size=16, num_hidden_layers=1, state_size=4)
    assert not can_share_prefixes(MambaForCausalLM(config).eval())


def test_a_wrapped_model_runs_once() -> None:
    """Wrappers for distributed training see one forward pass with whole rows."""
    model = steered()

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = model
            self.shapes: list[torch.Size] = []

        def forward(self, **inputs: Any) -> Any:
            self.shapes.append(inputs["input_ids"].shape)
            return self.module(**inputs)

    wrapper = Wrapper()
    CompletionLoss(model, share_prefix=True)(*batch(), wrapped=wrapper)
    assert wrapper.shapes == [torch.Size([3, 18])]


@pytest.mark.parametrize("positions", POLICIES)
def test_answers_are_those_of_prompts_one_by_one(positions: str) -> None:
    """Greedy answers of a batch that shares its prefix, against each prompt alone."""
    tokenizer = byte_tokenizer()
    model = get_peft_model(language_model("llama"), SteeringConfig(r=2, positions=positions)).eval()
    draw_adapters(model, scale=0.5)
    prompts = [tokenizer(f"What is the sum of {a} and {b}?").input_ids for a, b in ((1, 2), (30, 4), (5, 600))]
    seen: list[torch.Size] = []
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    together = generate_answers(model, tokenizer, prompts, 6)
    assert seen[0][0] == 1
    assert seen[0][1] > 15
    assert seen[1][0] == 3
    assert together == [generate_answers(model, tokenizer, [prompt], 6)[0] for prompt in prompts]
    assert len({tuple(answer) for answer in together}) > 1


@pytest.mark.parametrize("length", [1, 3])
def test_padding_does_not_push_the_prefix_out_of_a_window(length: int) -> None:
    """With a window of 16 and prompts of unequal length, answers are those of the prompts one by one."""
    tokenizer = byte_tokenizer()
    model = language_model("gemma2", sliding_window=16).eval()
    prompts = [tokenizer(f"What is the sum of {a} and 2?").input_ids for a in ("1", "10000"[: 1 + length], "300000000")]
    together = generate_answers(model, tokenizer, prompts, 6)
    assert together == [generate_answers(model, tokenizer, [prompt], 6)[0] for prompt in prompts]


def test_a_model_without_a_cache_shares_nothing() -> None:
    """OpenAI-GPT has layers with keys and values, and keeps none."""
    from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

    config = OpenAIGPTConfig(vocab_size=61, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    assert not can_share_prefixes(OpenAIGPTLMHeadModel(config).eval())


def test_rotations_that_depend_on_the_length_share_nothing() -> None:
    """The prefix alone would be rotated as a short text."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0, "original_max_position_embeddings": 12}
    assert not can_share_prefixes(tiny_model("llama", rope_parameters=rope))


@pytest.mark.parametrize(("family", "share"), [("bloom", "hidden_dropout"), ("mixtral", "router_jitter_noise")])
def test_numbers_that_a_family_draws_by_itself_are_seen(family: str, share: str) -> None:
    """Dropout that is called as a function, and noise of a router."""
    assert can_share_prefixes(tiny_model(family).train())
    assert not can_share_prefixes(tiny_model(family, **{share: 0.1}).train())
