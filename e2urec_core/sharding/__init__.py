"""Shards of users: who is in which, how each is trained, and how those are trained again that held a forgotten user."""
