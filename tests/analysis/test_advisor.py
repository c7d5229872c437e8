"""The advisor on tiny models: its gains, against finite differences and numpy; what it leaves alone and refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch import Tensor

from site_maps import ANSWER_TOKENS, loss_of, read, shifted, two_batches
from tiny_models import assert_same, fingerprint, steering_layers, tiny_model
from trimtab import SteeringConfig, start_from_gradient
from trimtab.analysis.advice import Advice
from trimtab.analysis.advisor import SITES, advise

LAYERS = 3


def advice_on(model: Any, **options: Any) -> Advice:
    """The advice of the two batches of `site_maps`."""
    return advise(model, two_batches, ANSWER_TOKENS, **{"kept": 8, "radius": "absolute", **options})


def gradient_of_a_map(family: str, site: str, layer: int, normalize: bool) -> tuple[np.ndarray, np.ndarray]:
    """dloss/dM and dloss/dv by autograd, in nats an answer token."""
    model = tiny_model(family).double()
    width = model.config.hidden_size
    full = torch.zeros(width, width, dtype=torch.float64, requires_grad=True)
    vector = torch.zeros(width, dtype=torch.float64, requires_grad=True)
    with shifted(model, family, site, layer, lambda h: read(h, normalize) @ full.T + vector):
        sum(two_batches(model)).backward()
    return full.grad.numpy() / ANSWER_TOKENS, vector.grad.numpy() / ANSWER_TOKENS


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("family", ["llama", "gemma2", "granite"])
def test_gains_are_norms_of_the_gradient_by_another_route(family: str, normalize: bool) -> None:
    """At each site and layer: 1/sqrt 3 of the sum, or of the root of the sum of squares, of 4 singular values."""
    found = {ball: advice_on(tiny_model(family), normalize=normalize, ball=ball) for ball in ("spectral", "frobenius")}
    assert found["spectral"].sites == SITES
    for site in SITES:
        for layer in range(LAYERS):
            matrix, vector = gradient_of_a_map(family, site, layer, normalize)
            s = np.linalg.svd(matrix, compute_uv=False)[:4]
            wanted = {"spectral": s.sum() / np.sqrt(3), "frobenius": np.sqrt(np.square(s).sum() / 3)}
            for ball, gain in wanted.items():
                assert float(found[ball].gains(site, 4)[layer]) == pytest.approx(gain, rel=1e-3)
                assert float(found[ball].gains(site, None)[layer]) == pytest.approx(np.linalg.norm(vector), rel=1e-3)


def fall_with(site: str, sizes: list[float], rank: int | None, normalize: bool) -> list[float]:
    """How far the loss falls in truth, an answer token, when all layers' adapters take the steepest step of a size."""
    model = get_peft_model(
        tiny_model("gpt2").double(),
        SteeringConfig(r=rank or 1, site=site, normalize=normalize, init_weights="gradient")
        if rank
        else SteeringConfig(intervention="vector", site=site),
    )
    if rank:
        start_from_gradient(model, two_batches(model))
    with torch.no_grad():
        base = float(loss_of(model))
    falls = []
    for size in sizes:
        for layer, steering in enumerate(steering_layers(model)):
            matrix, vector = gradient_of_a_map("gpt2", site, layer, normalize)
            adapter = steering.intervention("default")
            with torch.no_grad():
                if rank is None:
                    adapter.vector.copy_(torch.from_numpy(-size * vector / np.linalg.norm(vector)))
                else:
                    # W_down is known: the best W_up of spectral norm `size` is the polar factor of G W_down^T.
                    u, _, v = np.linalg.svd(matrix @ adapter.down.detach().numpy().T, full_matrices=False)
                    adapter.up.copy_(torch.from_numpy(-size * u @ v))
        with torch.no_grad():
            falls.append((base - float(loss_of(model))) / ANSWER_TOKENS)
    return falls


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("rank", [3, None])
@pytest.mark.parametrize("site", SITES)
def test_a_small_step_gains_what_is_predicted(site: str, rank: int | None, normalize: bool) -> None:
    """An adapter at the gradient start, with directions of length eps: what is missed falls as eps squared."""
    gain = advice_on(tiny_model("gpt2").double(), normalize=normalize).choice(site, rank).gain
    sizes = [1e-4, 1e-5]
    falls = fall_with(site, sizes, rank, normalize)
    missed = [abs(fall - size * gain) for fall, size in zip(falls, sizes, strict=True)]
    assert falls[-1] == pytest.approx(sizes[-1] * gain, rel=0.02)
    assert np.log10(missed[0] / missed[1]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("family", ["gpt2", "granite"])
def test_a_relative_radius_is_the_geometric_mean_of_the_lengths(family: str) -> None:
    """Of m h, over the tokens from which a label can be reached: all but the last of each row, in a middle layer."""
    seen: list[Tensor] = []

    def look(h: Tensor) -> Tensor:
        seen.append(h.detach())
        return 0 * h

    model = tiny_model(family)
    absolute, relative = (advice_on(model, radius=radius) for radius in ("absolute", "relative"))
    with shifted(model, family, "mlp", 1, look), torch.no_grad():
        loss_of(model)
    length = np.exp(np.log(np.linalg.norm(seen[0][:, :-1].double().numpy(), axis=-1)).mean())
    for rank in (3, None):
        quotient = float(relative.gains("mlp", rank)[1] / absolute.gains("mlp", rank)[1])
        assert quotient == pytest.approx(length, rel=1e-4)


def test_no_random_adapter_of_that_size_gains_more() -> None:
    """Over many W_down with orthogonal rows of length 1/sqrt 3 and W_up of spectral norm 1, in one layer."""
    gain = float(advice_on(tiny_model("gpt2").double()).gains("mlp", 3)[1])
    matrix, _ = gradient_of_a_map("gpt2", "mlp", 1, True)
    rng = np.random.default_rng(0)
    best = 0.0
    for _ in range(300):
        down = np.linalg.qr(rng.standard_normal((24, 3)))[0].T / np.sqrt(3)
        up = np.linalg.qr(rng.standard_normal((24, 3)))[0]
        steepest = np.linalg.svd(matrix @ down.T, compute_uv=False).sum()  # of all W_up for this W_down
        assert abs(np.sum(matrix * (up @ down))) <= steepest <= gain * (1 + 1e-9)
        best = max(best, steepest)
    assert best > 0.05 * gain


def test_the_model_stays_as_it_was() -> None:
    """Weights, hooks, modes, flags, and gradients that were there; after an error too."""
    model = tiny_model("llama").train()
    model.model.layers[1].requires_grad_(False)
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    before = fingerprint(model)
    advice_on(model)
    assert_same(before, fingerprint(model))
    assert torch.equal(model.lm_head.weight.grad, torch.ones_like(model.lm_head.weight))

    def broken(tuned: Any) -> Any:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        advise(model, broken, 1)
    assert_same(before, fingerprint(model))


def test_little_memory_means_more_passes_and_the_same_numbers() -> None:
    """Sums of 24 x 25 float32 are 2,400 bytes: with room for five, twelve places take three passes."""
    passes = []

    def counted(tuned: Any) -> Any:
        passes.append(1)
        return two_batches(tuned)

    in_parts = advise(tiny_model("llama"), counted, ANSWER_TOKENS, kept=8, radius="absolute", memory_gb=12_000e-9)
    assert len(passes) == 3
    at_once = advice_on(tiny_model("llama"))
    assert in_parts.to_dict() == at_once.to_dict()
    with torch.no_grad():
        assert at_once.loss == pytest.approx(float(loss_of(tiny_model("llama"))) / ANSWER_TOKENS, rel=1e-5)


def test_some_sites_and_layers() -> None:
    """Only these are measured, with the numbers that they have among all; the heads' site has its own width."""
    everything = advice_on(tiny_model("llama"))
    some = advice_on(tiny_model("llama"), sites=["mlp", "heads"], layers=[2, 0])
    assert some.layers == (0, 2)
    assert some.widths == (24, 32)  # four heads of 8
    assert torch.allclose(some.gains("mlp", 4), everything.gains("mlp", 4)[[0, 2]], rtol=1e-4)
    assert some.choice("heads", 2).parameters == 2 * 2 * 32 * 2
    with pytest.raises(ValueError, match=r"Layer 1 was not measured; measured are 0, 2"):
        some.choice("mlp", 2, [0, 1])


def test_bfloat16_is_near_float32() -> None:
    """The largest gains agree within ten percent."""
    exact, half = (advice_on(model) for model in (tiny_model("llama"), tiny_model("llama").bfloat16()))
    for site in SITES:
        assert torch.allclose(half.gains(site, 2), exact.gains(site, 2), rtol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sites": ["blok"]}, "Did you mean 'block'"),
        ({"sites": []}, "sites is empty"),
        ({"layers": [5]}, "Layer 5 is not there"),
        ({"positions": "last_promt"}, "Did you mean 'last_prompt'"),
        ({"ball": "nuclear"}, "Unknown ball 'nuclear'"),
        ({"radius": "relativ"}, "Did you mean 'relative'"),
        ({"kept": 0}, "kept=0"),
    ],
)
def test_mistakes_are_named_before_the_first_pass(options: dict[str, Any], message: str) -> None:
    """No loss is asked for."""

    def never(tuned: Any) -> Any:
        raise AssertionError

    with pytest.raises(ValueError, match=message):
        advise(tiny_model("llama"), never, 1, **options)


