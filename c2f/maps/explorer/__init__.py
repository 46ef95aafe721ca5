"""Explorers: widgets that let a learner turn every knob of a picture. Core ipywidgets only, every one by keyboard."""

from c2f.maps.explorer.augmentation import AugmentationExplorer
from c2f.maps.explorer.base import Explorer
from c2f.maps.explorer.kernel_size import KernelSizeExplorer
from c2f.maps.explorer.modulation import ModulationExplorer
from c2f.maps.explorer.panel import Box, Panel, draw
from c2f.maps.explorer.receptive_field import ReceptiveFieldExplorer
from c2f.maps.explorer.replay import TrainingReplay

__all__ = [
    "AugmentationExplorer",
    "Box",
    "Explorer",
    "KernelSizeExplorer",
    "ModulationExplorer",
    "Panel",
    "ReceptiveFieldExplorer",
    "TrainingReplay",
    "draw",
]
