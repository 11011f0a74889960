"""The papers' recipe: from images and their labels to a trained network."""
