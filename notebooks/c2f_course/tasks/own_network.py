"""The network that a learner builds in notebook 03: kept as a file, and loaded by later notebooks.

own_network.keep(globals())     writes my_conv2former.py, if every part is the learner's own and all is right
rebuilt = own_network.load()    a function that builds a kit's network from the learner's class
"""

import ast
import inspect
import linecache
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from c2f.models import Conv2Former, Conv2FormerConfig
from c2f.models.conv2former import STEM_STRIDE

FILE = Path("my_conv2former.py")
NETWORK = "MyConv2Former"
PARTS = ("my_stem", "MyMlp", "MyScale", "my_drop_path", "my_block", "my_downsampling", "MyStage", "MyHead")
AROUND = ("DropPath", "Block", NETWORK)  # what the notebook makes of them
HEADER = '''"""My own Conv2Former, built in notebook 03."""

import torch
import torch.nn.functional as F
from torch import nn

from c2f.models import ConvMod
from c2f.models.conv2former import LayerNorm2d
'''


def source_of(part: Any) -> str:
    """The lines that define a function or a class with an `__init__`, in a file or in a notebook's cell.

    For a class in a cell `inspect.getsource` finds nothing. Raises ValueError where there are no such lines.
    """
    function = inspect.unwrap(part if inspect.isfunction(part) else part.__init__)
    lines = linecache.getlines(function.__code__.co_filename)
    for node in reversed(ast.parse("".join(lines)).body):
        if getattr(node, "name", "") == part.__name__:
            first = min(line.lineno for line in (node, *node.decorator_list))
            return "".join(lines[first - 1 : node.end_lineno]).rstrip() + "\n"
    raise ValueError(f"the code of {part.__name__} was not found: run its cell again.")


def keep(names: Mapping[str, Any], file: Path = FILE) -> None:
    """Write the learner's network, from a notebook's `globals()`. Says in one sentence what was done, or why not."""
    kits = [name for name in PARTS if getattr(names[name], "__module__", None) != names["__name__"]]
    if kits:
        print(f"{file} was not written: {', '.join(kits)} {'is' if len(kits) == 1 else 'are'} still the kit's.")
        return
    try:
        text = "\n\n".join([HEADER, *(source_of(names[name]) for name in PARTS + AROUND)])
        network_in(text)
    except (Exception, SystemExit) as error:
        print(f"{file} was not written, since with this code alone the network is not right ({_reason(error)}).")
        return
    file.write_text(text, encoding="utf-8")
    print(f"{file} was written: your own Conv2Former, which notebook 05 will train.")


def load(file: Path = FILE) -> Callable[[Conv2Former], nn.Module]:
    """What builds a kit's network again from the learner's class, with the same weights; or returns it as it is.

    Says in one sentence which: the kit's is used if there is no file, or one that is not right.
    """
    try:
        network = network_in(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        print(f"There is no {file} here (notebook 03 writes it), so the kit's network is used.")
        return lambda model: model
    except (Exception, SystemExit) as error:
        print(f"{file} does not give the right network ({_reason(error)}), so the kit's is used.")
        return lambda model: model
    print(f"Your own network is used, from {file}.")
    return lambda model: _rebuilt(network, model)


def network_in(text: str) -> Callable[..., nn.Module]:
    """The class MyConv2Former of a file's text. Raises what the text raises, and AssertionError where it is wrong."""
    names: dict[str, Any] = {"__name__": FILE.stem}
    exec(compile(text, str(FILE), "exec"), names)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for stem in ("pointwise", "overlap"):
            model = Conv2Former(Conv2FormerConfig((4, 8), (1, 2), stem=stem, init="orthogonal", drop_path=0.0))
            images = torch.randn(2, 3, 16, 16)
            torch.testing.assert_close(_rebuilt(names[NETWORK], model)(images), model(images), rtol=1e-3, atol=1e-4)
    return names[NETWORK]


def _rebuilt(network: Callable[..., nn.Module], model: Conv2Former) -> nn.Module:
    """The network with the sizes and the weights of the kit's model, in the same mode."""
    config = model.config
    with torch.random.fork_rng(devices=[]):
        mine = network(config.dims, config.depths, STEM_STRIDE[config.stem], config.num_classes, config.drop_path)
    mine.load_state_dict(model.state_dict())
    return mine.train(model.training)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
