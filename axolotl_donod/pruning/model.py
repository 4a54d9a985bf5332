"""The model that scores: how to load it as training will see it, and its identity.

Takes a name or folder, gives a transformers model and a fingerprint of its weights;
knows nothing of rows or scores.
"""

import gc
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class ScoringModel:
    """What to load for scoring, as the training run will start from it."""

    name: str
    revision: str | None
    adapter: str | None
    dtype: str
    attn_implementation: str
    trust_remote_code: bool
    tokenizer: Callable[[], Any]
    local_rank: int
    seed: int

    @contextmanager
    def loaded(self) -> Iterator[nn.Module]:
        """Yield the model in eval mode on its device; its memory is freed at the end.

        An adapter to start from is merged. Tokens that the run adds get embedding
        rows, as Axolotl gives them, drawn from `seed`.
        """
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            self.name,
            revision=self.revision,
            dtype=getattr(torch, self.dtype),
            attn_implementation=self.attn_implementation,
            trust_remote_code=self.trust_remote_code,
        )
        if self.adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, self.adapter).merge_and_unload()
        vocabulary = len(self.tokenizer())
        if vocabulary > model.get_input_embeddings().weight.shape[0]:
            torch.manual_seed(self.seed)
            model.resize_token_embeddings(vocabulary)
        try:
            yield model.to(self.device()).eval()
        finally:
            del model
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def device(self) -> torch.device:
        """Return the accelerator of this rank, or the CPU."""
        if torch.cuda.is_available():
            return torch.device("cuda", self.local_rank)
        return torch.device("cpu")

    def fingerprint(self) -> str:
        """Return 32 hex digits that change when a weight or the precision changes.

        Local folders are hashed whole; a hub model is known by its commit.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.dtype}|{self.seed}|{len(self.tokenizer())}".encode())
        digest.update(f"|{_identity(self.name, 'config.json', self.revision)}".encode())
        if self.adapter:
            adapter = _identity(self.adapter, "adapter_config.json", None)
            digest.update(f"|{adapter}".encode())
        return digest.hexdigest()


def _identity(name: str, config_file: str, revision: str | None) -> str:
    folder = Path(name)
    if not folder.is_dir():
        from transformers.utils.hub import cached_file, extract_commit_hash

        path = cached_file(name, config_file, revision=revision)
        return f"{name}@{extract_commit_hash(path, None) or revision}"
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin") or path.name.endswith("config.json"):
            digest.update(path.name.encode())
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