def test_what_cannot_be_measured_is_refused() -> None:
    """A model with an adapter, one in float16, no losses, a loss that is not finite, a rank beyond what was kept."""
    with pytest.raises(ValueError, match="already carries an adapter"):
        advise(get_peft_model(tiny_model("llama"), SteeringConfig(r=1)), two_batches, 1)
    with pytest.raises(ValueError, match="underflow in float16"):
        advise(tiny_model("llama").half(), two_batches, 1)
    with pytest.raises(ValueError, match="There are no losses"):
        advise(tiny_model("llama"), lambda tuned: [], 1)
    with pytest.raises(ValueError, match="loss of the un-adapted model is inf"):
        advise(tiny_model("llama"), lambda tuned: [torch.tensor(float("inf"))], 1)
    with pytest.raises(ValueError, match="rank 9 must lie between 1 and 8"):
        advice_on(tiny_model("llama")).gains("mlp", 9)
    with pytest.raises(ValueError, match="Did you mean 'mlp'"):
        advice_on(tiny_model("llama")).gains("mpl", 1)


def test_a_choice_becomes_a_configuration_that_trains_so_many_parameters() -> None:
    """Attached to the model, what is trained is what the choice says; a vector's configuration reads nothing."""
    advice = advice_on(tiny_model("llama"))
    for rank, layers in ((2, [1]), (4, None), (None, [0, 2])):
        choice = advice.choice("mlp_input", rank, layers)
        config = advice.config(choice)
        model = get_peft_model(tiny_model("llama"), config)
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == choice.parameters
        assert config.layers == layers
        assert config.init_weights == ("gradient" if rank else True)
        assert config.normalize == bool(rank)
