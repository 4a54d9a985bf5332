"""What all commands share: our errors without a traceback, our log on the terminal."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click

from axolotl_donod.errors import DonodError


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show our own errors without a traceback."""
    try:
        yield
    except DonodError as error:
        raise click.ClickException(str(error)) from error


def log_to_terminal() -> None:
    """Show what our functions log; commands that load Axolotl have its logging."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("axolotl.donod").setLevel(logging.INFO)
