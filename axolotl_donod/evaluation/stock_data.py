"""The data of lm-eval's own tasks, from the Hub or from a folder of their raw files.

Both give the same columns, so that a stock task cannot tell them apart.
"""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axolotl_donod.errors import ConfigError, DataError
from axolotl_donod.evaluation.prompt_files import read_rows, require_column
from axolotl_donod.evaluation.task_settings import task_settings

if TYPE_CHECKING:
    from datasets import Dataset

Rows = list[dict[str, Any]]
_CHOICES = 4


def stock_dataset(
    data: str,
    subset: str = "",
    donod: Mapping[str, Any] | None = None,
    **rest: Any,
) -> "Mapping[str, Dataset]":
    """Return the splits of a stock task's data, as lm-eval's `custom_dataset` does.

    Args:
        data: `gsm8k`, `truthfulqa_mc`, `truthfulqa_gen` or `mmlu`.
        subset: Subject, for MMLU.
        donod: `TaskSettings` as a mapping; `local_data` set reads files in place of
            the Hub.
        rest: What else lm-eval passes, such as the model's arguments.

    Raises:
        ConfigError: `data` is unknown.
        DataError: The data cannot be had or read.
    """
    import datasets

    if data not in _LOCAL:
        raise ConfigError(f"data {data!r} is unknown; give one of {list(_LOCAL)}")
    settings = task_settings(donod)
    if settings.local_data:
        splits = _LOCAL[data](settings.local_data, subset)
        return {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
    path, name = _HUB[data]
    try:
        found: Mapping[str, Dataset] = datasets.load_dataset(path, name or subset)
    except Exception as error:
        raise DataError(
            f"{path} cannot be loaded: {error!r}; check the connection, or set "
            "metadata.donod.local_data to a folder with the raw files"
        ) from error
    return found


def _gsm8k(folder: Path, subset: str) -> dict[str, Rows]:
    columns = {"question": str, "answer": str}
    return {
        split: _rows(folder / f"gsm8k/{split}.jsonl", columns)
        for split in ("train", "test")
    }


def _rows(path: Path, columns: Mapping[str, type]) -> Rows:
    """Rows of a file that must have these columns, of these types."""
    rows = read_rows(path)
    for column, kind in columns.items():
        require_column(rows, column, path, "give the file of the data set", kind)
    return [dict(row) for row in rows]


def _truthfulqa_mc(folder: Path, subset: str) -> dict[str, Rows]:
    path = _truthfulqa(folder) / "mc_task.json"
    columns = {"question": str, "mc1_targets": dict, "mc2_targets": dict}
    rows = [
        {"question": row["question"]}
        | {
            name: {"choices": list(row[name]), "labels": list(row[name].values())}
            for name in ("mc1_targets", "mc2_targets")
        }
        for row in _rows(path, columns)
    ]
    return {"validation": rows}


def _truthfulqa_gen(folder: Path, subset: str) -> dict[str, Rows]:
    names = ("Type", "Category", "Question", "Best Answer", "Correct Answers")
    columns = dict.fromkeys((*names, "Incorrect Answers", "Source"), str)
    rows = [
        {
            "type": row["Type"],
            "category": row["Category"],
            "question": row["Question"],
            "best_answer": row["Best Answer"],
            "correct_answers": _answers(row["Correct Answers"]),
            "incorrect_answers": _answers(row["Incorrect Answers"]),
            "source": row["Source"],
        }
        for row in _rows(_truthfulqa(folder) / "TruthfulQA.csv", columns)
    ]
    return {"validation": rows}


def _truthfulqa(folder: Path) -> Path:
    """The release of 817 questions, which is that of lm-eval's tasks."""
    first = folder / "truthfulqa/v1"
    return first if first.is_dir() else folder / "truthfulqa"


def _answers(text: str) -> list[str]:
    return [answer.strip() for answer in text.split(";") if answer.strip()]


def _mmlu(folder: Path, subset: str) -> dict[str, Rows]:
    return {
        split: _subject(folder / f"mmlu/{split}/{subset}_{split}.csv", subset)
        for split in ("test", "dev")
    }


def _subject(path: Path, subject: str) -> Rows:
    """Rows of question, four choices and answer, 0 to 3 or A to D, header or none."""
    if not path.is_file():
        raise DataError(
            f"{path} does not exist; add the file, or leave out the task mmlu_{subject}"
        )
    with path.open(encoding="utf-8", newline="") as stream:
        lines = [line for line in csv.reader(stream) if line]
    rows = []
    for number, line in enumerate(lines):
        if number == 0 and line[0] == "question":
            continue
        if len(line) != _CHOICES + 2 or line[-1] not in _LETTERS:
            raise DataError(
                f"{path} row {number} must be a question, four choices and an answer, "
                f"got {json.dumps(line)}; mend the file"
            )
        question, *choices, answer = line
        rows.append(
            {
                "question": question,
                "subject": subject,
                "choices": choices,
                "answer": _LETTERS[answer],
            }
        )
    if not rows:
        raise DataError(f"{path} holds no rows; give the file of the data set")
    return rows


_LETTERS = {name: at for at in range(_CHOICES) for name in ("ABCD"[at], str(at))}
_HUB = {
    "gsm8k": ("openai/gsm8k", "main"),
    "truthfulqa_mc": ("truthfulqa/truthful_qa", "multiple_choice"),
    "truthfulqa_gen": ("truthfulqa/truthful_qa", "generation"),
    "mmlu": ("cais/mmlu", ""),
}
_LOCAL: dict[str, Callable[[Path, str], dict[str, Rows]]] = {
    "gsm8k": _gsm8k,
    "truthfulqa_mc": _truthfulqa_mc,
    "truthfulqa_gen": _truthfulqa_gen,
    "mmlu": _mmlu,
}
