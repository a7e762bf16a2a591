"""The beds of the benchmark `choosing`: recipes, the rows and models they start from, and what is said over
them."""
