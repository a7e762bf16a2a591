"""`Meter`: a running, thread-safe sum of `Cost`, kept by models and the trainer and read by whoever pays."""

import threading

from tutelage.core.records import Cost


class Meter:
    """Add what was spent as it is spent; `cost` is the sum so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cost = Cost()

    @property
    def cost(self) -> Cost:
        """Everything added so far; subtract nothing, take `since` for a difference."""
        with self._lock:
            return self._cost

    def add(
        self,
        *,
        forward_flops: float = 0.0,
        backward_flops: float = 0.0,
        scored_tokens: int = 0,
        trained_tokens: int = 0,
        generated_tokens: int = 0,
        calls: int = 0,
        labels: int = 0,
        trials: int = 0,
        seconds: float = 0.0,
        peak_bytes: int = 0,
    ) -> None:
        """Add to the sum; `peak_bytes` is kept as a maximum. Units as in `Cost`."""
        spent = Cost(
            forward_flops=forward_flops,
            backward_flops=backward_flops,
            scored_tokens=scored_tokens,
            trained_tokens=trained_tokens,
            generated_tokens=generated_tokens,
            calls=calls,
            labels=labels,
            trials=trials,
            seconds=seconds,
            peak_bytes=peak_bytes,
        )
        self.add_cost(spent)

    def add_cost(self, spent: Cost) -> None:
        """Add a whole `Cost` (what another meter read)."""
        with self._lock:
            self._cost = self._cost + spent

    def since(self, before: Cost) -> Cost:
        """What was added after `before` was read; the peak is the peak of the whole."""
        now = self.cost
        spent = {
            name: getattr(now, name) - getattr(before, name) for name in Cost.model_fields if name != "peak_bytes"
        }
        return Cost(**spent, peak_bytes=now.peak_bytes)
