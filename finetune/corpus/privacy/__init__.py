"""Secrets and personal data: found, and replaced."""
