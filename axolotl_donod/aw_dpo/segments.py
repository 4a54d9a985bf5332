"""Where reasoning ends: token ids in, one length and two masks per response out.

Knows nothing of models, losses or files.
"""

from collections.abc import Callable, Sequence

import torch

from axolotl_donod.cot import THINK_CLOSE

NO_REASONING = 0


def reasoning_length(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> int:
    """Number of tokens up to and including the one that completes `</think>`.

    The tag may be one token, several, or merged with its neighbours, so the length is
    found by bisecting the decoded prefixes and not by searching for token ids.

    Args:
        ids: Token ids of one response, without the prompt.
        decode: Ids to text, keeping special tokens.

    Returns:
        At least 1 when the tag is there, else `NO_REASONING` (0). With several tags
        the first one counts.
    """
    if THINK_CLOSE not in decode(ids):
        return NO_REASONING
    low, high = 0, len(ids)
    while high - low > 1:
        middle = (low + high) // 2
        if THINK_CLOSE in decode(ids[:middle]):
            high = middle
        else:
            low = middle
    return high


def segment_masks(
    completion_mask: torch.Tensor, reasoning_len: torch.Tensor
) -> torch.Tensor:
    """Split each completion into reasoning and answer.

    Counting completion tokens, and not positions, keeps the split where it is under
    padding on either side, truncation from the end and any order of the rows.

    Args:
        completion_mask: [N, L], non-zero on completion tokens.
        reasoning_len: [N], tokens of each completion that are reasoning; 0 makes the
            whole completion the answer.

    Returns:
        [N, 2, L] bool, reasoning first. The two masks are disjoint and together
        cover the completion.
    """
    completion = completion_mask.bool()
    position = completion.long().cumsum(dim=1)
    inside = position <= reasoning_len.to(position.device).unsqueeze(1)
    return torch.stack((completion & inside, completion & ~inside), dim=1)
