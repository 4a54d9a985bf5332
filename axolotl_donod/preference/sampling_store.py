"""Samples on disk: appended as they are drawn, read by whoever looks for them.

Takes and gives samples by the key of their prompt's content; knows nothing of how they
are drawn.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from axolotl_donod.errors import DataError
from axolotl_donod.files import json_hash, write_json

LOG = logging.getLogger("axolotl.donod")
MANIFEST = "manifest.json"

Finish = Literal["eos", "length", "unclosed"]
Key = tuple[str, int]


@dataclass(frozen=True)
class Sample:
    """One answer.

    Attributes:
        prompt: Id of the prompt; in the store, the key of its content.
        index: Its number among the answers to the prompt.
        text: The answer with its opening, without the token that ended it.
        n_tokens: Sampled tokens, the one that ended it included.
        finish: `eos` if the model ended it; `unclosed` if `<think>` was still open
            when its tokens ran out, else `length`.
    """

    prompt: str
    index: int
    text: str
    n_tokens: int
    finish: Finish


class SampleStore:
    """Samples of one model and one way to sample, for any prompts.

    A line of a file holds the samples that were finished together, and each rank
    writes its own file. A line that is cut short, as by a kill or a full disk, is
    named in a warning, and its samples count as never drawn.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], rank: int) -> None:
        """Open the folder of an identity; nothing is written before `append`.

        Args:
            folder: Where the stores of all identities lie.
            identity: All but the prompt that a sample depends on, as JSON.
            rank: Number of this process among those that append.
        """
        self.folder = folder / json_hash(identity)
        self._identity = identity
        self._path = self.folder / f"rank{rank}.jsonl"
        self._opened = False
        self._told: set[tuple[Path, int]] = set()

    def append(self, samples: Iterable[Sample]) -> None:
        """Add samples as one line.

        Raises:
            DataError: The folder cannot be written.
        """
        line = json.dumps([asdict(sample) for sample in samples]) + "\n"
        try:
            self._open()
            with self._path.open("ab") as stream:
                stream.write(line.encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            self._opened = False
            raise DataError(
                f"samples cannot be written to {self._path}: {error.strerror}; free "
                "some space there or make the folder writable, and run again: what is "
                "sampled already stays"
            ) from error

    def read(self) -> dict[Key, Sample]:
        """All samples by prompt key and index; the first of equal ones counts."""
        found: dict[Key, Sample] = {}
        for path in sorted(self.folder.glob("rank*.jsonl")):
            for sample in self._samples(path):
                found.setdefault((sample.prompt, sample.index), sample)
        return found

    def _open(self) -> None:
        """Once per process: say what the folder holds, and end a line that was cut."""
        if self._opened:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / MANIFEST).is_file():
            write_json(self.folder / MANIFEST, self._identity)
        with self._path.open("a+b") as stream:
            if stream.tell() > 0:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")
        self._opened = True

    def _samples(self, path: Path) -> Iterator[Sample]:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    records = json.loads(line) if line.strip() else []
                    yield from [_sample(record) for record in records]
                except (ValueError, TypeError, KeyError) as error:
                    # The end of a file that another rank is writing is cut as well.
                    if line.endswith(b"\n") and (path, number) not in self._told:
                        self._told.add((path, number))
                        LOG.warning(
                            "DONOD: line %d of %s holds no samples (%r), as after a "
                            "kill; what it held is sampled again",
                            number,
                            path,
                            error,
                        )


def _sample(record: Mapping[str, Any]) -> Sample:
    index, n_tokens = int(record["index"]), int(record["n_tokens"])
    prompt, text, finish = record["prompt"], record["text"], record["finish"]
    if not isinstance(prompt, str) or not isinstance(text, str):
        raise TypeError("prompt and text must be texts")
    if finish not in ("eos", "length", "unclosed"):
        raise ValueError(f"finish is {finish!r}")
    return Sample(prompt, index, text, n_tokens, finish)
