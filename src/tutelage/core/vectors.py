"""A column of vectors as a checked matrix, for everything that measures distances between rows."""

import numpy as np
import pyarrow as pa

from tutelage.core.dataset import Dataset, embedding_matrix
from tutelage.core.errors import InputError


def vector_column(dataset: Dataset, name: str) -> np.ndarray:
    """Column `name` as a float32 matrix [rows, d].

    Raises InputError when the column is absent, holds no vectors of one length, or a vector that is not finite.
    """
    dataset.require(name)
    kind = dataset.schema.field(name).type
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_list(kind) for is_list in lists) or not dataset.num_rows:
        raise InputError(
            f"column {name!r} holds no vectors",
            where=name,
            expected="a list of numbers of one length in every row",
            found=f"{kind}, {dataset.num_rows} rows",
            remedy="add them with an embedding signal (`signals.embedding_tfidf`, `signals.embedding_hidden`)",
        )
    vectors = embedding_matrix(dataset.column(name)).astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise InputError(
            f"column {name!r} holds a vector that is not finite",
            where=f"row {dataset.ids()[bad[0]]}",
            expected="finite numbers",
            found="NaN or infinity",
            remedy="run the embedding signal again",
        )
    return vectors
