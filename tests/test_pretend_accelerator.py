"""The pretend accelerator does what a GPU does: computes, and refuses what a GPU refuses."""

import copy
import io
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from pretend_accelerator import NAME, PretendAccelerator

VALUES = [[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]]


@pytest.fixture(autouse=True)
def accelerator():
    with PretendAccelerator() as accelerator:
        yield accelerator


@pytest.fixture
def x() -> torch.Tensor:
    return torch.tensor(VALUES, device=NAME)


def test_an_operator_gives_real_values_on_the_device_and_is_counted(x, accelerator):
    before = accelerator.operators
    y = x.relu().sum(dim=1)
    assert accelerator.operators == before + 2
    assert y.device.type == NAME
    assert y.tolist() == [4.0, 9.0]
    torch.ones(3) + 1
    assert accelerator.operators == before + 3  # .tolist() made a copy; the CPU's operators are not counted


WAITS = {
    "item": lambda x: x[0, 0].item(),
    "condition": lambda x: bool((x > 0).any()),
    "copy to the host": lambda x: x.cpu(),
    "copy into a tensor of the host": lambda x: torch.ones(2, 3).copy_(x),
    "list": lambda x: x.tolist(),
    "positions": lambda x: x.nonzero(),
    "mask as an index": lambda x: x[x > 0],
}
COPIES = {
    "to": lambda x: torch.ones(3).to(NAME),
    "tensor": lambda x: torch.tensor(1.0, device=NAME),
    "new tensor": lambda x: x.new_tensor([1.0]),
    "copy into it": lambda x: x.copy_(torch.ones(2, 3)),
}
NEITHER = {
    "sum": lambda x: (x + 1).sum(),
    "selection": lambda x: torch.where(x > 0, x, 0.0),
    "drawn there": lambda x: torch.rand(3, device=NAME) + torch.full((3,), 2.0, device=NAME),
    "another type": lambda x: x.to(torch.bfloat16),
    "index there": lambda x: x[torch.arange(2, device=NAME)],
    "already there": lambda x: x.to(NAME),
}


@pytest.mark.parametrize(
    ("operation", "expected"),
    [(f, (0, 1)) for f in WAITS.values()]
    + [(f, (1, 0)) for f in COPIES.values()]
    + [(f, (0, 0)) for f in NEITHER.values()],
    ids=[*WAITS, *COPIES, *NEITHER],
)
def test_copies_and_waits_are_counted(operation, expected, x, accelerator):
    before = accelerator.copies, accelerator.waits
    operation(x)
    assert (accelerator.copies - before[0], accelerator.waits - before[1]) == expected


MIXTURES = {
    "sum": lambda x: x + torch.ones(2, 3),
    "matrix product": lambda x: x @ torch.ones(3, 1),
    "list": lambda x: torch.cat([x, torch.ones(2, 3)]),
    "in place": lambda x: torch.ones(2, 3).add_(x),
    "index on the device of a CPU tensor": lambda x: torch.ones(3)[x[0].argsort()],
    "values from the CPU": lambda x: x.index_put_((torch.tensor([0]),), torch.ones(1, 3)),
    "layer on the CPU": lambda x: nn.Linear(3, 2)(x),
}


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_mixing_devices_raises_as_on_a_gpu(mixture, x):
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device.*cuda:0 and cpu"):
        mixture(x)


ACCEPTED = {
    "number": lambda x: x + 1,
    "tensor without dimensions": lambda x: x + torch.tensor(1.0),
    "CPU index": lambda x: x[torch.tensor([0])],
    "list of indices": lambda x: x[[0, 1], 0],
    "copy": lambda x: x.copy_(torch.ones(2, 3)),
    "assignment": lambda x: x.__setitem__(0, torch.ones(3)) or x,
    "new tensors": lambda x: torch.zeros_like(x) + torch.eye(3, device=NAME)[:2] + x.new_tensor([1.0]),
    "from a list": lambda x: x + torch.as_tensor([1.0, 2.0, 3.0], device=NAME),
}


@pytest.mark.parametrize("operation", ACCEPTED.values(), ids=ACCEPTED)
def test_what_a_gpu_accepts_is_accepted(operation, x):
    assert operation(x).device.type == NAME


def test_numpy_raises_as_on_a_gpu_and_works_after_a_copy(x):
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        x.numpy()
    assert x.cpu().numpy().tolist() == VALUES


def test_numbers_are_read_and_printed(x):
    assert (x[0, 0].item(), int(x.argmax()), bool(x.any())) == (1.0, 4, True)
    assert f"{x[0, 1]:.2f}" == "-2.00"
    assert "device='cuda:0'" in repr(x)


