"""Draw docs/explorer.svg, the README's first picture: the modulation explorer at the cat's nose, as in notebook 06."""

from pathlib import Path

from c2f import create_model
from c2f.training.sources.photographs import load_photographs
from c2f_course.widgets import ModulationExplorer

photos = load_photographs(32)
model = create_model("conv2former_mini_cifar", weights="cifar10").eval()
explorer = ModulationExplorer(model, photos.images, photos.names)
explorer.image.value, explorer.channel.value, explorer.scale.value = photos.names.index("cat"), 27, "each its own"
(drawing,) = explorer._drawings
Path(__file__).with_name("explorer.svg").write_text(drawing, encoding="utf-8")
print(explorer.text)  # the picture's alternative text
