"""A prediction is asked, compared with what is so, and never in the way."""

import pytest

from c2f_course import Prediction
from c2f_course.tasks.predict import CHOOSE

pytest.importorskip("ipywidgets", reason="widgets are of the lab extra: pip install 'c2f[lab]'")


def test_a_choice_is_compared() -> None:
    guess = Prediction("Which?", "this", "that")
    assert guess.reveal("that", "Because.", anyway=True) == "It is: that. Because."
    guess.widget.value = "this"
    assert guess.reveal("that") == "You said “this”. It is: that."
    guess.widget.value = "that"
    assert guess.reveal("that") == "As you predicted: that."


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("121", "You said 121. It is 121 terms, exactly."),
        ("100", "You said 100. It is 121 terms, not far off."),
        ("11", "You said 11. It is 121 terms: you were 11 times too low."),
        ("1210", "You said 1,210. It is 121 terms: you were 10 times too high."),
        ("-1", "You said -1. It is 121 terms (-122 off)."),
    ],
)
def test_a_number_is_compared(said: str, told: str) -> None:
    guess = Prediction("How many?", unit="terms")
    guess.widget.value = said
    assert guess.reveal(121) == guess.reveal(121, anyway=True) == told


@pytest.mark.parametrize("said", ["", "many"])
def test_without_a_prediction_the_answer_is_folded(said: str) -> None:
    guess = Prediction("How many?", unit="terms")
    guess.widget.value = said
    revealed = guess.reveal(121, "11 < 12.")
    assert revealed == repr(revealed) == CHOOSE
    shown, folded = revealed._repr_html_().split("<details>")
    assert "121" not in shown and "<summary>Show me</summary>It is: 121 terms. 11 &lt; 12." in folded
    assert "<details>" not in guess.reveal(121, anyway=True)._repr_html_()


def test_wrong_use_is_said() -> None:
    with pytest.raises(ValueError, match="two or more different"):
        Prediction("Which?", "one")
    with pytest.raises(ValueError, match="not one of the options"):
        Prediction("Which?", "this", "that").reveal("other")
