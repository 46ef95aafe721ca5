"""What a Conv2Former sees: its modulation maps, and the pictures that the notebooks draw."""

from c2f.maps.diagrams import plot_course, plot_network
from c2f.maps.modulation import Modulation, channels_by_effect, look_at, modulation_map, parts_of, window_map
from c2f.maps.picture import Picture
from c2f.maps.plots import LivePlot, plot_confusion, plot_history, plot_images, plot_maps, plot_modulation

__all__ = [
    "LivePlot",
    "Modulation",
    "Picture",
    "channels_by_effect",
    "look_at",
    "modulation_map",
    "parts_of",
    "plot_confusion",
    "plot_course",
    "plot_history",
    "plot_images",
    "plot_maps",
    "plot_modulation",
    "plot_network",
    "window_map",
]
