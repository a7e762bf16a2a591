"""Parts of the benchmark of labels, one module for each question."""
