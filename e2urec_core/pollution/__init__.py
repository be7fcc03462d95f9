"""Finds users and single interactions whose labels nobody else's rows lead one to expect, and proposes that they be forgotten.

`folds` trains networks on other users and scores each user with one that never saw them; `evidence` turns these answers into what
speaks against a user, held against luck; `proposal` decides. Nobody's cohort is looked at.
"""
