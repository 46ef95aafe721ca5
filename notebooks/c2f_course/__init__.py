"""How the course is taught: questions to predict on, exercises that check themselves, and grading."""

from c2f_course.tasks.predict import Prediction, predict

__all__ = ["Prediction", "predict"]
