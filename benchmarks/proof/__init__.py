"""Parts of the benchmark of statistics: simulated draws, real reruns, pooled seed variance."""
