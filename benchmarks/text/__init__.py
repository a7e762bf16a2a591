"""What `python -m benchmarks text` and `streaming` share: the corpus, and the peers."""
