"""`--debug` on a run with an `aw_dpo` section, by the real command."""

from tests.runs import axolotl, base_config, pair_data, save


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
