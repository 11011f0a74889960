"""The papers' networks, and the small one of the demo."""
