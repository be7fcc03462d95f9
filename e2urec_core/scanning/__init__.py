"""Searches a whole workspace for everything that names one user, by what is on the disk and by nothing that was noted about it."""
