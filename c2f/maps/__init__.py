"""What a Conv2Former sees: its modulation maps, and the pictures that the notebooks draw."""

from c2f.maps.modulation import Modulation, channels_by_effect, look_at, modulation_map, parts_of, window_map
from c2f.maps.picture import Picture
from c2f.maps.plots import plot_confusion, plot_history, plot_images, plot_maps, plot_modulation

__all__ = [
    "Modulation",
    "Picture",
    "channels_by_effect",
    "look_at",
    "modulation_map",
    "parts_of",
    "plot_confusion",
    "plot_history",
    "plot_images",
    "plot_maps",
    "plot_modulation",
    "window_map",
]
