"""One bed for all tests of faults, and what its recipes come to when nothing happens."""

import multiprocessing
from functools import cache

import pytest

pytest.importorskip("torch")


@pytest.fixture(scope="session")
def bed(tmp_path_factory):
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("starts many processes, which needs a server to fork them from")
    from toy.fault_bed import FaultBed

    return FaultBed(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def undisturbed(bed):
    """recipe -> (its workspace, what the child did to files, what the run came to)."""
    from toy.fault_bed import outcome

    @cache
    def played(recipe="plain"):
        workspace = bed.workspace()
        ended = bed.play(workspace, bed.run(recipe), ["report"])
        assert ended.code == 0, ended.err
        return workspace, ended.moments, outcome(workspace)

    return played
