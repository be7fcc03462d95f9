"""What a night needs beside unlearning: how far a recommender has drifted, what was made from whom, what was erased."""
