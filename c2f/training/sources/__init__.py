"""Where images come from: each module knows one source, or one step of the way from it into memory."""
