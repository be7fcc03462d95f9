"""Audits: whether a recommender gives away who it was trained on, asked without a Retrain."""
