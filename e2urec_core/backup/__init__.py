"""Copies of whole workspaces: what is in one, how it is taken, and how it is verified and put in place."""
