"""Where documents come from: git repositories, folders and tables."""
