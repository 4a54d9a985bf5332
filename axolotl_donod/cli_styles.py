"""The command `axolotl donod styles`."""

from pathlib import Path

import click

from axolotl_donod.cli_errors import log_to_terminal, plain_errors


@click.command("styles")
@click.argument("model")
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--source",
    "sources",
    multiple=True,
    required=True,
    help="Prompts to rewrite, for instance harmbench or sorry_bench. Repeat for more.",
)
@click.option(
    "--style", "styles", multiple=True, help="Style to write; all by default."
)
@click.option(
    "--local-data", type=click.Path(path_type=Path), help="Folder of the data sets."
)
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="File of your prompts."
)
@click.option("--limit", type=click.IntRange(min=1), help="First prompts of a source.")
def styles(
    model: str,
    output: Path,
    sources: tuple[str, ...],
    styles: tuple[str, ...],
    local_data: Path | None,
    prompts: Path | None,
    limit: int | None,
) -> None:
    """Let MODEL put prompts in the styles of SORRY-Bench that need a model.

    OUTPUT gets a folder for each source; give it to the tasks as the setting `styles`.
    What OUTPUT holds already is not written again; refusals are left out.
    """
    from axolotl_donod.evaluation.prompt_files import Prompt
    from axolotl_donod.evaluation.prompt_tasks import prompt_docs
    from axolotl_donod.evaluation.style_writer import local_writer
    from axolotl_donod.evaluation.styles import INSTRUCTIONS, write_styles
    from axolotl_donod.evaluation.task_settings import task_settings

    log_to_terminal()
    with plain_errors():
        file = {"path": prompts} if prompts else None
        settings = task_settings({"local_data": local_data, "prompts": file})
        listed = {
            source: [
                Prompt(doc["base_id"], doc["category"], doc["original"])
                for doc in prompt_docs(source, "base", settings)
            ][:limit]
            for source in sources
        }
        write = local_writer(model)
        for source, found in listed.items():
            folder = output / source
            done = write_styles(found, styles or [*INSTRUCTIONS], write, model, folder)
            click.echo(
                f"{folder}: {done.written} texts written for {len(found)} prompts, "
                f"{done.left_out} left out (refused, empty or cut)"
            )
