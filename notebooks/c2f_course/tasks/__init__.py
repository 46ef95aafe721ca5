"""The exercises of notebooks and assignments: each check looks at an answer, and hints where it does not hold.

A notebook takes its own module, and the last line of an exercise's cell calls a check of it:

    from c2f_course.tasks import notebook_01 as checks
    checks.toeplitz_1d(my_function)

An `Exercise` never raises: an answer that fails is part of learning, and the cells below should still run. What is
right is written beside what mistakes lead to, each with its hint (`exercise.Expected`).
"""

from c2f_course.tasks.exercise import Exercise, Verdict, mine_or_kit

__all__ = ["Exercise", "Verdict", "mine_or_kit"]
