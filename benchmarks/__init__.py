"""Speed against peers and quality against baselines; each result is committed under `results/`."""
