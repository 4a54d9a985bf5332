"""Axolotl's DPO trainer with a loss per segment, for models and rows it is handed.

Importing it imports Axolotl's trainers, so it is named by path and loaded late. What
the loss is, is in `loss`; where the rows come from, it does not know.
"""

import inspect
import logging
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import is_peft_model
from axolotl.core.trainers.dpo.trainer import AxolotlDPOTrainer
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import selective_log_softmax, use_adapter

from axolotl_donod.aw_dpo.args import refuse_unsupported_arguments
from axolotl_donod.aw_dpo.cache import share_cache_folder
from axolotl_donod.aw_dpo.collator import SEGMENT_COLUMNS, AwDpoCollator
from axolotl_donod.aw_dpo.loss import (
    PAIR_LOSSES,
    aw_dpo_losses,
    effective_weights,
    segment_logps,
    segment_margins,
)
from axolotl_donod.aw_dpo.metrics import (
    PairBatch,
    average_statistics,
    batch_statistics,
    stack_statistics,
)
from axolotl_donod.aw_dpo.rows import prepare_row
from axolotl_donod.aw_dpo.segments import segment_masks
from axolotl_donod.aw_dpo.weights import drop_undecided
from axolotl_donod.config import AwDpoConfig
from axolotl_donod.errors import ConfigError

LOG = logging.getLogger(__name__)

_MODEL_KEYS = ("input_ids", "attention_mask")
_SKIPS_MASKED_ROWS = "row_mask" in inspect.signature(selective_log_softmax).parameters


