"""The rows of the filter table, by what they look at."""