def test_a_meta_tensor_of_it_has_no_values(x):
    assert torch.empty_like(x, device="meta").device.type == "meta"


def test_a_change_of_shape_in_place_is_refused(x):
    with pytest.raises(NotImplementedError, match="changes a tensor's shape in place"):
        x.t_()


def test_detach_and_moves_work_in_inference_mode(x):
    layer = nn.Linear(3, 2)
    with torch.inference_mode():
        assert x.detach().device.type == NAME and not x.detach().is_inference()
        assert x.data.device.type == NAME
        assert x.to(NAME) is x
        y = layer.to(NAME)(x)
        assert y.detach().is_inference()
    assert y.device.type == NAME


def test_a_model_goes_there_learns_and_comes_back():
    layer = nn.Linear(3, 2)
    layer(torch.ones(1, 3)).sum().backward()
    there = layer.to(NAME).weight
    assert isinstance(there, nn.Parameter) and layer.to(NAME).weight is there
    assert (there.device.type, there.grad.device.type) == (NAME, NAME)
    before = there.detach().cpu()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    F.cross_entropy(layer(torch.ones(4, 3, device=NAME)), torch.zeros(4, dtype=torch.long, device=NAME)).backward()
    optimizer.step()
    assert not torch.equal(there.cpu(), before)
    assert copy.deepcopy(layer).weight.device.type == NAME
    assert layer.to("cpu")(torch.ones(1, 3)).device.type == "cpu"


def test_a_saved_tensor_is_read_without_an_accelerator(x):
    file = io.BytesIO()
    torch.save({"x": x}, file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["x"].tolist() == VALUES


def test_foreach_operators_change_their_tensors(x):
    y = x.clone()
    torch._foreach_mul_([x, y], 2.0)
    torch._foreach_lerp_([x], [torch.zeros_like(x)], 0.5)
    assert x.tolist() == VALUES
    assert torch._foreach_add([y], 1.0)[0].tolist() == [[2 * value + 1 for value in row] for row in VALUES]


def test_autocast_computes_products_in_low_precision_and_losses_in_float32(x):
    layer = nn.Linear(3, 2).to(NAME)
    with torch.autocast(NAME, torch.bfloat16):
        logits = layer(x)
        loss = F.cross_entropy(logits, torch.zeros(2, dtype=torch.long, device=NAME))
        assert torch.is_autocast_enabled(NAME) and torch.get_autocast_dtype(NAME) == torch.bfloat16
        with torch.autocast(NAME, enabled=False):
            assert layer(x).dtype == torch.float32
        assert (torch.ones(2, 3) @ torch.ones(3, 1)).dtype == torch.float32
    assert (logits.dtype, loss.dtype) == (torch.bfloat16, torch.float32)
    loss.backward()
    assert layer.weight.grad.dtype == torch.float32
    assert not torch.is_autocast_enabled(NAME)


@pytest.mark.parametrize("like", ["cuda", "mps"])
def test_it_has_the_name_of_the_device_that_it_is_like(like):
    with PretendAccelerator(like) as accelerator:
        x = nn.Linear(3, 2).to(like)(torch.ones(1, 3).to(torch.device(like)))
        assert (x.device.type, x.is_cuda, x.is_mps) == (like, like == "cuda", like == "mps")
        assert torch.zeros_like(x).device == torch.zeros(1, device=x.device).device == x.device
        assert torch.cuda.is_available() == (like == "cuda") and torch.backends.mps.is_available() == (like == "mps")
        getattr(torch, like).synchronize()
        torch.accelerator.synchronize()
        assert accelerator.synchronized == 2
        assert accelerator.ran["aten::addmm"] == 1


REFUSED_ON_MPS = {
    "float64": lambda x: x.double(),
    "float64 from the host": lambda x: torch.ones(2, dtype=torch.float64).to(x.device),
    "an operator that PyTorch 2.6 has not there": lambda x: torch.distributions.Beta(x.abs(), x.abs()).sample(),
    "border padding": lambda x: F.grid_sample(torch.rand_like(x)[None, None], torch.rand_like(x)[None, :, None, :2],
                                              padding_mode="border", align_corners=False),
}  # fmt: skip


@pytest.mark.parametrize("operation", REFUSED_ON_MPS.values(), ids=REFUSED_ON_MPS)
def test_what_an_apple_gpu_refuses_is_refused(operation, x):
    operation(x)  # as on CUDA
    with PretendAccelerator("mps"), pytest.raises((TypeError, RuntimeError), match="MPS"):
        operation(torch.tensor(VALUES, device="mps"))
