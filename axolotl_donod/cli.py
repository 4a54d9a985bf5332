"""The command group `axolotl donod`: thin wrappers over the package's functions."""

import importlib
import importlib.metadata
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from axolotl_donod import cli_eval, cli_styles
from axolotl_donod.checks import read_raw, read_sections
from axolotl_donod.cli_errors import log_to_terminal, plain_errors
from axolotl_donod.donod_config import DonodConfig
from axolotl_donod.errors import ConfigError, DonodError
from axolotl_donod.files import write_text

# What touches Axolotl and TRL; the plugin itself imports some of it only when used.
_HOST_MODULES = ("plugin", "datasets", "pair_task", "cot_sft", "aw_dpo.trainer")


@click.group()
def donod() -> None:
    """Prune SFT data with DONOD, align with AW-DPO, see what changed."""


_KEYS = ("base_model", "output_dir", "learning_rate")
CONFIG = click.argument(
    "config", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)


@donod.command()
@CONFIG
@click.option(
    "--preview", is_flag=True, help="Score one batch, say what all would cost, stop."
)
def score(config: Path, preview: bool) -> None:
    """Score the rows of CONFIG that have no score yet, rank and audit them."""
    from axolotl_donod.datasets import task_of
    from axolotl_donod.pruning.prune import estimate, prune

    with plain_errors():
        task = task_of(config)
        if not preview:
            prune(task)
            return
        cost = estimate(task)
    click.echo(cost.text() if cost else "All rows are scored; nothing is left to do.")


@donod.command()
@CONFIG
def prune(config: Path) -> None:
    """Rank and select again from the stored scores of CONFIG, without a model."""
    from axolotl_donod.pruning.prune import prune_again

    log_to_terminal()
    with plain_errors():
        prune_again(*_stored(config))


@donod.command()
@CONFIG
def audit(config: Path) -> None:
    """Print where the corrupted clones of CONFIG rank; fail below audit.min_auroc."""
    from axolotl_donod.pruning.audit.audit import audit_table, check_min_auroc
    from axolotl_donod.pruning.prune import audit_again

    with plain_errors():
        stored = _stored(config)
        found = audit_again(*stored)
        click.echo(audit_table(found))
        for warning in found.warnings:
            click.secho(f"Warning: {warning}", fg="red", err=True)
        check_min_auroc(found, stored[1])


@donod.command()
@CONFIG
def report(config: Path) -> None:
    """Write the report on CONFIG's scores, with the texts of telling rows."""
    from axolotl_donod.datasets import task_of
    from axolotl_donod.pruning.prune import decoder, refuse_other_rows
    from axolotl_donod.pruning.report.page import write_report

    with plain_errors():
        task = task_of(config)
        refuse_other_rows(task)
        texts = decoder(task.rows, task.model.tokenizer())
        click.echo(f"The report is {write_report(task.folder, texts=texts)}")


@donod.command()
@CONFIG
def pairs(config: Path) -> None:
    """Sample answers to the prompts of CONFIG's alignment.pairs, judge and pair them.

    Samples from the finished SFT stage, or from base_model where there is none. Run
    again, it goes on where it was, and asks again where the judge failed.
    """
    from axolotl_donod.pair_task import task_of
    from axolotl_donod.preference.build import make_pairs
    from axolotl_donod.preference.pairs_config import PAIRS_FILE
    from axolotl_donod.pruning.engine import Ranks

    ranks = Ranks.from_environment()
    with plain_errors():
        task, what = task_of(config)
        if ranks.first:
            click.echo(f"Sampling from {task.model.name}: {what}.")
        manifest = make_pairs(task, ranks, ask_again=True)
    if ranks.first:
        click.echo(f"{manifest['pairs']} pairs are in {task.folder / PAIRS_FILE}")


def _stored(config: Path) -> tuple[Path, DonodConfig, float, str]:
    """Folder of the scores, settings, learning rate and scoring model of a config."""
    raw: dict[str, Any] = read_raw(config)
    settings = read_sections(raw).donod
    missing = [key for key in _KEYS if raw.get(key) is None]
    if settings is None or missing:
        lacking = missing if settings else ["`donod:`"]
        raise ConfigError(
            f"{config} lacks {', '.join(lacking)}; give the config that "
            "the rows were scored with"
        )
    model = settings.scoring.base_model or str(raw["base_model"])
    folder = Path(raw["output_dir"]) / "donod"
    return folder, settings, float(raw["learning_rate"]), model


@donod.command()
@click.argument(
    "output_dir", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--planted",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON list of the rows known to be bad, to count how many were removed.",
)
def summary(output_dir: Path, planted: Path | None) -> None:
    """Print what a run did and write it to OUTPUT_DIR/summary.md."""
    from axolotl_donod.summary import summarize

    with plain_errors():
        text = summarize(output_dir, planted)
    write_text(output_dir / "summary.md", text)
    click.echo(text)


@donod.command()
@click.argument(
    "config",
    required=False,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
def doctor(config: Path | None) -> None:
    """Check that the plugin works here and, if given, that CONFIG would use it."""
    failures = [message for message in (_plugin_fault(), _guard_fault()) if message]
    for name in ("axolotl-donod", "axolotl", "torch", "transformers", "trl", "peft"):
        try:
            click.echo(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            failures.append(f"{name} is not installed; run `pip install axolotl-donod`")
    if config is not None:
        fault = _config_fault(config)
        failures += [fault] if fault else []
    if failures:
        raise click.ClickException("; ".join(failures))
    click.echo("The plugin imports and its guard is in place.")
    if config is not None:
        click.echo(f"{config}: the sections are valid and the plugin is named.")


def _plugin_fault() -> str | None:
    for name in _HOST_MODULES:
        try:
            importlib.import_module(f"axolotl_donod.{name}")
        except (ImportError, AttributeError) as error:
            return (
                f"axolotl_donod.{name} cannot be imported: {error}; install a release "
                "of Axolotl that axolotl-donod supports"
            )
    return None


def _guard_fault() -> str | None:
    names = {point.name for point in entry_points(group="pydantic")}
    if "axolotl_donod_guard" in names:
        return None
    return (
        "the guard is not installed as a pydantic plugin, so a lost section would go "
        "unnoticed; reinstall axolotl-donod with pip"
    )


def _config_fault(path: Path) -> str | None:
    from axolotl_donod.guard import PLUGIN_LINE, SECTIONS
    from axolotl_donod.judges.build import build_judge

    try:
        raw = read_raw(path)
        sections = read_sections(raw)
        if sections.alignment is not None and sections.alignment.pairs is not None:
            build_judge(sections.alignment.pairs.judge, "alignment.pairs.judge")
    except DonodError as error:
        return f"{path}: {error}"
    if sections.empty:
        return f"{path} has none of the sections {', '.join(SECTIONS)}"
    named = raw.get("plugins") or []
    if "axolotl_donod.DonodPlugin" not in named:
        return f"{path} lacks the line `{PLUGIN_LINE}`"
    return None


for _command in (*cli_eval.COMMANDS, cli_styles.styles):
    donod.add_command(_command)

if __name__ == "__main__":
    # So that torchrun and accelerate can start it: `-m axolotl_donod.cli score CONFIG`.
    donod()
