"""Exact and near copies, of each other and of benchmarks."""
