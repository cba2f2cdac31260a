"""The gallery: a page that shows results as they come, and finds pictures by words."""
