"""The learner's commands, `c2f course lab` and `fresh`: work in a copy of the notebooks that git does not know.

The copy has no outputs, so that predictions are not spoilt, and an update of the kit changes no file in it.
"""

import hashlib
import json
import os
import sysconfig
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

import tyro

import c2f_course
from c2f.files import write_atomically, write_json

FIRST = "00_start_here.ipynb"
COPY = "my_notebooks"  # beside the kit's notebooks/, so that a link to ../docs works in both
DIGESTS = ".digests.json"  # in the copy: for each notebook the SHA-256 of the cleared original that was copied


def notebooks_folder() -> Path:
    """notebooks/ of the clone we run from, else of the working folder. Raises ValueError where there is none."""
    for folder in (Path(c2f_course.__file__).resolve().parents[1], Path("notebooks").resolve()):
        if (folder / FIRST).is_file():
            return folder
    raise ValueError("the installed packages have no notebooks; run this in a clone of the kit, which has them.")


def originals(notebooks: Path) -> dict[str, bytes]:
    """The course's notebooks and the students' assignments, cleared, by their place in the copy."""
    found = {path.name: path for path in notebooks.glob("[0-9][0-9]_*.ipynb")}
    for folder in ("assignments", "assignments/[0-9]_*"):  # in the students' zip, and in a clone
        found |= {f"assignments/{path.name}": path for path in notebooks.glob(f"{folder}/[0-9]_*.ipynb")}
    return {place: cleared(found[place]) for place in sorted(found)}


def cleared(path: Path) -> bytes:
    """A notebook without outputs and execution counts; the same bytes on every system."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    return (json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def number(place: str) -> str:
    return place.split("_")[0]  # what a learner types: 02, or assignments/1


def update(notebooks: Path) -> list[str]:
    """Add to the copy what it lacks. Returns the notebooks in it that the kit has in a newer version."""
    copy, kit = notebooks.with_name(COPY), originals(notebooks)
    digests = {place: hashlib.sha256(content).hexdigest() for place, content in kit.items()}
    missing = [place for place in kit if not (copy / place).exists()]
    try:
        copied = dict(json.loads((copy / DIGESTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # absent or damaged: then nothing counts as an older version
        copied = {}
    # Written first: after a power cut, the next call adds the rest.
    write_json(copy / DIGESTS, copied | {place: digests[place] for place in missing})
    for place in missing:
        write_atomically(copy / place, kit[place])
    return [place for place in kit if place not in missing and copied.get(place, digests[place]) != digests[place]]


def refresh(notebooks: Path, wanted: str, now: datetime) -> tuple[Path, Path | None]:
    """Put a fresh copy where the learner's notebook is. Returns it, and the file that has the learner's own, if any."""
    kit, kept = originals(notebooks), None
    place = next((p for p in kit if number(p) in (wanted, f"0{wanted}") or Path(wanted).stem == Path(p).stem), None)
    if place is None:
        raise ValueError(f"there is no notebook {wanted!r}; the notebooks are {', '.join(map(number, kit))}.")
    if (path := notebooks.with_name(COPY) / place).exists():  # no colon in the time: Windows refuses it
        endings = (f"(before {now:%Y-%m-%d %H.%M}{f', {n}' if n > 1 else ''})" for n in count(1))
        kept = next(new for end in endings if not (new := path.with_stem(f"{path.stem} {end}")).exists())
        path.rename(kept)
    update(notebooks)
    return path, kept


@dataclass
class Lab:
    """Open the course in JupyterLab, in your own copy of the notebooks: made once, never overwritten."""

    options: tyro.conf.Positional[tuple[str, ...]] = ()
    """Options of JupyterLab, after --, such as `c2f course lab -- --no-browser`."""

    def run(self) -> None:
        notebooks = notebooks_folder()
        older = [number(place) for place in update(notebooks)]
        print(f"c2f: your copy of the notebooks is in {notebooks.with_name(COPY)}", flush=True)
        if older:
            how = f"`c2f course fresh {older[0]}` adds it and keeps yours"
            print(f"c2f: the kit has newer versions of {', '.join(older)}; {how}", flush=True)
        from jupyterlab.labapp import main

        # In Lab's terminal, `c2f` is then a command.
        os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
        # For a notebook that is only named, Lab prints the address of the Launcher. As root, it needs permission.
        start = [f"--notebook-dir={notebooks.parent}", f"--LabApp.default_url=/lab/tree/{COPY}/{FIRST}"]
        main([*start, "--allow-root", *self.options])


@dataclass
class Fresh:
    """Put a fresh copy of a notebook into your copy of the course; your own is kept beside it, under another name."""

    notebook: tyro.conf.Positional[str]  # Its number, such as 02 or assignments/1.

    def run(self) -> None:
        path, kept = refresh(notebooks_folder(), self.notebook, datetime.now())
        print(f"{path} is fresh{f', and yours is now {kept.name!r}' if kept else ''}.")
        print("If it is open in JupyterLab: File, Reload Notebook from Disk.")
