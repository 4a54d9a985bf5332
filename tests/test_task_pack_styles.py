"""The command that lets a real model write styles of prompts."""

import json

from click.testing import CliRunner

from axolotl_donod.cli_styles import styles
from axolotl_donod.evaluation.prompt_tasks import prompt_docs
from axolotl_donod.evaluation.task_settings import TaskSettings
from tests.task_pack_cases import ROWS, write_prompts


def run(*arguments):
    return CliRunner().invoke(styles, [str(argument) for argument in arguments])


def test_a_model_writes_styles_that_the_tasks_then_read(tiny_model_dir, tmp_path):
    write_prompts(tmp_path / "data")
    given = (tiny_model_dir, tmp_path / "styles", "--source", "advbench")
    given += ("--style", "slang", "--local-data", tmp_path / "data")
    done = run(*given)
    assert done.exit_code == 0, done.output
    assert f"1 styles written for {ROWS} prompts" in done.output
    settings = TaskSettings(local_data=tmp_path / "data", styles=tmp_path / "styles")
    docs = list(prompt_docs("advbench", "styled", settings))
    lines = (tmp_path / "styles/advbench/question_slang.jsonl").read_text("utf-8")
    texts = [json.loads(line)["turns"][0] for line in lines.splitlines()]
    assert [doc["prompt"] for doc in docs] == texts
    assert all(doc["attack_version"] == str(tiny_model_dir) for doc in docs)
    again = run(*given)
    assert f"0 styles written for {ROWS} prompts" in again.output


def test_what_cannot_be_written_is_said_without_a_traceback(tiny_model_dir, tmp_path):
    write_prompts(tmp_path)
    given = ("--source", "advbench", "--local-data", tmp_path)
    unknown = run(tiny_model_dir, tmp_path / "s", *given, "--style", "rap")
    assert "style 'rap' is none that a model writes" in unknown.output
    missing = run(tmp_path / "gone", tmp_path / "s", *given)
    assert "cannot be loaded" in missing.output
    assert "Traceback" not in unknown.output + missing.output
