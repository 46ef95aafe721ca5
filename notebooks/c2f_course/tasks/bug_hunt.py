"""Four training loops with a bug each, and a correct one: for notebook 05, which shows their curves before their code.

Students: read this file only after the hunt.

    curves = {name: loop(fresh_model(), data) for name, loop in LOOPS.items()}
    guilt("A")          # which of SUSPECTS it was
    unfold("A")         # the loop's code, folded, to be shown in a notebook

A broken loop differs from the correct one in a line or two, and in nothing but the bug.
"""

import difflib
import html
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.training.augment import normalize
from c2f.training.data import Dataset
from c2f_course.figures.notebook_05 import Curves

STEPS, BATCH, RATE = 135, 32, 5e-3
EVERY = 15  # steps from one evaluation on the test images to the next

SUSPECTS = (
    "zero_grad forgotten",
    "labels shuffled apart from the images",
    "softmax before cross-entropy",
    "test images not normalised",
    "learning rate 100 times too high",
    "learning rate 100 times too low",
    "optimizer made before the model was replaced",
)


def batches(count: int, steps: int) -> Iterator[Tensor]:
    """`steps` times BATCH indices, in an order that is the same for every loop; each image once per epoch."""
    generator = torch.Generator().manual_seed(0)
    order = torch.cat([torch.randperm(count, generator=generator) for _ in range(steps * BATCH // count + 1)])
    yield from order[: steps * BATCH].split(BATCH)


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    """The accuracy on x (N, 3, H, W); the model is in training mode again afterwards."""
    right = (model.eval()(x).argmax(dim=1) == labels).float().mean().item()
    model.train()
    return right


def correct_loop(model: nn.Module, data: Dataset, lr: float = RATE, steps: int = STEPS) -> Curves:
    """The loop without a bug."""
    optimizer, curves = torch.optim.AdamW(model.parameters(), lr), Curves()
    for batch in batches(len(data.train), steps):
        x, labels = normalize(data.train.images[batch]), data.train.labels[batch]
        logits = model(x)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curves.losses.append(loss.item())
        if len(curves.losses) % EVERY == 0:
            curves.accuracies.append(accuracy(model, normalize(data.test.images), data.test.labels))
    return curves


SHUFFLED = "images = data.train.images[torch.randperm(len(data.train), generator=torch.Generator().manual_seed(1))]"
BUGS = {  # a place in SUSPECTS, so that a glance gives nothing away; what is replaced by what
    "A": (3, {"normalize(data.test.images)": "data.test.images.float()"}),
    "B": (0, {"        optimizer.zero_grad()\n": ""}),
    "C": (2, {"model(x)\n": "model(x).softmax(dim=1)\n"}),
    "D": (1, {"    optimizer, ": f"    {SHUFFLED}\n    optimizer, ", "data.train.images[batch]": "images[batch]"}),
}


def code_of(name: str) -> str:
    """The source of a broken loop, or of the correct one."""
    code = inspect.getsource(correct_loop)
    for part, another in BUGS[name][1].items() if name in BUGS else ():
        code = code.replace(part, another)
    return code


def _loop(name: str) -> Callable[..., Curves]:
    space = dict(globals())
    exec(code_of(name), space)
    return space["correct_loop"]


LOOPS = {"correct": correct_loop, **{name: _loop(name) for name in BUGS}}


def guilt(name: str) -> str:
    """Which of SUSPECTS is in a loop. Raises ValueError for a name that no broken loop has."""
    if name not in BUGS:
        raise ValueError(f"there is no broken loop {name!r}; use one of {', '.join(BUGS)}.")
    return SUSPECTS[BUGS[name][0]]


@dataclass(frozen=True)
class Unfolded:
    """A broken loop's code, in a notebook folded under its name, the lines that differ from the correct loop marked."""

    name: str
    code: str

    def __repr__(self) -> str:
        return f"loop {self.name}: {guilt(self.name)}\n\n{self.code}"

    def _repr_html_(self) -> str:
        return (
            f"<details><summary>Loop {self.name}</summary><p>It was: <strong>{guilt(self.name)}</strong>.</p>"
            f"<pre>{html.escape(self.code)}</pre></details>"
        )


def unfold(name: str) -> Unfolded:
    """The code of a broken loop; `>` marks a line that the correct loop does not have, `-` one that is missing here."""
    guilt(name)  # raises for a name that is not there
    correct, broken = (code_of(which).splitlines()[2:] for which in ("correct", name))  # no signature, no docstring
    marks = {"  ": "  ", "+ ": "> ", "- ": "- "}
    lines = [line for line in difflib.ndiff(correct, broken) if line[:2] in marks]
    return Unfolded(name, "\n".join(marks[line[:2]] + line[6:] for line in lines))
