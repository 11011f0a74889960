"""Open a network and an image, run the plan, write the mask."""
