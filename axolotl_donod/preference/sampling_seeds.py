"""The integer that every draw of one sample follows from; needs no torch."""

import hashlib


def row_key(seed: int, content: str, index: int) -> int:
    """Name one sample of one prompt by a signed integer of 64 bits.

    Args:
        seed: Of the whole run.
        content: Key of the prompt's content.
        index: Number of the sample among those of the prompt.
    """
    text = f"{seed}|{content}|{index}".encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
