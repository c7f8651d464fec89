"""What a run takes, told before anything is spent."""
