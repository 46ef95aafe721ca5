"""The same numbers, sooner: optional reading. `c2f.accelerate(model)` puts it to use; nothing in `c2f.models` does."""
