"""Public sets of prompts by name: where each comes from and how its rows are read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from axolotl_donod.errors import ConfigError
from axolotl_donod.evaluation.prompt_files import (
    Prompt,
    fetched,
    read_prompts,
    read_rows,
    require_column,
)
from axolotl_donod.evaluation.samples import (
    BENIGN_TWIN,
    HARMFUL,
    LOOKALIKE_SAFE,
    LOOKALIKE_UNSAFE,
)
from axolotl_donod.evaluation.task_settings import PromptFile, TaskSettings

_RAW = "https://raw.githubusercontent.com"


# Between a context and what is asked of it.
CONTEXT_END = "\n\n---\n\n"


@dataclass(frozen=True)
class Source:
    """A public file of prompts.

    `file` is its place under `local_data`, `url` its public address, and `read` makes
    prompts of it.
    """

    file: str
    url: str
    read: Callable[[Path], list[Prompt]]


def _harmbench(path: Path) -> list[Prompt]:
    """Standard and contextual behaviours, context first, as HarmBench joins them.

    Copyright behaviours are left out: HarmBench compares them with the protected text,
    which no judge of harmfulness can do.
    """
    prompts = read_prompts(path, "Behavior", "BehaviorID", "SemanticCategory")
    joined = []
    for prompt, row in zip(prompts, read_rows(path), strict=True):
        if row.get("FunctionalCategory") == "copyright":
            continue
        context = row.get("ContextString") or ""
        text = f"{context}{CONTEXT_END}{prompt.text}" if context else prompt.text
        joined.append(Prompt(prompt.id, prompt.category, text))
    return joined


def _advbench(path: Path) -> list[Prompt]:
    return read_prompts(path, "goal")


def _do_not_answer(path: Path) -> list[Prompt]:
    return read_prompts(path, "question", "id", "risk_area")


def _xstest(half: str) -> Callable[[Path], list[Prompt]]:
    def read(path: Path) -> list[Prompt]:
        prompts = read_prompts(path, "prompt", "id", "type")
        rows = read_rows(path)
        require_column(rows, "label", path, "give the file of XSTest")
        pairs = zip(prompts, rows, strict=True)
        return [prompt for prompt, row in pairs if row.get("label") == half]

    return read


_XSTEST = (
    "xstest/xstest_prompts.csv",
    f"{_RAW}/paul-rottger/xstest/main/xstest_prompts.csv",
)
SOURCES = {
    "harmbench": Source(
        "harmbench/harmbench_behaviors_text_all.csv",
        f"{_RAW}/centerforaisafety/HarmBench/main/data/behavior_datasets/"
        "harmbench_behaviors_text_all.csv",
        _harmbench,
    ),
    "advbench": Source(
        "advbench/harmful_behaviors.csv",
        f"{_RAW}/llm-attacks/llm-attacks/main/data/advbench/harmful_behaviors.csv",
        _advbench,
    ),
    "do_not_answer": Source(
        "do_not_answer/do_not_answer_en.csv",
        f"{_RAW}/Libr-AI/do-not-answer/main/datasets/Instruction/do_not_answer_en.csv",
        _do_not_answer,
    ),
    "xstest_safe": Source(*_XSTEST, _xstest("safe")),
    "xstest_unsafe": Source(*_XSTEST, _xstest("unsafe")),
}
# Sources whose rows ask for nothing harmful, or are the other half of XSTest.
KINDS = {
    "xstest_safe": LOOKALIKE_SAFE,
    "xstest_unsafe": LOOKALIKE_UNSAFE,
    "benign": BENIGN_TWIN,
}


def kind_of(source: str) -> str:
    """Return what the rows of a source ask for; see `samples.KINDS`."""
    return KINDS.get(source, HARMFUL)


def source_prompts(source: str, settings: TaskSettings) -> list[Prompt]:
    """Return the prompts of a source, their ids made unique among all sources.

    Raises:
        ConfigError: The source is unknown, or its file is not set.
        DataError: Its file cannot be had or read.
    """
    origin = source
    if source == "prompts":
        prompts = _from_file(settings.prompts)
    elif source == "benign" and settings.benign:
        prompts = _from_file(settings.benign)
    else:
        origin = "xstest_safe" if source == "benign" else source
        prompts = _public(origin, settings)
    return [Prompt(f"{origin}:{p.id}", p.category, p.text) for p in prompts]


def _from_file(file: PromptFile | None) -> list[Prompt]:
    if file is None:
        raise ConfigError(
            "metadata.donod.prompts is not set, and the tasks `prompts_*` need it; "
            """give --metadata '{"donod": {"prompts": {"path": "my.csv"}}}'"""
        )
    return read_prompts(
        file.path, file.prompt_column, file.id_column, file.category_column
    )


def _public(name: str, settings: TaskSettings) -> list[Prompt]:
    if name not in SOURCES:
        raise ConfigError(
            f"prompts of {name!r} are unknown; give one of "
            f"{[*SOURCES, 'benign', 'prompts', 'sorry_bench']}"
        )
    source = SOURCES[name]
    if settings.local_data:
        return source.read(settings.local_data / source.file)
    why = f"put it at FOLDER/{source.file} and set metadata.donod.local_data to FOLDER"
    return source.read(fetched(source.url, why))
