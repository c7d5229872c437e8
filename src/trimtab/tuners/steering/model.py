"""The PEFT tuner: finds the hosts of a configuration and gives each its steering layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from trimtab.interventions import get_intervention
from trimtab.sites import locate
from trimtab.sites.base import Host
from trimtab.tuners.steering.attachment import Attachment
from trimtab.tuners.steering.config import SteeringConfig
from trimtab.tuners.steering.files import check_base, check_keys, saved_beside, without_prefix
from trimtab.tuners.steering.heads import heads_by_host
from trimtab.tuners.steering.hosts import backbone, base_facts, bias_owner, output_width
from trimtab.tuners.steering.layer import BASE_ROW, CHILD_NAME, SteeringLayer
from trimtab.tuners.steering.loading import check_on_load, forget_check
from trimtab.tuners.steering.names import NamedTuner
from trimtab.tuners.steering.penalty import adapter_has_penalty, add_penalty_to_loss, leave_loss_alone
from trimtab.tuners.steering.tokens import TokenContext


class SteeringModel(NamedTuner):
    """A model whose hidden states are shifted by adapters; made by `peft.get_peft_model(model, SteeringConfig())`.

    The paper's method (section 5.1) and its relatives. See `SteeringConfig` for the choices, `SteeringLayer` for
    what happens at a host, and docs/the-method.md for the formulas.
    """

    prefix = "steering_"
    tuner_layer_cls = SteeringLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  # PEFT's signature

    def _prepare_adapter_config(self, peft_config: SteeringConfig, model_config: dict[str, Any]) -> SteeringConfig:
        """Nothing to fill in: the site says where, not a list of modules by model type."""
        return peft_config

    def _prepare_model(self, peft_config: SteeringConfig, model: nn.Module) -> None:
        """Find the hosts, and refuse an adapter that was saved for another base, before anything is changed."""
        base = base_facts(model)
        check_base(getattr(peft_config, "_saved_base", None) or {}, base)
        self._hosts: dict[str, dict[str, Host]] = {}  # by module, then by site: attention may carry two of them
        hosts: list[Host] = []
        for site in peft_config.sites if peft_config.target_modules is None else ():
            hosts = locate(model, site, peft_config.steered_layers)
            for host in hosts:
                self._hosts.setdefault(host.module, {})[site] = host
        if peft_config.select_heads is not None:
            raise ValueError(
                f"select_heads={peft_config.select_heads} leaves open which heads: trimtab.training.train finds them, "
                "or select them with trimtab.select_heads and name them in `heads`."
            )
        per_head = get_intervention(peft_config.intervention).per_head
        self._heads = heads_by_host(hosts, peft_config.heads) if per_head else {}
        peft_config.base = base
        self._context = _context_of(model)

    def _check_target_module_exists(self, peft_config: SteeringConfig, key: str) -> Any:
        if peft_config.target_modules is None:
            return key in self._hosts
        return super()._check_target_module_exists(peft_config, key)

    def _create_and_replace(
        self,
        peft_config: SteeringConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        """Add the adapter to the steering layers of a module, which are made if it is the first one there."""
        for site, host in self._hosts.get(current_key, {"": None}).items():
            self._steer(peft_config, adapter_name, target, current_key, site, host)

    def _steer(
        self, peft_config: SteeringConfig, adapter_name: str, target: nn.Module, key: str, site: str, host: Host | None
    ) -> None:
        """Add the adapter to one side of a module; `host` is None where `target_modules` named it."""
        side = "output" if host is None else host.side
        layer = getattr(target, CHILD_NAME[side], None)
        if layer is None:
            layer = SteeringLayer(target, side, self._context)
        elif not isinstance(layer, SteeringLayer):
            raise ValueError(f"Cannot steer {key!r}: it has something of its own that is called {CHILD_NAME[side]!r}.")
        layer.update_layer(
            adapter_name,
            peft_config,
            width=output_width(target, key) if host is None else host.width,
            multiplier=1.0 if host is None else host.multiplier,
            bias_owner=bias_owner(self.model, target, host, site),
            heads=self._heads.get(key),
        )
        if adapter_name not in self.active_adapters:
            layer.steering_interventions[adapter_name].requires_grad_(False)

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        """As PEFT's; the configuration says where, so a state dict is not asked. All or nothing.

        Raises:
            ValueError: the adapter does not fit the model, or its saved file does not fit its configuration.
        """
        before = Attachment(model)
        try:
            self._inject(
                model,
                adapter_name,
                autocast_adapter_dtype=autocast_adapter_dtype,
                low_cpu_mem_usage=low_cpu_mem_usage,
            )
            config = self.peft_config[adapter_name]
            if config._saved_shapes is not None:
                check_keys(
                    "The adapter's file",
                    without_prefix(config._saved_shapes),
                    self._expected(model, adapter_name),
                    saved_beside(model, config.modules_to_save),
                )
        except Exception:
            before.undo(adapter_name)
            raise
        if not config.policy.everything:
            self._context.attach(model, backbone(model))
        if adapter_has_penalty(model, adapter_name):  # active or not: it may become so without coming by here
            add_penalty_to_loss(model)
        if config._saved_base is not None and config._saved_shapes is None:
            check_on_load(model, adapter_name, self._expected(model, adapter_name), before)

    def _inject(self, model: nn.Module, adapter_name: str, **options: Any) -> None:
        """PEFT's own part of `inject_adapter`."""
        super().inject_adapter(model, adapter_name, **options)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """As PEFT's. Layers make their adapters in float32 beside a half-precision base; False asks for the base's."""
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        if not autocast_adapter_dtype:
            for module in self.model.modules():
                if isinstance(module, SteeringLayer):
                    module.cast_to_host(adapter_name)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """For one call: a different adapter per row of the batch (`adapter_names=`)."""
        names = kwargs.get("adapter_names")
        if names is None:
            yield
            return
        if self.training:
            raise ValueError("Cannot pass `adapter_names` when the model is in training mode.")
        unknown = sorted({name for name in names if name != BASE_ROW} - self.peft_config.keys())
        if unknown:
            raise ValueError(f"Trying to infer with non-existing adapter(s): {', '.join(unknown)}")
        if any(isinstance(module, SteeringLayer) and module.merged for module in self.model.modules()):
            raise ValueError(
                "Cannot pass `adapter_names` when there are merged adapters, please call `unmerge_adapter` first."
            )
        context = _context_of(self.model)
        handles = [
            module.register_forward_pre_hook(partial(_pass_adapter_names, names=list(names)), with_kwargs=True)
            for module in self.model.modules()
            if isinstance(module, AuxiliaryTrainingWrapper)
        ]
        context.adapter_rows = tuple(names)
        try:
            yield
        finally:
            context.adapter_rows = None
            for handle in handles:
                handle.remove()

    def delete_adapter(self, adapter_name: str) -> None:
        """As PEFT's; where no active adapter is left, the first of the others becomes active in every layer.

        PEFT lets each layer choose among its own, which differ where adapters have different sites.
        """
        active = list(self.active_adapters)
        super().delete_adapter(adapter_name)
        left = [name for name in active if name != adapter_name] or list(self.peft_config)[:1]
        if adapter_name in active and left:
            self.set_adapter(left)

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """As PEFT's; raises before any weight is changed if a layer's shift cannot be merged, or is disabled."""
        if any(isinstance(module, SteeringLayer) and module.disable_adapters for module in self.model.modules()):
            raise ValueError("Cannot merge adapters while they are disabled.")
        self._check_all_mergeable(adapter_names)
        super().merge_adapter(adapter_names=adapter_names, safe_merge=safe_merge)

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> nn.Module:
        layers = [module for module in self.model.modules() if isinstance(module, SteeringLayer)]
        if merge:
            self._check_all_mergeable(adapter_names)
            for layer in layers:
                layer.merge(safe_merge=safe_merge, adapter_names=adapter_names)
        model = super()._unload_and_optionally_merge(merge, progressbar, safe_merge, adapter_names)
        for layer in layers:
            layer.context.detach()
            layer.detach()
        leave_loss_alone(self.model)
        forget_check(self.model)
        return model

    def _check_all_mergeable(self, adapter_names: list[str] | None) -> None:
        for key, module in self.model.named_modules():
            if isinstance(module, SteeringLayer):
                for name in module.active_adapters if adapter_names is None else adapter_names:
                    if name in module.steering_interventions and (reason := module.why_not_mergeable(name)):
                        raise ValueError(
                            f"Cannot merge the adapter {name!r} at {key.rpartition('.')[0]}: {reason}. Keep the "
                            "adapter beside the model instead (save_pretrained, PeftModel.from_pretrained)."
                        )


def _pass_adapter_names(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], names: list[str]
) -> tuple[Any, Any]:
    return args, {**kwargs, "adapter_names": names}


def _context_of(model: nn.Module) -> TokenContext:
    """The one context that all steering layers of a model share."""
    for module in model.modules():
        if isinstance(module, SteeringLayer):
            return module.context
    return TokenContext()
