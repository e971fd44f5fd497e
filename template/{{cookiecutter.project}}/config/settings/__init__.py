"""The settings: base and tasks are the same everywhere; development, production and test each add their own."""
