"""An exercise never raises, tells blank from wrong from right, and is not fooled by what equals everything."""

import pytest
import torch

from c2f_course.tasks.exercise import (
    Expected,
    Hint,
    Verdict,
    exercise,
    expect_close,
    expect_number,
    expect_tensor,
    task,
)


class EqualsEverything:
    shape, ndim, dtype = (2,), 1, torch.float32

    def __eq__(self, other: object) -> bool:
        return True

    def __sub__(self, other: object) -> "EqualsEverything":
        return self


@exercise("00.1", "Double it", "easy", 2)
def double(answer) -> str:
    expect_close(answer(torch.tensor([1.0, 2.0])), torch.tensor([2.0, 4.0]), "double of (1, 2)", hint="Is it doubled?")
    return "twice as much."


def raises(x):
    return x.no_such_thing


ANSWERS = {
    "right": (lambda x: 2 * x, "passed", "twice as much"),
    "nothing": (None, "blank", "fill in the gap"),
    "a gap": (..., "blank", "fill in the gap"),
    "a function with a gap": (lambda x: ..., "blank", "fill in the gap"),
    "wrong": (lambda x: 3 * x, "hint", "differs from what is right by up to 2. Is it doubled?"),
    "another shape": (lambda x: x[:1], "hint", "should have shape (2,), and has (1,)"),
    "no tensor": (lambda x: [2.0, 4.0], "hint", "should be a torch tensor of shape (2,), and is a list"),
    "not a number": (lambda x: x * float("nan"), "hint", "not finite"),
    "equals everything": (lambda x: EqualsEverything(), "hint", "is a EqualsEverything"),
    "raises": (raises, "hint", "your code raised AttributeError"),
    "torch refuses": (lambda x: (x > 0) - (x > 1), "hint", "your code raised"),
    "not callable": (3, "hint", "your code raised TypeError"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_gets_its_verdict(name: str) -> None:
    answer, state, sentence = ANSWERS[name]
    verdict = double(answer)
    assert verdict.state == state and verdict.passed == (state == "passed")
    assert sentence in verdict.message


def test_the_line_that_raised_is_named() -> None:
    space: dict = {}
    exec(compile("def answer(x):\n    return x.no_such_thing\n", "<cell>", "exec"), space)
    assert "AttributeError" in double(space["answer"]).message


def test_not_implemented_is_blank() -> None:
    def answer(x):
        raise NotImplementedError

    assert double(answer).state == "blank"


def test_a_verdict_shows_itself_as_text_and_as_html() -> None:
    verdict = Verdict("00.1", "hint", "1 < 2")
    assert repr(verdict) == "Exercise 00.1, not yet: 1 < 2"
    assert "1 &lt; 2" in verdict._repr_html_() and 'role="status"' in verdict._repr_html_()
    assert double.heading == "### Exercise 00.1 · Double it · easy · 2 minutes"


@pytest.mark.parametrize("value", [3, 3.0, torch.tensor(3.0), torch.tensor([3])])
def test_numbers_of_all_kinds_are_numbers(value) -> None:
    assert expect_number(value, "it") == 3
    expect_close(value, 3.0, "it")


@pytest.mark.parametrize("value", [True, "3", float("nan"), [3], EqualsEverything(), 3j])
def test_what_is_no_number_is_said(value) -> None:
    with pytest.raises(Hint):
        expect_number(value, "it")


def test_a_tensor_is_detached_and_its_shape_is_checked() -> None:
    assert not expect_tensor(torch.ones(2, requires_grad=True), (2,), "it").requires_grad
    with pytest.raises(Hint, match="shape"):
        expect_tensor(torch.ones(1, 2), (2,), "it")
    with pytest.raises(Hint, match="that is not it"):
        expect_close(4, 3.0, "it")


SAYS = {
    "praise": "twice as much.",
    "not twice": "not 2 x.",
    "divided": "by zero.",
    "one": "only one, of shape {shape}.",
    "not torch": "use torch.",
    "otherwise": "Double.",
}


@exercise("00.2", "Double it again", "easy", 2)
@task([(torch.tensor([1.0, 2.0]),)], SAYS, errors={"no_such_thing": "not torch"})
def doubled(x) -> Expected:
    mistakes = {"not twice": (3 * x, x + 1), "divided": x / 0, "one": x[:1]}
    return Expected("the double", 2 * x, mistakes, learns={"x": "x"})


WRONG = {
    "one of two values": (lambda x: x + 1, "not 2 x."),
    "another one that is not finite": (lambda x: x * float("nan"), "by zero."),
    "another one of that shape": (lambda x: 7 * x[1:], "only one, of shape (1,)."),
    "an error that is known": (raises, "use torch."),
    "another error": (lambda x: x[5], "your code raised IndexError"),
    "anything else": (lambda x: 9 * x, "differs from what is right by up to 14. Double."),
    "in place": (lambda x: x.mul_(2), "your code changed x itself"),
    "no gradient": (lambda x: 2 * x.detach(), "no gradient reaches x"),
    "another gradient": (lambda x: x + x.detach(), "the gradient for x differs"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_task_knows_mistakes_by_what_they_lead_to(name: str) -> None:
    answer, sentence = WRONG[name]
    verdict = doubled(answer)
    assert verdict.state == "hint" and sentence in verdict.message
    assert doubled(lambda x: x + x).passed
