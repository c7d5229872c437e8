"""(base, tuned model, texts) -> a steering adapter, and how near it comes."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel

from trimtab.distillation.compatibility import require_linear, require_related
from trimtab.distillation.divergence import divergence
from trimtab.distillation.fitting import FittedLayer, fit_layers
from trimtab.distillation.metrics import error_costs
from trimtab.distillation.refinement import refine_layers
from trimtab.distillation.result import DistillationResult
from trimtab.distillation.settings import DistillationSettings
from trimtab.distillation.streams import BlockRunner, StoredStreams
from trimtab.distillation.texts import TextBatch, batches
from trimtab.encoding import Encoded
from trimtab.files import require_free_disk
from trimtab.models import AnyModel, device_name, model_name
from trimtab.results import Environment
from trimtab.sites import locate
from trimtab.tuners.steering import SteeringConfig
from trimtab.tuners.steering.layer import CHILD_NAME, SteeringLayer


def distill(
    base: PreTrainedModel,
    tuned: AnyModel,
    texts: Sequence[Encoded],
    config: SteeringConfig | None = None,
    settings: DistillationSettings | None = None,
    *,
    name: str | None = None,
    scratch: Path | None = None,
    progress: bool = False,
) -> tuple[PeftModel, DistillationResult]:
    """Fit a steering adapter for `base` to what `tuned` does on `texts`, in closed form, layer by layer.

    The target at layer l is the oracle's shift (paper, section 3.3) on the stream as the layers in front leave it; the
    fit is a ridge regression of rank r (`trimtab.regression`). Nothing is trained and no label is read.

    Both models are put into evaluation mode. Streams are kept in files while this runs, so memory does not grow with
    the texts: three times tokens x hidden size numbers, of the models' dtype.

    Args:
        base: the model without adapters; afterwards it carries the new one (`unload()` takes it off).
        tuned: the same model fine-tuned, in full or by a LoRA or another adapter that is on it; another object than
            `base` (`twin` makes one that shares its memory).
        texts: prompts with the tuned model's answers, as `answered` makes them.
        config: the adapter: intervention `low_rank` (linear) or `vector`, site `block`. None: rank 8 that reads
            h / rms(h), with a bias.
        settings: of the fit.
        name: what the result calls the tuned model; None: the name it was loaded by.
        scratch: the folder for the streams' files; None: the system's for temporary files.
        progress: draw a progress bar.

    Returns:
        The base with the adapter on it, to be saved, loaded, steered and trained as any other; and the numbers.

    Raises:
        ValueError: models that do not belong together, an adapter without a closed form, fewer than two texts, layers
            that are not there; before anything long starts. After the fit: the tuned model shifts nothing.
        OSError: too little room on the disk.
    """
    settings = settings or DistillationSettings()
    config = copy.deepcopy(config or SteeringConfig(r=8, normalize=True, use_bias=True))
    config.task_type = config.task_type or "CAUSAL_LM"
    config.init_weights = True
    require_linear(config)
    require_related(base, tuned)
    locate(base, config.site, config.layers)  # layers that are not there
    fitted_texts, held_out_texts = _split(texts, settings)
    tokens = sum(map(len, texts))
    width = int(base.config.get_text_config().hidden_size)
    folder = scratch or Path(tempfile.gettempdir())
    require_free_disk(folder, 3 * tokens * width * base.dtype.itemsize * 2, "Keeping the streams")

    started = time.perf_counter()
    runners = BlockRunner(base, config.policy), BlockRunner(tuned)
    parts = [batches(part, settings.batch_tokens, base.device) for part in (fitted_texts, held_out_texts)]
    held_out = [False] * len(parts[0]) + [True] * len(parts[1])
    with tempfile.TemporaryDirectory(dir=folder, prefix="trimtab-streams-") as temporary:
        fitted, refined = _fitted(
            runners, [*parts[0], *parts[1]], held_out, config, settings, Path(temporary), progress
        )
    seconds = time.perf_counter() - started

    before = divergence(runners[1], runners[0], parts[1])
    adapted = attach_layers(base, config, fitted)
    after = divergence(runners[1], BlockRunner(cast(Any, adapted)), parts[1])
    return adapted, DistillationResult(
        base=model_name(base),
        tuned=name or model_name(tuned),
        adapter=_changed(config),
        parameters=sum(p.numel() for each in fitted for p in each.intervention.parameters()),
        texts=len(fitted_texts),
        held_out=len(held_out_texts),
        tokens=sum(map(len, fitted_texts)),
        before=asdict(before),
        after=asdict(after),
        layers=[
            {
                "layer": each.layer,
                "ridge": each.ridge,
                "explained": each.explained,
                "explained_answers": each.explained_answers,
            }
            for each in fitted
        ],
        refined=refined,
        seconds=seconds,
        environment=Environment.collect(device_name(base)),
        settings=settings.to_dict(),
    )


def attach_layers(base: PreTrainedModel, config: SteeringConfig, fitted: Sequence[FittedLayer]) -> PeftModel:
    """The base with an adapter of `config` that has the fitted numbers."""
    adapted = cast(PeftModel, get_peft_model(base, config))
    for host, each in zip(locate(adapted, config.site, config.layers), fitted, strict=True):
        layer = cast(SteeringLayer, getattr(adapted.get_submodule(host.module), CHILD_NAME[host.side]))
        layer.intervention("default").load_state_dict(each.intervention.state_dict())
    return adapted.eval()


def _fitted(
    runners: tuple[BlockRunner, BlockRunner],
    every: Sequence[TextBatch],
    held_out: Sequence[bool],
    config: SteeringConfig,
    settings: DistillationSettings,
    folder: Path,
    progress: bool,
) -> tuple[list[FittedLayer], list[int]]:
    """The fitted layers after all refinements, and how many layers each refinement changed."""
    base, tuned = runners
    own, aim, final = (StoredStreams(folder / each) for each in ("own", "aim", "final"))
    costs = error_costs(base, tuned, every, settings)
    fitted = fit_layers(base, tuned, every, held_out, config, settings, costs, (own, final), progress)
    refined = []
    for _ in range(settings.refinements):
        fitted, changed = refine_layers(
            base, tuned, every, held_out, config, settings, costs, fitted, (own, aim), final, progress
        )
        refined.append(changed)
    return fitted, refined


def _split(texts: Sequence[Encoded], settings: DistillationSettings) -> tuple[list[Encoded], list[Encoded]]:
    """The texts to fit on and the held-out ones, at least one of each."""
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} text(s) are too few: one has to be held out. A few dozen do.")
    if any(not text.prompt for text in texts):
        raise ValueError("A text has an empty prompt: there is no position that its first token is predicted from.")
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(settings.seed)).tolist()
    count = min(max(1, round(settings.validation * len(texts))), len(texts) - 1)
    return [texts[index] for index in order[count:]], [texts[index] for index in order[:count]]


def _changed(config: SteeringConfig) -> dict[str, Any]:
    """The options that a reader of the report has to know."""
    names = ("intervention", "use_bias", "normalize", "layers", "positions")
    rank = {"r": config.r} if config.intervention == "low_rank" else {}
    return {**rank, **{name: getattr(config, name) for name in names}}
