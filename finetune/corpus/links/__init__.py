"""What files need of each other, and the order that follows."""
