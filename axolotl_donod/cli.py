"""The command group `axolotl donod`: thin wrappers over the package's functions."""

import importlib
import importlib.metadata
from importlib.metadata import entry_points
from pathlib import Path

import click
import yaml

from axolotl_donod.checks import read_sections
from axolotl_donod.errors import DonodError
from axolotl_donod.files import write_text

# What touches Axolotl and TRL; the plugin itself imports some of it only when used.
_HOST_MODULES = ("plugin", "datasets", "aw_dpo.trainer")


@click.group()
def donod() -> None:
    """Prune SFT data with DONOD, align with AW-DPO, see what changed."""


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

    try:
        text = summarize(output_dir, planted)
    except DonodError as error:
        raise click.ClickException(str(error)) from error
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

    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(raw, dict):
        return f"{path} is no mapping of keys; see example_configs/"
    try:
        sections = read_sections(raw)
    except DonodError as error:
        return f"{path}: {error}"
    if sections.empty:
        return f"{path} has none of the sections {', '.join(SECTIONS)}"
    named = raw.get("plugins") or []
    if "axolotl_donod.DonodPlugin" not in named:
        return f"{path} lacks the line `{PLUGIN_LINE}`"
    return None
