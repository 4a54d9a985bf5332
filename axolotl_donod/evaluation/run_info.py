"""How a run was made: takes model, settings and results, gives what run.json holds."""

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from axolotl_donod.evaluation.backend import EvalModel, ranks
from axolotl_donod.evaluation.eval_config import EvaluationConfig
from axolotl_donod.evaluation.samples import RunInfo

_PACKAGES = ("axolotl-donod", "lm_eval", "torch", "transformers", "datasets", "vllm")


def run_info(
    model: EvalModel,
    settings: EvaluationConfig,
    results: Mapping[str, Any],
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    fingerprint: str,
) -> RunInfo:
    """Collect settings, seeds, versions and hashes of a run.

    Args:
        model: What was loaded.
        settings: Tasks and decoding.
        results: What lm-eval gave.
        samples: What it logged, by task.
        fingerprint: Hash of the model.
    """
    hashes = {"model": fingerprint}
    hashes |= {f"data {task}": _data_hash(logged) for task, logged in samples.items()}
    seeds = ("random_seed", "numpy_seed", "torch_seed", "fewshot_seed")
    return RunInfo(
        name=model.label,
        path=model.name,
        revision=model.revision,
        judge="",
        provisional=True,
        decoding=_decoding(settings, results),
        seeds={name: int(results["config"][name]) for name in seeds}
        | {"attacks": int(settings.metadata["donod"]["seed"])},
        versions=_versions(),
        hashes=hashes,
        tasks={task: str(version) for task, version in results["versions"].items()},
        attacks=_attacks(samples),
        results=dict(results["results"]),
        settings={
            **settings.model_dump(exclude={"judge", "output_dir"}),
            "peft": model.peft,
            "tokenizer": model.tokenizer,
            "rows": {task: _count(logged) for task, logged in samples.items()},
            "ranks": ranks()[1],
        },
    )


def _decoding(settings: EvaluationConfig, results: Mapping[str, Any]) -> dict[str, Any]:
    """Generation settings of each task that generates, as they took effect."""
    found = {
        task: config["generation_kwargs"]
        for task, config in results["configs"].items()
        if config.get("output_type") == "generate_until"
    }
    template = results["config"]["chat_template"]
    return {"chat_template": template, "system": settings.system_prompt, **found}


def _attacks(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """Versions of the attacks that documents name."""
    documents = (one["doc"] for logged in samples.values() for one in logged)
    return {
        doc["attack"]: doc["attack_version"]
        for doc in documents
        if isinstance(doc, Mapping) and "attack_version" in doc
    }


def _count(logged: Sequence[Mapping[str, Any]]) -> int:
    return len({one["doc_id"] for one in logged})


def _data_hash(logged: Sequence[Mapping[str, Any]]) -> str:
    """Hash the documents and prompts of a task, whatever order ranks gave them in."""
    lines = sorted({f"{one['doc_hash']}{one['prompt_hash']}" for one in logged})
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
