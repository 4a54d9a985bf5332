"""A model's answers on disk, a line each: takes and gives them by request.

Knows nothing of models or tasks; a process that is killed loses no finished answer.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from axolotl_donod.files import json_hash

LOG = logging.getLogger("axolotl.donod")


@dataclass(frozen=True)
class Response:
    """What the model gave for a request.

    Attributes:
        value: Text, log-likelihood, or the pair that lm-eval takes for one.
        truncated: Whether a reply ran into the limit of new tokens; None where the
            backend does not say.
    """

    value: Any
    truncated: bool | None = None


def request_key(
    kind: str, arguments: Sequence[Any], seed: int | None = None, draw: int = 0
) -> str:
    """Return 32 hex digits that name a request.

    Args:
        kind: Method of the model, for instance `generate_until`.
        arguments: What lm-eval passes for the request.
        seed: Seed of a sampled reply; None for what is always the same.
        draw: Which of several sampled replies to the same request.
    """
    content: Mapping[str, Any] = {
        "kind": kind,
        "arguments": list(arguments),
        "seed": seed,
        "draw": draw,
    }
    return json_hash(content)


class ResponseStore:
    """Answers of one model; several ranks append to files of their own."""

    def __init__(self, folder: Path, writer: int = 0) -> None:
        """Open a folder; nothing is written before `add`.

        Args:
            folder: Where the files of all writers lie.
            writer: Number of this process among those that append.
        """
        self.folder = folder
        self._path = folder / f"rank{writer}.jsonl"
        self._stream: IO[bytes] | None = None
        self._known: dict[str, Response] = {}
        self._read: dict[Path, int] = {}
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Response:
        return self._known[key]

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Response | None:
        """Return what is stored for a request, if it is."""
        return self._known.get(key)

    def add(self, key: str, response: Response) -> None:
        """Append one answer; it outlives this process at once."""
        record = {"key": key, "value": response.value, "truncated": response.truncated}
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        stream = self._stream or self._opened()
        # One write per line, so that a kill tears the last line at most.
        stream.write(line)
        self._known[key] = response

    def refresh(self) -> None:
        """Read what other ranks have appended since the last look."""
        for path in sorted(self.folder.glob("rank*.jsonl")):
            self._read_from(path, self._read.get(path, 0))

    def _opened(self) -> IO[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        stream = self._path.open("ab", buffering=0)
        if _is_torn(self._path):
            stream.write(b"\n")
        self._stream = stream
        return stream

    def _read_from(self, path: Path, offset: int) -> None:
        with path.open("rb") as stream:
            stream.seek(offset)
            content = stream.read()
        # What follows the last line end is still being written, or torn by a kill.
        whole = content[: content.rfind(b"\n") + 1]
        self._read[path] = offset + len(whole)
        for line in whole.split(b"\n"):
            if line:
                self._take(line, path)

    def _take(self, line: bytes, path: Path) -> None:
        try:
            record = json.loads(line)
            key, value = record["key"], record["value"]
        except (ValueError, KeyError, TypeError):
            LOG.warning(
                "DONOD: a line of %s is torn or damaged; its request is asked again",
                path,
            )
            return
        self._known.setdefault(key, Response(value, record.get("truncated")))


def _is_torn(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            return False
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"
