"""How much of a budget is spent, and how much of it the next step may take."""

import math
from dataclasses import dataclass

from tutelage.core.records import Budget


@dataclass(frozen=True)
class Spent:
    """What a run has used, in the units of `Budget`."""

    tokens: float
    rows: float
    flops: float
    seconds: float

    def nearest(self, budget: Budget) -> tuple[float, float, float]:
        """(seen, total, share) of the limit that is nearest its end, in its own unit; `seen` at most `total`."""
        pairs = (
            (self.tokens, budget.tokens),
            (self.rows, budget.rows),
            (self.flops, budget.flops),
            (self.seconds, budget.seconds),
        )
        found = [(float(seen), float(limit)) for seen, limit in pairs if limit is not None]
        seen, total = max(found, key=lambda pair: pair[0] / pair[1])
        return min(seen, total), total, seen / total

    def next_step(
        self, budget: Budget, step_tokens: int, flops_per_token: float
    ) -> tuple[int, int | None, int | None]:
        """Tokens that the next step is to hold, and rows and tokens that are left (None: no limit).

        FLOPs that are left are tokens that are left, the last one begun counted whole.
        """
        left = []
        if budget.tokens is not None:
            left.append(int(budget.tokens - self.tokens))
        if budget.flops is not None:
            # Rounding of the sums must not begin another token.
            left.append(math.ceil((budget.flops - self.flops) / flops_per_token - 1e-6))
        most = max(1, min(left)) if left else None
        rows = None if budget.rows is None else int(budget.rows - self.rows)
        return step_tokens if most is None else min(step_tokens, most), rows, most
