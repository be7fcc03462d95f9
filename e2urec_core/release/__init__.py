"""The release of a recommender: what it must prove before it may take the place of the one in production."""
