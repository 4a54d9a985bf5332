"""The package as a whole: light to import, one direction of imports, small modules."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "axolotl_donod"
MODULES = sorted(PACKAGE.rglob("*.py"))
# Data flows from the first module to the last, and a module imports only what stands
# before it. A name that ends in a dot is a folder whose modules may import one another.
ORDER = """
errors files think
donod_parts chat_options
judges.texts judges.judge judges.config
preference.sampling_config preference.pairs_config
evaluation.attacks.attack evaluation.task_settings evaluation.eval_config
donod_config cot_sft_config config guard checks options
hookspecs
pruning.scores
pruning.audit.corruptions
registry
pruning.donod
pruning.table
pruning.rows
pruning.scoring.head_weight pruning.scoring.head pruning.scoring.head_check
pruning.scoring.token_sums pruning.scoring.gram
pruning.scoring.panel pruning.scoring.probes
pruning.scoring.answers pruning.scoring.memory pruning.scoring.score_values
pruning.scoring.scorer
pruning.store
pruning.topsis pruning.step pruning.features pruning.calibration
pruning.ranking pruning.presets
pruning.shares pruning.selection pruning.similarity
pruning.audit.spans pruning.audit.clones
pruning.audit.auroc pruning.audit.judge pruning.audit.audit
pruning.model pruning.engine pruning.waiting
pruning.decision pruning.folder
pruning.cost
pruning.report.
pruning.task pruning.prune
cot_messages cot
aw_dpo.weights aw_dpo.segments aw_dpo.loss aw_dpo.args aw_dpo.cache aw_dpo.collator
aw_dpo.rows aw_dpo.metrics aw_dpo.adapter
aw_dpo.layout aw_dpo.logps aw_dpo.forward aw_dpo.columns aw_dpo.scorer
aw_dpo.objective aw_dpo.truncation aw_dpo.report aw_dpo.preview
aw_dpo.trainer
cot_sft_rows cot_sft cot_sft_mix
workers chat
judges.replies judges.rules judges.panel judges.cache judges.classifier
judges.guard_presets judges.guard_options judges.guard
judges.openai_prompt judges.openai judges.builtin judges.build
preference.
evaluation.attacks.
evaluation.pack evaluation.prompt_files evaluation.samples evaluation.sources
evaluation.sorry_bench evaluation.styles evaluation.style_writer
evaluation.prompt_tasks evaluation.views evaluation.task_metrics
evaluation.stock_data evaluation.gsm8k_think evaluation.held_out
markers merge stages
evaluation.responses evaluation.resumable evaluation.backend evaluation.hub_errors
evaluation.task_names evaluation.rows evaluation.human evaluation.run_info
evaluation.targets
evaluation.runner evaluation.judging
evaluation.gaffke evaluation.bounds evaluation.statistics evaluation.agreement
evaluation.columns
evaluation.tables evaluation.pairing evaluation.cautions evaluation.comparison
evaluation.report.
summary
sources datasets pair_task
plugin
cli_errors cli_styles cli_eval cli
demo.
""".split()
FOLDERS = {
    *("pruning", "pruning.audit", "pruning.scoring", "pruning.report"),
    *("aw_dpo", "judges", "preference", "demo"),
    *("evaluation", "evaluation.attacks", "evaluation.report"),
}
HEAVY = ("torch", "transformers", "axolotl", "trl", "peft", "datasets", "numpy")


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def place(name: str) -> int:
    """Position of a module in ORDER."""
    if name in ORDER:
        return ORDER.index(name)
    folder = f"{name.rpartition('.')[0]}."
    assert folder in ORDER, f"{name} has no place in ORDER; add it where it belongs"
    return ORDER.index(folder)


def imports(path: Path) -> set[str]:
    """Names, within the package, of the modules of it that a file imports anywhere.

    What only a type checker imports is left out: it cannot run in a circle.
    """
    known = {name_of(module) for module in MODULES}
    tree, found = ast.parse(path.read_text("utf-8")), set()
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in set(ast.walk(tree)) - typing_only:
        if isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            full = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        else:
            continue
        found |= {n.removeprefix("axolotl_donod.") for n in full if ours(n)} & known
    return found - {""} - FOLDERS


def ours(name: str) -> bool:
    return name.startswith("axolotl_donod.")


def names(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_imports_only_what_stands_before_it(path):
    if path.name == "__init__.py":
        assert imports(path) == set()
        return
    here = place(name_of(path))
    folder = ORDER[here].endswith(".")
    late = [n for n in imports(path) if place(n) > here - (not folder)]
    assert not late, f"{name_of(path)} imports what stands after it: {late}"


def test_every_name_in_the_order_exists():
    known = {name_of(path) for path in MODULES}
    assert {n for n in ORDER if n.rstrip(".") not in known} == set()


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_opens_with_one_sentence_and_stays_small(path):
    source = path.read_text("utf-8")
    opening = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0]
    assert opening.rstrip().endswith("."), f"{path}: no sentence opens the module"
    assert len(source.splitlines()) <= 300


def loaded_after(statement: str) -> set[str]:
    """Heavy packages that a fresh Python has loaded after a statement."""
    code = f"{statement}\nimport sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(HEAVY) & set(result.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after("import axolotl_donod") == set()


def test_the_guard_needs_nothing_heavy():
    """Pydantic imports it in every process of the environment."""
    assert loaded_after("import axolotl_donod.guard") == set()


def test_the_sections_need_no_model_library():
    assert loaded_after("import axolotl_donod.checks") == set()


def test_exports_what_configs_name():
    import axolotl_donod

    assert {"DonodPlugin", "cot_pairs"} <= set(axolotl_donod.__all__)
    assert axolotl_donod.cot_pairs.__module__ == "axolotl_donod.cot"
    with pytest.raises(AttributeError, match="no attribute 'Donod'"):
        _ = axolotl_donod.Donod


def test_version_is_that_of_the_distribution():
    from importlib.metadata import version

    import axolotl_donod

    assert axolotl_donod.__version__ == version("axolotl-donod")


def test_is_typed():
    assert (PACKAGE / "py.typed").is_file()