class AwDpoTrainer(AxolotlDPOTrainer):  # type: ignore[misc]
    """Alignment-Weighted DPO (arXiv 2602.21346) on pairs of reasoning and answer.

    With one segment per response the loss and its gradient are those of DPO, bit for
    bit. A step runs the policy once and the reference once, or not at all when its
    log-probabilities are precomputed.
    """

    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: Any = None,
        data_collator: Any = None,
        *,
        processing_class: PreTrainedTokenizerBase,
        aw_dpo: AwDpoConfig | None = None,
        **kwargs: Any,
    ) -> None:
        """Check the settings and build TRL's trainer on our collator.

        Args:
            model: Policy, plain or PEFT.
            ref_model: Reference; unset, it is the policy without its adapter or the
                checkpoint the policy was loaded from.
            args: TRL's `DPOConfig` or Axolotl's, `aw_dpo` in it where Axolotl starts
                the trainer.
            data_collator: Replaced by ours, which keeps its `pad_to_multiple_of`: the
                one Axolotl passes for that setting yields batches without input_ids.
            processing_class: Tokenizer.
            aw_dpo: Settings; unset, those in `args`.
            **kwargs: As for TRL's trainer.

        Raises:
            ConfigError: Settings are missing, or one does not go with AW-DPO.
            DataError: A row cannot be used.
        """
        self.aw_dpo = _settings(args, aw_dpo)
        _refuse(args, processing_class)
        super().__init__(
            model,
            ref_model,
            args=args,
            data_collator=_collator(args, data_collator, processing_class),
            processing_class=processing_class,
            **kwargs,
        )

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, dataset_name: str
    ) -> Any:
        if not isinstance(dataset, Dataset):
            raise ConfigError(
                f"streaming: the {dataset_name} dataset is a {type(dataset).__name__}, "
                "which does not work with aw_dpo; set streaming: false"
            )
        dataset, dropped = drop_undecided(dataset, dataset_name)
        if dropped:
            LOG.warning(
                "dropped %d of %d pairs of the %s dataset: chosen is better in no "
                "segment",
                dropped,
                dropped + len(dataset),
                dataset_name,
            )
        dataset = super()._prepare_dataset(
            dataset, processing_class, args, dataset_name
        )
        weights = self.aw_dpo.default_weights
        with PartialState().main_process_first():
            return dataset.map(
                prepare_row,
                with_indices=True,
                fn_kwargs={
                    "tokenizer": processing_class,
                    "epsilon": self.aw_dpo.epsilon,
                    "default": (weights.reasoning, weights.answer),
                    "name": dataset_name,
                },
                num_proc=args.dataset_num_proc,
                desc=f"Finding segments in {dataset_name} dataset",
            )

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        missing = set(SEGMENT_COLUMNS) - set(self._signature_columns)
        self._signature_columns += sorted(missing)

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        share_cache_folder(dataset)
        return super()._precompute_ref_logps(dataset, name, batch_size)

    def compute_ref_log_probs(
        self, model: Any, inputs: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reference log-probabilities of a batch, also used for precomputing.

        Args:
            model: The reference, or the policy whose adapter is to be put aside.
            inputs: A batch of `AwDpoCollator`.

        Returns:
            Chosen and rejected, each [B, 2] in nats, reasoning first.
        """
        with (
            torch.no_grad(),
            disable_gradient_checkpointing(
                self.model, self.args.gradient_checkpointing_kwargs
            ),
            self._adapter_aside(),
            self.accelerator.autocast(),
        ):
            outputs = model(**_model_inputs(inputs))
            logps = _batch_segment_logps(outputs.logits, inputs)
        chosen, rejected = logps.chunk(2, dim=0)
        return chosen, rejected

    def _adapter_aside(self) -> Any:
        if self.ref_model is not None or not is_peft_model(self.model):
            return torch.no_grad()
        policy = self.accelerator.unwrap_model(self.model)
        return use_adapter(policy, "ref" if "ref" in policy.peft_config else None)

    def _compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool
    ) -> Any:
        model_inputs = _model_inputs(inputs)
        if self.aux_loss_enabled:
            model_inputs["output_router_logits"] = True
        outputs = model(**model_inputs)
        logps = _batch_segment_logps(outputs.logits, inputs)
        batch = self._pair_batch(logps, inputs)
        margins = segment_margins(
            batch.chosen,
            batch.rejected,
            batch.ref_chosen,
            batch.ref_rejected,
            self.beta,
        )
        losses = aw_dpo_losses(
            margins,
            batch.weights,
            batch.valid,
            mode=self.aw_dpo.mode,
            scale=self.aw_dpo.scale,
            alpha=self.aw_dpo.alpha,
            pair_loss=PAIR_LOSSES[self.loss_types[0]],
        )
        loss = losses.mean() * self.loss_weights[0]
        aux_loss = outputs.aux_loss if self.aux_loss_enabled else None
        if aux_loss is not None:
            loss = loss + self.router_aux_loss_coef * aux_loss
        self._record(batch, inputs["attention_mask"].sum(), aux_loss)
        return (loss, outputs) if return_outputs else loss

    def _pair_batch(
        self, logps: torch.Tensor, inputs: dict[str, torch.Tensor]
    ) -> PairBatch:
        if self.precompute_ref_logps:
            reference = (inputs["ref_chosen_logps"], inputs["ref_rejected_logps"])
        else:
            reference = self.compute_ref_log_probs(
                self.model if self.ref_model is None else self.ref_model, inputs
            )
        chosen, rejected = logps.chunk(2, dim=0)
        has_tokens = _batch_masks(inputs).any(dim=2)
        chosen_has, rejected_has = has_tokens.chunk(2, dim=0)
        valid = chosen_has & rejected_has
        weights = effective_weights(inputs["segment_weights"], valid)
        return PairBatch(chosen, rejected, *reference, valid, weights)

    @torch.no_grad()
    def _record(
        self, batch: PairBatch, tokens: torch.Tensor, aux_loss: torch.Tensor | None
    ) -> None:
        mode = "train" if self.model.training else "eval"
        found = batch_statistics(batch, self.beta)
        one = torch.ones((), device=tokens.device)
        if aux_loss is not None:
            found["aux_loss"] = (aux_loss.detach().float(), one)
        found["num_tokens"] = (tokens.float(), one)
        sums = self.accelerator.gather(stack_statistics(found)).sum(dim=0).tolist()
        averages = average_statistics(found, sums)
        del averages["num_tokens"]
        if mode == "train":
            self._total_train_tokens += int(sums[-1][0])
        for name, value in averages.items():
            self._metrics[mode][name].append(value)
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]


def _settings(args: Any, aw_dpo: AwDpoConfig | None) -> AwDpoConfig:
    if aw_dpo is not None:
        return aw_dpo
    section = getattr(args, "aw_dpo", None)
    if section is None:
        raise ConfigError(
            "aw_dpo is missing from the training arguments; add the section to the "
            "configuration, or pass aw_dpo=AwDpoConfig() to the trainer"
        )
    return AwDpoConfig.model_validate(section)


def _refuse(args: Any, processing_class: Any) -> None:
    refuse_unsupported_arguments(args)
    if not isinstance(processing_class, PreTrainedTokenizerBase):
        raise ConfigError(
            f"processor_type: {type(processing_class).__name__} does not work with "
            "aw_dpo; remove it: pairs with images are not supported"
        )


def _collator(
    args: Any, given: Any, tokenizer: PreTrainedTokenizerBase
) -> AwDpoCollator:
    if isinstance(given, AwDpoCollator):
        return given
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    multiple = args.pad_to_multiple_of
    if multiple is None:
        multiple = getattr(given, "pad_to_multiple_of", None)
    return AwDpoCollator(
        pad_token_id=tokenizer.pad_token_id,
        max_length=args.max_length,
        pad_to_multiple_of=multiple,
    )


def _model_inputs(inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: inputs[name] for name in _MODEL_KEYS} | {"use_cache": False}


def _batch_masks(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """[2B, 2, L-1]: masks of the predicted tokens, the first position left out."""
    masks = segment_masks(inputs["completion_mask"], inputs["reasoning_len"])
    return masks[..., 1:]


def _batch_segment_logps(
    logits: torch.Tensor, inputs: dict[str, torch.Tensor]
) -> torch.Tensor:
    """[2B, 2] from [2B, L, V]."""
    labels = inputs["input_ids"][:, 1:]
    options = (
        {"row_mask": inputs["completion_mask"][:, 1:]} if _SKIPS_MASKED_ROWS else {}
    )
    token_logps = selective_log_softmax(logits[:, :-1], labels, **options)
    return segment_logps(token_logps, _batch_masks(inputs))
