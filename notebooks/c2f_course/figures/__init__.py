"""Pictures that several notebooks draw are here; `notebook_NN` has what only that notebook draws."""

from c2f_course.figures.network import plot_course, plot_network

__all__ = ["plot_course", "plot_network"]
