"""Real image files in many formats, each with its true caption, and files that are no images."""
