"""One adapter at several sites: a shift of its own at each, which act as they lie in the layer."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from torch.testing import assert_close

from site_maps import IDS, multiplier, shifted
from steering_oracle import TOLERANCE
from tiny_models import draw_adapters, tiny_model
from trimtab import SteeringConfig, set_strength
from trimtab.sites import sites_in

SITES = "block+attention_input+mlp_input"
FAMILIES = ("llama", "gpt2", "granite", "gemma2")


def adapted(family: str, site: str = SITES, **options: Any) -> Any:
    """A tiny model with a random adapter."""
    model = get_peft_model(tiny_model(family), SteeringConfig(r=2, site=site, task_type="CAUSAL_LM", **options))
    draw_adapters(model)
    return model.eval()


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """In one pass without a cache."""
    return model(input_ids=IDS, use_cache=False).logits


def at_the_sites(model: Any) -> dict[tuple[str, int], Any]:
    """The shifts of an adapter by site and layer, told apart by the names that PEFT saves them under."""
    found = {}
    for name, module in model.named_modules():
        if name.endswith(".default"):
            inside = name.split(".steering_interventions")[0].split(".")
            side, part = inside[-1], inside[-2]
            layer = next(int(each) for each in inside if each.isdigit())
            site = "block" if part.isdigit() else ("mlp" if part == "mlp" else "attention")
            found[site + ("_input" if side == "input_steering" else ""), layer] = module
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_each_site_has_a_shift_of_its_own(family: str) -> None:
    """Against hooks on the base that add U D h at every site, with the adapter's numbers and an einsum."""
    model, base = adapted(family), tiny_model(family)
    shifts = at_the_sites(model)
    assert {site for site, _ in shifts} == set(SITES.split("+"))
    with ExitStack() as hooks:
        for (site, layer), each in shifts.items():
            shift = partial(torch.einsum, "dr,rk,...k->...d", each.up.detach(), each.down.detach())
            assert multiplier(family, site) == 1.0
            hooks.enter_context(shifted(base, family, site, layer, shift))
        expected = logits(base)
    assert_close(logits(model), expected, **TOLERANCE)
    assert (expected - logits(base)).abs().max() > 1e-3


def test_both_sides_of_one_module() -> None:
    """What attention reads and what it adds: two shifts at one module."""
    model, base = adapted("llama", "attention+attention_input"), tiny_model("llama")
    with ExitStack() as hooks:
        for (site, layer), each in at_the_sites(model).items():
            shift = partial(torch.einsum, "dr,rk,...k->...d", each.up.detach(), each.down.detach())
            hooks.enter_context(shifted(base, "llama", site, layer, shift))
        assert_close(logits(model), logits(base), **TOLERANCE)


def test_the_order_of_the_names_does_not_matter() -> None:
    """The same parameters under the same names."""
    one, other = (adapted("llama", site).state_dict() for site in (SITES, "mlp_input+block+attention_input"))
    assert one.keys() == other.keys()
    parameters = sum(value.numel() for key, value in one.items() if "steering_interventions" in key)
    assert parameters == 3 * sum(
        value.numel()
        for key, value in adapted("llama", "block").state_dict().items()
        if "steering_interventions" in key
    )


@pytest.mark.parametrize("positions", ["all", "all_but_first(1)", "last_prompt"])
def test_saved_switched_off_and_dialled(positions: str, tmp_path: Path) -> None:
    """Bit for bit: what is loaded is what was saved, and without it, or at strength 0, the base answers."""
    model = adapted("llama", use_bias=True, positions=positions)
    steered, base = logits(model), logits(tiny_model("llama"))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_model("llama"), str(tmp_path)).eval()
    assert torch.equal(logits(loaded), steered)
    with loaded.disable_adapter():
        assert torch.equal(logits(loaded), base)
    set_strength(loaded, 0.0)
    assert torch.equal(logits(loaded), base)
    assert torch.equal(logits(loaded.unload()), base)
    assert not torch.equal(steered, base)


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_and_un_cached_agree(family: str) -> None:
    """Token by token with a cache as in one pass."""
    model = adapted(family, activation="silu", positions="all_but_first(1)")
    cache, parts = None, []
    with torch.no_grad():
        for column in range(IDS.shape[1]):
            out = model(input_ids=IDS[:, column : column + 1], past_key_values=cache, use_cache=True)
            cache, parts = out.past_key_values, [*parts, out.logits]
    assert_close(torch.cat(parts, 1), logits(model), **TOLERANCE)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("block+mlp_imput", "Did you mean 'mlp_input'"),
        ("block+mlp+block", "names 'block' twice"),
        ("block+", "Unknown site ''"),
        (["block", "mlp_input"], "joined by '\\+'"),
        (None, "must be a text"),
    ],
)
def test_sites_that_are_not_there_are_refused(site: Any, message: str) -> None:
    """Before a model is touched, with the nearest name."""
    with pytest.raises(ValueError, match=message):
        SteeringConfig(site=site)
    with pytest.raises(ValueError, match=message):
        sites_in(site)


def test_heads_are_no_site_beside_others() -> None:
    """An intervention on heads needs the site `heads` alone."""
    with pytest.raises(ValueError, match="heads"):
        SteeringConfig(intervention="head_bias", site="heads+block")
