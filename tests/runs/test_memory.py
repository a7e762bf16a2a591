"""What a step with a model has freed goes back to the system, so that the next begins as the first did."""

import ctypes
import sys

import psutil
import pytest

from tutelage.runs.compute import _give_back

MUTATIONS = [("src/tutelage/runs/compute.py", "malloc_trim(0)", "malloc_usable_size(0)")]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone keeps what is freed in pieces")
def test_freed_pieces_go_back_to_the_system():
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("another C library")
    process = psutil.Process()
    pieces = [bytearray(16_000) for _ in range(20_000)]
    full = process.memory_info().rss
    kept = pieces[::500]
    del pieces
    _give_back()
    assert len(kept) == 40 and full - process.memory_info().rss > 250e6
