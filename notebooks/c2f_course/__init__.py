"""How the course is taught: questions to predict on, exercises that check themselves, and grading."""

from typing import Any

__all__ = ["Prediction", "predict"]


def __getattr__(name: str) -> Any:
    """Imported with its first use, since it needs torch: `c2f --help` loads the commands of this package alone."""
    if name in __all__:
        from c2f_course.tasks import predict

        return getattr(predict, name)
    raise AttributeError(f"module 'c2f_course' has no attribute {name!r}")
