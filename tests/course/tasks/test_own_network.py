"""A learner's network is kept and loaded if it is right; otherwise one sentence says why, and the kit's is used."""

from pathlib import Path

import pytest
import torch

from c2f.models import Conv2Former, Conv2FormerConfig
from c2f_course.tasks import mine_or_kit, notebook_02, own_network

RIGHT = """
from c2f.models import Conv2Former, Conv2FormerConfig

class MyConv2Former(Conv2Former):
    def __init__(self, dims, depths, stride=1, classes=10, drop_rate=0.1):
        stem = {1: "pointwise", 2: "overlap"}[stride]
        super().__init__(Conv2FormerConfig(dims, depths, stem=stem, num_classes=classes, drop_path=drop_rate))
"""


@pytest.fixture
def model() -> Conv2Former:
    torch.manual_seed(0)
    return Conv2Former(Conv2FormerConfig((4, 8), (1, 1), stem="overlap", num_classes=3)).eval()


def test_a_right_file_is_used_with_the_kits_weights(tmp_path: Path, model: Conv2Former, capsys) -> None:
    file = tmp_path / "mine.py"
    file.write_text(RIGHT)
    before = torch.get_rng_state()
    mine = own_network.load(file)(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert "Your own network is used" in capsys.readouterr().out
    assert type(mine).__name__ == "MyConv2Former" and not mine.training
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(mine(images), model(images))


WRONG = {
    "class MyConv2Former(": "SyntaxError",
    "x = 1": "KeyError: 'MyConv2Former'",
    "raise SystemExit": "SystemExit",
    RIGHT.replace("self,", "self, *,"): "TypeError",
    RIGHT + "\n    def forward(self, x):\n        return 2 * super().forward(x)": "AssertionError",
    RIGHT + "\n    def forward(self, x):\n        return helper(x)": "NameError: name 'helper' is not defined",
}


@pytest.mark.parametrize("text", WRONG)
def test_of_a_wrong_file_it_is_said_and_the_kits_network_is_used(
    text: str, tmp_path: Path, model: Conv2Former, capsys
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    assert own_network.load(file)(model) is model
    (line,) = capsys.readouterr().out.splitlines()
    assert f"does not give the right network ({WRONG[text]}" in line and line.endswith("so the kit's is used.")


def test_without_a_file_the_kits_network_is_used(tmp_path: Path, model: Conv2Former, capsys) -> None:
    assert own_network.load(tmp_path / "none.py")(model) is model
    assert "There is no " in capsys.readouterr().out


def test_a_network_that_needs_more_than_its_own_code_is_not_written(tmp_path: Path, capsys) -> None:
    code = tmp_path / "parts.py"
    parts = [f"def {name}():\n    pass\n" for name in own_network.PARTS if name.startswith("my")]
    classes = [name for name in (*own_network.PARTS, *own_network.AROUND) if not name.startswith("my")]
    parts += [f"class {name}:\n    def __init__(self, *sizes):\n        helper()\n" for name in classes]
    code.write_text("\n".join(parts))
    names = {"__name__": "__main__"}
    exec(compile(code.read_text(), code, "exec"), names)
    file = tmp_path / "mine.py"
    own_network.keep(names, file)
    assert "NameError: name 'helper' is not defined" in capsys.readouterr().out
    own_network.keep({**names, "my_stem": notebook_02.kit_u}, file)
    assert "was not written: my_stem is still the kit's." in capsys.readouterr().out
    assert not file.exists()


def test_the_kits_answer_stands_in_for_one_that_does_not_pass(capsys) -> None:
    check = notebook_02.weighed
    assert mine_or_kit(lambda a, v: ..., check) is check.kit
    assert mine_or_kit(lambda a, v: a + v, check) is check.kit
    own = lambda a, v: v * a  # noqa: E731
    assert mine_or_kit(own, check) is own
    assert mine_or_kit(check.kit, check) is check.kit
    said = [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()]
    blank = "the gap is still empty, so the kit's answer is used."
    yours, wrong = (
        "your own answer is used from here on.",
        "your answer does not pass its check yet, so the kit's is used.",
    )
    assert said == [blank, wrong, yours, blank]
