"""data.order.sequential."""

from toy.selection import scored
from tutelage.data.order.sequential import Sequential

PROOF = {"data.order.sequential": ["consistent"]}
MUTATIONS = [("src/tutelage/data/order/sequential.py", "np.arange(rows))", "np.arange(rows)[::-1])")]


def test_rows_in_order_again_and_again():
    draws = Sequential().start(scored(4), 9)
    assert [draws.next() for _ in range(10)] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert draws.state_dict() == {"epoch": 2, "position": 2, "rows": 4, "seed": 9}
