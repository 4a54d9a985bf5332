"""A dataset in, the folder of its cache agreed on by all ranks; knows no models."""

import os
from functools import partial
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list


def share_cache_folder(dataset: Any) -> None:
    """Make every rank look for cached columns where the first rank writes them.

    The rank that prepared the rows has them in another folder than the ranks that read
    the prepared copy, and TRL agrees on the name of its cache file only.

    Args:
        dataset: A `datasets.Dataset`, changed in place.
    """
    if PartialState().num_processes == 1:
        return
    folder = [os.path.dirname(dataset._get_cache_file_path(""))]
    broadcast_object_list(folder, from_process=0)
    dataset._get_cache_file_path = partial(_cache_file, folder[0])


def _cache_file(folder: str, fingerprint: str) -> str:
    return os.path.join(folder, f"cache-{fingerprint}.arrow")
