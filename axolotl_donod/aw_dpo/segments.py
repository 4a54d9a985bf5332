"""Where segments end: token ids in, lengths and masks per response out.

Knows nothing of models, losses or files.
"""

from collections.abc import Callable, Sequence

import torch

from axolotl_donod.think import THINK_CLOSE

NO_REASONING = 0

Decode = Callable[[Sequence[int]], str]


def reasoning_length(ids: Sequence[int], decode: Decode) -> int:
    """Number of tokens up to and including the one that completes `</think>`.

    Args:
        ids: Token ids of one response, without the prompt.
        decode: Ids to text, keeping special tokens.

    Returns:
        At least 1 when the tag is there, else `NO_REASONING` (0). With several tags
        the first one counts.
    """
    return length_through(ids, decode, THINK_CLOSE)


def length_through(ids: Sequence[int], decode: Decode, text: str) -> int:
    """Number of tokens up to and including the one that completes a text.

    The text may be one token, several, or merged with its neighbours, so the length is
    found by bisecting the decoded prefixes and not by searching for token ids.

    Args:
        ids: Token ids of one response.
        decode: Ids to text, keeping special tokens.
        text: What to find; its first occurrence counts.

    Returns:
        At least 1 when the text is there, else 0.
    """
    if text not in decode(ids):
        return 0
    low, high = 0, len(ids)
    while high - low > 1:
        middle = (low + high) // 2
        if text in decode(ids[:middle]):
            high = middle
        else:
            low = middle
    return high


def segment_masks(completion_mask: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Split each completion into its segments.

    Counting completion tokens, and not positions, keeps the split where it is under
    padding on either side, truncation from the end and any order of the rows.

    Args:
        completion_mask: [N, L], non-zero on completion tokens.
        ends: [N], tokens of each completion that are reasoning, 0 making all of it the
            answer; or [N, S-1], tokens up to the end of each segment but the last.

    Returns:
        [N, S, L] bool, in order. The masks are disjoint and together cover the
        completion.
    """
    completion = completion_mask.bool()
    position = completion.long().cumsum(dim=1).unsqueeze(1)
    bounds = ends.to(position.device).reshape(len(completion), -1, 1)
    inside = position <= bounds
    outside = torch.ones_like(inside[:, :1])
    started = torch.cat((outside, ~inside), dim=1)
    unfinished = torch.cat((inside, outside), dim=1)
    return completion.unsqueeze(1) & started & unfinished
