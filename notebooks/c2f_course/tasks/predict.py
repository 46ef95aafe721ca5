"""Predict before you run: a question that is asked before the cell that answers it.

    guess = predict("How many numbers has the matrix?", "as many as pixels", "their square")
    ...                                   # the cell that shows it
    guess.reveal("their square", "Each row is one output position, each column one input position.")

A learner who has guessed first remembers what they see. Without a guess `reveal` gives nothing away, and goes on: the
answer is folded, or shown by `reveal(…, anyway=True)`.
"""

import html
import math
from typing import Any


class Prediction:
    """One question: with options it is a choice, without it is a number. Reached by keyboard alone."""

    def __init__(self, question: str, *options: str, unit: str = "") -> None:
        if len(options) == 1 or len(set(options)) < len(options):
            raise ValueError(f"the options are {list(options)}; give two or more different ones, or none for a number.")
        import ipywidgets

        self.question, self.options, self.unit = question, options, unit
        if options:
            # Not radio buttons: the arrow keys that these need go from cell to cell in JupyterLab.
            self.widget = ipywidgets.ToggleButtons(options=options, value=None, style={"button_width": "auto"})
        else:
            self.widget = ipywidgets.Text(placeholder="your number", description=unit, continuous_update=False)
        self.widget.add_class("c2f-predict")

    @property
    def answer(self) -> str | float | None:
        """What was predicted: an option, a number, or None."""
        if self.options:
            return self.widget.value
        try:
            number = float(self.widget.value.replace(",", "."))
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def reveal(self, truth: str | float, because: str = "", anyway: bool = False) -> "Revealed":
        """What was predicted beside what is so, and why. Raises ValueError for a truth that was no option.

        Without a prediction the answer is folded, unless `anyway`.
        """
        if self.options and truth not in self.options:
            raise ValueError(f"{truth!r} is not one of the options {list(self.options)}.")
        told = truth if self.options else f"{truth:,.4g} {self.unit}".strip()
        if self.answer is None:
            said = f"It is: {told}."
        elif self.options:
            said = f"{'As you predicted' if self.answer == truth else f'You said “{self.answer}”. It is'}: {told}."
        else:
            said = f"You said {self.answer:,.4g}. It is {told}{_how_far(self.answer, float(truth))}."
        said = f"{said} {because}".strip()
        return Revealed(said) if anyway or self.answer is not None else Revealed(CHOOSE, folded=said)

    def show(self) -> None:
        """Show the question and what to answer it with."""
        from IPython.display import display

        asked = f"<p><strong>Predict.</strong> {html.escape(self.question)}</p>"
        text = "\n".join(f"  ○ {option}" for option in self.options) or "  (a number)"
        listed = "".join(f"<li>{html.escape(option)}</li>" for option in self.options)
        # A viewer that runs nothing shows the question and its options; Lab shows the widget in place of the list.
        display({"text/html": asked, "text/plain": f"Predict. {self.question}"}, raw=True)
        bundle: dict[str, Any] = {"text/html": f"<ul>{listed}</ul>", "text/plain": text}
        view = self.widget._repr_mimebundle_()
        bundle.update({kind: value for kind, value in view.items() if "widget" in kind})
        display(bundle, raw=True)


CHOOSE = "Choose your answer above first, then run this cell again; reveal(…, anyway=True) shows it without a choice."


class Revealed(str):
    """A sentence that a notebook shows as text, not as a quoted string; and below it, `folded`, another one."""

    folded: str

    def __new__(cls, said: str, folded: str = "") -> "Revealed":
        revealed = super().__new__(cls, said)
        revealed.folded = folded
        return revealed

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        more = f"<details><summary>Show me</summary>{html.escape(self.folded)}</details>" if self.folded else ""
        style = "border-left: 4px solid #0072B2; padding: 0.3em 0.8em"
        return f'<div role="status" style="{style}">{html.escape(self)}{more}</div>'


def predict(question: str, *options: str, unit: str = "") -> Prediction:
    """Ask, and show the question. With options: choose one. Without: a number, in `unit`."""
    prediction = Prediction(question, *options, unit=unit)
    prediction.show()
    return prediction


def _how_far(guess: float, truth: float) -> str:
    if guess == truth:
        return ", exactly"
    if guess <= 0 or truth <= 0:
        return f" ({guess - truth:+,.4g} off)"
    ratio = max(guess / truth, truth / guess)
    return f": you were {ratio:.2g} times too {'high' if guess > truth else 'low'}" if ratio >= 2 else ", not far off"
