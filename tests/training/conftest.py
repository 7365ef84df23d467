"""Fresh processes that know no Hub but the test's own."""

import os

import pytest


@pytest.fixture
def fresh_environment(hub, tmp_path_factory):
    """Environments of processes that use `hub` with a cache of their own, still empty.

    `fresh_environment(HF_TOKEN=None)` is one in which this variable isn't set.
    """

    def build(**changes):
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": hub.token,
            "HF_HOME": str(tmp_path_factory.mktemp("hf-home")),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            # Where a proxy is set, it isn't meant for this.
            "NO_PROXY": "127.0.0.1",
            # One thread is faster for narrow nets, by far where the cores are busy.
            "OMP_NUM_THREADS": "1",
            **changes,
        }
        outside = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return {name: value for name, value in {**outside, **settings}.items() if value is not None}

    return build
