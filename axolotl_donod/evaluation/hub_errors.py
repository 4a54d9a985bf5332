"""Failures of the Hub in plain words: unreachable, gated or not there."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
)

from axolotl_donod.errors import EvaluationError

# What else to do, for data and for a model.
LOCAL_DATA = (
    "set evaluation.data.local_data to a folder that holds the data, or choose tasks "
    "of a file that you have"
)
LOCAL_MODEL = "give a folder that holds the model, as base_model or by `--model`"


@contextmanager
def explained_hub_errors(what: str, remedy: str) -> Iterator[None]:
    """Turn failures to load `what` from the Hub into errors with a remedy.

    Args:
        what: Names the data or the model.
        remedy: `LOCAL_DATA` or `LOCAL_MODEL`.

    Raises:
        EvaluationError: The Hub cannot be reached, refuses, or does not have it.
    """
    try:
        yield
    except (
        ConnectionError,
        LocalEntryNotFoundError,
        DatasetNotFoundError,
        HfHubHTTPError,
        httpx.TransportError,
        OSError,
    ) as error:
        cause = _cause(error, remedy)
        if cause is None:
            raise
        raise EvaluationError(f"{what} cannot be loaded: {cause}") from error


def _cause(error: BaseException, remedy: str) -> str | None:
    chain = list(_chain(error))
    text = " ".join(str(one) for one in chain)
    if any(isinstance(one, GatedRepoError) for one in chain) or "gated" in text.lower():
        return (
            f"{error}; ask for access on its page, log in with `hf auth login` or set "
            f"HF_TOKEN, or {remedy}"
        )
    unreachable = (ConnectionError, LocalEntryNotFoundError, httpx.TransportError)
    if any(isinstance(one, unreachable) for one in chain) or "offline mode" in text:
        return (
            f"the Hub cannot be reached and has not been before ({error}); connect, or "
            f"{remedy}"
        )
    if any(isinstance(one, DatasetNotFoundError | HfHubHTTPError) for one in chain):
        return f"{error}; check the name, log in with `hf auth login`, or {remedy}"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
