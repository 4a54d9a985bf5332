"""`--debug` on a run with an `aw_dpo` section, by the real command."""

from tests.runs import axolotl, base_config, pair_data, pair_rows, save, write_jsonl


def test_debug_shows_the_text_the_model_sees_cut_into_segments(
    tmp_path, tiny_model_dir
):
    config = base_config(tmp_path, tiny_model_dir) | pair_data(tmp_path)
    path = save(tmp_path, config | {"rl": "dpo", "aw_dpo": {}})
    options = ("--debug", "--debug-num-examples", "2")
    shown = axolotl("preprocess", path, *options, cwd=tmp_path).stdout
    assert shown.count("The model sees: row ") == 2
    assert f"(from 0) of {tmp_path / 'pairs.jsonl'} or " in shown
    assert "weights: reasoning 0." in shown
    assert '"<think>That would hurt someone.</think>"' in shown
    assert '"I cannot help.<|im_end|>"' in shown


def test_tags_of_ones_own_are_weighted_by_their_own_scores(tmp_path, tiny_model_dir):
    rows = pair_rows(6)
    for number, row in enumerate(rows):
        for side in ("chosen", "rejected"):
            row[side] = row[side].replace("think>", "plan>")
        # By the six columns of reasoning and answer, no pair favours a side.
        row |= {f"rejected_harm_{part}": 0.0 for part in ("full", "reasoning")}
        gap = 0.0 if number < 2 else 0.5
        row |= {"chosen_harm_plan": 0.25, "rejected_harm_plan": 0.25 + gap}
        row |= {"chosen_harm_answer": 0.0, "rejected_harm_answer": 0.0}
    rows[2]["rejected"] = rows[2]["chosen"]
    config = base_config(tmp_path, tiny_model_dir) | pair_data(tmp_path)
    config["datasets"][0]["path"] = write_jsonl(tmp_path / "own.jsonl", rows)
    del config["test_datasets"], config["eval_strategy"]
    path = save(tmp_path, config | {"rl": "dpo", "aw_dpo": {"segments": ["plan"]}})
    shown = axolotl("preprocess", path, "--debug", cwd=tmp_path).stdout
    assert "dropped 3 of 6 training pairs" in shown
    # d = (0.5, 0) and ε = 0.05: w = (0.55, 0.05) / 0.6
    assert "weights: plan 0.917, answer 0.083" in shown
    assert '"<plan>That would hurt someone.</plan>"' in shown
