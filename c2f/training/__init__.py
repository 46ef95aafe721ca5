"""How it learns: data, augmentation, recipes, the loop, and checkpoints."""
