"""Where the time of a step goes: `python docs/profile_step.py` prints the shares that docs/speed.md groups.

The seed model in channels_last, plain and accelerated, and Swin-T: training steps and forward passes of 64 images.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity, profile

from c2f import create_model
from c2f.bench.measure import Conditions, forward_pass, training_step
from c2f.fast.memory import keep_memory
from c2f.training.recipes import seed

WEIGHT = {"aten::mkldnn_convolution": 1, "aten::convolution_backward": 2}  # which argument the kernel is


def shares(step: Callable[[], None]) -> Counter[str]:
    """Microseconds by operator, convolutions by the size of their kernel, of three steps after three others."""
    with keep_memory():
        for _ in range(3):
            step()
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
            for _ in range(3):
                step()
    found: Counter[str] = Counter()
    for event in profiled.key_averages(group_by_input_shape=True):
        name = event.key
        if name in WEIGHT:
            _, per_group, *kernel = event.input_shapes[WEIGHT[name]]
            name += f" {'×'.join(map(str, kernel))}{' depthwise' * (per_group == 1)}"
        found[name] += event.self_cpu_time_total
    return found


def main() -> None:
    accelerated = Conditions(torch.device("cpu"), channels_last=True)
    plain = replace(accelerated, accelerate=False)
    swin = replace(plain, channels_last=False)
    for model, conditions in (
        ("conv2former_n_cifar", plain),
        ("conv2former_n_cifar", accelerated),
        ("swin_t", swin),
    ):
        training = training_step(create_model(model), seed(), (32, 32), conditions)
        for what, step in (
            ("training", training),
            ("inference", forward_pass(create_model(model), (32, 32), conditions)),
        ):
            found = shares(step)
            print(f"{model}, {what}, {conditions}: {found.total() / 3e3:.0f} ms a step")
            for name, microseconds in found.most_common(12):
                print(f"  {microseconds / found.total():6.1%}  {name}")


if __name__ == "__main__":
    main()
