"""Where this kit's files are, and how to write one that a kill cannot leave half written."""

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


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
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text.encode(errors="backslashreplace"))  # half a surrogate pair is \ud800 in JSON, too


def save_tensors(path: Path, tensors: Mapping[str, "Tensor"], **about: str) -> None:
    """Write tensors as safetensors, which hold data only and can be shared, with their SHA-256 and `about` in front."""
    from safetensors.torch import save

    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(kept, metadata={**about, "sha256": _digest(kept)}))


def load_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """What `save_tensors` wrote: tensors, and what is said about them.

    The digest is checked: the file's own or, for one without, that of SHA256SUMS beside it. Raises FileNotFoundError,
    and ValueError for a file that is damaged or is none of safetensors.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    content, sums = Path(path).read_bytes(), Path(path).with_name("SHA256SUMS")
    try:
        tensors = load(content)
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
    except SafetensorError:
        raise ValueError(f"{path} is not a readable safetensors file; copy or make it again.") from None
    listed = dict(line.split()[::-1] for line in sums.read_text().splitlines()) if sums.is_file() else {}
    name = Path(path).name
    if about.get("sha256", listed.get(name)) not in (None, _digest(tensors), hashlib.sha256(content).hexdigest()):
        raise ValueError(f"{path} is damaged: its checksum does not match its content; copy or make it again.")
    return tensors, about


def _digest(tensors: Mapping[str, "Tensor"]) -> str:
    import torch

    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(tensor.flatten().view(torch.uint8).numpy())
    return sha.hexdigest()
