"""The tags around reasoning, and a response split at them into its two parts."""

THINK = "think"
THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"


def split_response(response: str) -> tuple[str, str]:
    """Return reasoning and answer of a response, without tags and outer white space.

    It is split at the first `</think>`; reasoning that never closes leaves no answer,
    and a response without tags is all answer.
    """
    before, closed, after = response.partition(THINK_CLOSE)
    if not closed and THINK_OPEN not in response:
        return "", response.strip()
    return before.replace(THINK_OPEN, "", 1).strip(), after.strip()
