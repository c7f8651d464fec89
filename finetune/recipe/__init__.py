"""A recipe: its sections and their limits, read strictly from YAML."""
