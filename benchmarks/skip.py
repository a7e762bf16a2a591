"""Why a benchmark does not run here."""


class Skip(Exception):
    """Raised by `bench()` with the reason: a model that was not fetched, a peer that is not installed."""
