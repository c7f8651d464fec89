"""What is taken out of a file before it is learned from."""
