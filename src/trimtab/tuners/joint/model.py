"""The PEFT tuner of joint adapters: PEFT's LoRA and this library's steering on one model, under one name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from peft.tuners.lora import LoraLayer, LoraModel
from torch import Tensor, nn

from trimtab.tuners.joint.config import JointConfig
from trimtab.tuners.joint.constraint import constrain
from trimtab.tuners.joint.merging import merge_lora, unmerge_lora
from trimtab.tuners.steering.files import without_prefix
from trimtab.tuners.steering.layer import CHILD_NAME, SteeringLayer
from trimtab.tuners.steering.model import SteeringModel
from trimtab.tuners.steering.strength import scale_lora


class JointModel(SteeringModel):
    """A model with joint adapters; made by `peft.get_peft_model(model, JointConfig(...))`.

    Composition: the steering half is this tuner's own, the LoRA half is left to an inner `LoraModel` on the same
    model. PEFT's generic parts (saving, switching, disabling) walk over tuner layers, so they take both.
    """

    tuner_layer_cls = (SteeringLayer, LoraLayer)  # type: ignore[assignment]  # PEFT asks isinstance only
    lora_model: LoraModel | None = None
    """The inner tuner; not a child module, or every parameter would have two names."""

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """As steering's, for both halves: all or nothing."""
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except Exception:
            if self.lora_model is not None:
                self.lora_model.peft_config.pop(adapter_name, None)
            raise

    def _inject(self, model: nn.Module, adapter_name: str, **options: Any) -> None:
        config = cast(JointConfig, self.peft_config[adapter_name])
        self._prepare_model(config, model)  # a wrong base is refused before LoRA looks for its modules
        self._check_name(model, adapter_name)
        self._inject_lora(model, adapter_name, config, **options)
        super()._inject(model, adapter_name, **options)
        interventions = {
            host.layer: getattr(model.get_submodule(name), CHILD_NAME[host.side]).intervention(adapter_name)
            for name, hosts in self._hosts.items()
            for host in hosts.values()
        }
        constrain(model, interventions, config, adapter_name)
        scale_lora(model, adapter_name, config.strength)

    def _check_name(self, model: nn.Module, adapter_name: str) -> None:
        """Refuse the name of a LoRA adapter that is there already: PEFT would write over it."""
        for key, module in model.named_modules():
            if isinstance(module, LoraLayer) and adapter_name in (*module.lora_A, *module.lora_embedding_A):
                raise ValueError(
                    f"The model has a LoRA adapter {adapter_name!r} at {key!r} already; give the joint adapter another "
                    "adapter_name, or unload that one first."
                )

    def _inject_lora(self, model: nn.Module, adapter_name: str, config: JointConfig, **options: Any) -> None:
        lora = config.lora_half
        lora.inference_mode, lora.task_type = config.inference_mode, config.task_type
        if self.lora_model is None:
            with _without_adapters(model):
                made = LoraModel(
                    model, {adapter_name: lora}, adapter_name, low_cpu_mem_usage=options["low_cpu_mem_usage"]
                )
            object.__setattr__(self, "lora_model", made)
        else:
            self.lora_model.peft_config[adapter_name] = lora
            self.lora_model.active_adapter = self.active_adapter
            self.lora_model.inject_adapter(model, adapter_name, **options)

    @classmethod
    def _is_own(cls, key: str) -> bool:
        return super()._is_own(key) or ".lora_" in key

    @classmethod
    def _expected(cls, model: nn.Module, adapter_name: str) -> dict[str, tuple[int, ...]]:
        lora = {
            f"{module_name}.{kind}.{name}".removeprefix(".")
            for module_name, module in model.named_modules()
            if isinstance(module, LoraLayer)
            for kind in module.adapter_layer_names
            for name in getattr(module, kind)
            if name == adapter_name
        }
        shapes = {
            cls._remove_adapter_name_from_key(name, adapter_name): tuple(parameter.shape)
            for name, parameter in model.named_parameters()
            if name in lora or name.rpartition(".")[0] in lora
        }
        return {**super()._expected(model, adapter_name), **without_prefix(shapes)}

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """As steering's, for both halves."""
        mapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)

        def keep_own(module: nn.Module, found: Any) -> None:
            # PEFT, which knows no prefix of this method (see `register`), takes every key with the adapter's name in
            # it for the adapter's, and warns: of the base's own keys, where an adapter is called "a".
            handle.remove()
            own = [key for key in found.missing_keys if cls._is_own(key) and f".{adapter_name}." in f"{key}."]
            found.missing_keys[:] = own

        handle = model.register_load_state_dict_post_hook(keep_own)
        return mapped

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """For one call: a different adapter per row of the batch, in both halves."""
        lora = self._lora()
        lora.training = self.training
        with (
            super()._enable_peft_forward_hooks(*args, **kwargs),
            lora._enable_peft_forward_hooks(*args, **kwargs),
        ):
            yield

    def delete_adapter(self, adapter_name: str) -> None:
        """As steering's, for both halves."""
        super().delete_adapter(adapter_name)
        self._lora().peft_config.pop(adapter_name, None)

    def merge_lora(self, adapter_names: Sequence[str] | None = None, safe_merge: bool = False) -> None:
        """Merge the LoRA half alone into the weights; see `trimtab.tuners.joint.merge_lora`."""
        self._lora()._check_merge_allowed()
        merge_lora(self.model, adapter_names, safe_merge)

    def unmerge_lora(self) -> None:
        """Take the LoRA half out of the weights again; see `trimtab.tuners.joint.unmerge_lora`."""
        unmerge_lora(self.model)

    def _check_all_mergeable(self, adapter_names: list[str] | None) -> None:
        try:
            super()._check_all_mergeable(adapter_names)
        except ValueError as error:
            raise ValueError(
                f"{error} `model.merge_lora()` merges the LoRA half alone and leaves the steering half attached."
            ) from None

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """LoRA's: PEFT calls this on unloading, where only LoRA has replaced modules."""
        self._lora()._replace_module(parent, child_name, new_module, child)

    def _lora(self) -> LoraModel:
        if self.lora_model is None:
            raise RuntimeError("No joint adapter has been attached to this model yet.")
        return self.lora_model


@contextmanager
def _without_adapters(model: nn.Module) -> Iterator[None]:
    """For the time in which a tuner is made: PEFT's constructor adopts, and replaces, what the model says it has."""
    configs = model.__dict__.pop("peft_config", None)
    try:
        yield
    finally:
        model.__dict__.pop("peft_config", None)
        if configs is not None:
            model.peft_config = configs
