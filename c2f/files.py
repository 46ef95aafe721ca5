"""Where this kit's files are, and how to write one that a kill cannot leave half written."""

import json
import os
import threading
from pathlib import Path
from typing import Any


def data_folder() -> Path:
    """Where data sets and weights live: C2F_DATA, else data/ of the checkout we run from, else data/ of this folder."""
    if named := os.environ.get("C2F_DATA"):
        return Path(named).expanduser()
    checkout = Path(__file__).resolve().parents[1]
    return checkout / "data" if (checkout / "pyproject.toml").is_file() else Path("data").resolve()


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a reader, or a power cut, finds the old file or the new one, never half.

    Several processes may write one file at once: each has a temporary file of its own, and the last one wins.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode(errors="backslashreplace"))  # half a surrogate pair is \ud800 in JSON, too
