"""Where images come from: each module reads one source."""
