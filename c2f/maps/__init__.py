"""What a Conv2Former sees: its modulation maps, and the pictures that the notebooks draw."""

from c2f.maps.modulation import Modulation, channels_by_effect, implied_attention, modulation_at, parts_of, window_map
from c2f.maps.plots import plot_confusion, plot_images, plot_maps, plot_modulation
from c2f.maps.receptive_field import effective_receptive_field
from c2f.picture import Picture

__all__ = [
    "Modulation",
    "Picture",
    "channels_by_effect",
    "effective_receptive_field",
    "implied_attention",
    "modulation_at",
    "parts_of",
    "plot_confusion",
    "plot_images",
    "plot_maps",
    "plot_modulation",
    "window_map",
]
