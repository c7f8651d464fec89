"""Every sample of a built run checked against its document."""
