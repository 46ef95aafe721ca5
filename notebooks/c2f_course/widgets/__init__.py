"""Explorers: widgets that let a learner turn every knob of a picture. Core ipywidgets only, every one by keyboard."""

from c2f_course.widgets.augmentation import AugmentationExplorer
from c2f_course.widgets.kernel_size import KernelSizeExplorer
from c2f_course.widgets.live_plot import LivePlot
from c2f_course.widgets.modulation import ModulationExplorer
from c2f_course.widgets.panel import Panel
from c2f_course.widgets.receptive_field import ReceptiveFieldExplorer
from c2f_course.widgets.replay import TrainingReplay

__all__ = [
    "AugmentationExplorer",
    "KernelSizeExplorer",
    "LivePlot",
    "ModulationExplorer",
    "Panel",
    "ReceptiveFieldExplorer",
    "TrainingReplay",
]
