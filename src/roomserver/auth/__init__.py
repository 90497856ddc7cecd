"""Passwords, tokens and accounts."""
