"""Predict before you run: a question that is asked before the cell that answers it.

    guess = predict("How many numbers has the matrix?", "as many as pixels", "their square")
    ...                                   # the cell that shows it
    guess.reveal("their square", "Each row is one output position, each column one input position.")

Whoever has guessed first remembers what they see. Nothing depends on the guess: without one, and where widgets cannot
be shown, `reveal` just tells.
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

    def reveal(self, truth: str | float, because: str = "") -> "Revealed":
        """What was predicted beside what is so, and why. Raises ValueError for a truth that was no option."""
        if self.options and truth not in self.options:
            raise ValueError(f"{truth!r} is not one of the options {list(self.options)}.")
        told = truth if self.options else f"{truth:,.4g} {self.unit}".strip()
        if self.answer is None:
            said = f"You made no prediction. It is: {told}."
        elif self.options:
            said = f"{'As you predicted' if self.answer == truth else f'You said “{self.answer}”. It is'}: {told}."
        else:
            said = f"You said {self.answer:,.4g}. It is {told}{_how_far(self.answer, float(truth))}."
        return Revealed(f"{said} {because}".strip())

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


class Revealed(str):
    """A sentence that a notebook shows as text, not as a quoted string."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return (
            f'<div role="status" style="border-left: 4px solid #0072B2; padding: 0.3em 0.8em">{html.escape(self)}</div>'
        )


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
