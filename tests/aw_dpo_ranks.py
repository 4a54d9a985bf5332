"""A short run of one or more ranks: `python -m tests.aw_dpo_ranks OUT OPTIONS`.

Writes the log and the trained weights, and fails where the ranks' weights differ.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed
from axolotl.core.trainers.dpo.args import AxolotlDPOConfig
from peft import LoraConfig

from axolotl_donod.aw_dpo.trainer import AwDpoTrainer
from tests.aw_dpo_cases import THINKING, config, pairs, settings
from tests.tiny import tiny_model, tiny_tokenizer

PAIRS = 4


def main(folder: Path, options: dict) -> None:
    """Train on all pairs in every step, over however many ranks there are."""
    lora, precompute = options.pop("lora"), options.pop("precompute")
    checkpointing, ranks = options.pop("checkpointing"), options.pop("ranks")
    trainer = AwDpoTrainer(
        tiny_model(tied=False).double(),
        None if lora else tiny_model(seed=1).double(),
        args=config(
            folder,
            AxolotlDPOConfig,
            max_steps=3,
            per_device_train_batch_size=PAIRS // ranks,
            learning_rate=1e-2,
            lr_scheduler_type="constant",
            optim="sgd",
            max_grad_norm=0.0,
            logging_steps=1,
            save_strategy="no",
            gradient_checkpointing=checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            precompute_ref_log_probs=precompute,
            ddp_backend="gloo" if ranks > 1 else None,
            ddp_find_unused_parameters=options.pop("find_unused"),
        ),
        train_dataset=pairs([*THINKING, THINKING[0][:1] + THINKING[1][1:]]),
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(r=2, target_modules="all-linear") if lora else None,
        aw_dpo=settings(0.3, **options),
    )
    torch.manual_seed(3)
    for name, parameter in trainer.model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3)
    trainer.train()
    weights = torch.cat(
        [p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad]
    )
    if torch.distributed.is_initialized():
        first = weights.clone()
        torch.distributed.broadcast(first, src=0)
        assert torch.equal(first, weights), "the ranks' weights differ"
    if trainer.is_world_process_zero():
        torch.save(weights, folder / "weights.pt")
        log = json.dumps(trainer.state.log_history)
        (folder / "log.json").write_text(log, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
