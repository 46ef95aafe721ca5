"""Explorers: widgets that let a learner turn every knob of a picture. Core ipywidgets only, every one by keyboard."""

from c2f.maps.explorer.base import Explorer
from c2f.maps.explorer.modulation import ModulationExplorer
from c2f.maps.explorer.panel import Box, Panel, draw
from c2f.maps.explorer.receptive_field import ReceptiveFieldExplorer
from c2f.maps.explorer.replay import TrainingReplay

__all__ = ["Box", "Explorer", "ModulationExplorer", "Panel", "ReceptiveFieldExplorer", "TrainingReplay", "draw"]
