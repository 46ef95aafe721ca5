"""The notebooks' exercises: each check looks at an answer, says whether it holds, and hints where it does not.

A notebook takes its own module, and the last line of an exercise's cell asks:

    from c2f_course.tasks import notebook_01 as checks
    checks.toeplitz_matrix(my_function)

An `Exercise` never raises: an answer that fails is part of learning, and the cells below should still run. It never
holds the solution either, only what is true of a right answer.
"""

from c2f_course.tasks.exercise import (
    Blank,
    Exercise,
    Hint,
    Verdict,
    exercise,
    expect_close,
    expect_filled,
    expect_number,
    expect_tensor,
)

__all__ = [
    "Blank",
    "Exercise",
    "Hint",
    "Verdict",
    "exercise",
    "expect_close",
    "expect_filled",
    "expect_number",
    "expect_tensor",
]
