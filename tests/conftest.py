"""How tests are shared out when several processes run them (`make test`)."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

TOGETHER = {
    "tests/cli/test_demo.py": "the demo",
    "tests/cli/test_bad_input.py": "the demo",
    "tests/distributed/test_equality.py": "every parallel mode",
    "tests/distributed/test_checkpoints.py": "every parallel mode",
    "tests/distributed/test_launch.py": "every parallel mode",
}
"""Files that share something which takes minutes to make: one process runs them, and starts with them."""


class ByFile(LoadFileScheduling):
    """The tests of a file stay in one process, so that what they share is made once; so do the files of `TOGETHER`."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return TOGETHER.get(file, file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Share tests out by `ByFile`."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with what takes longest."""
    shared = list(dict.fromkeys(TOGETHER.values()))
    place = {file: shared.index(name) for file, name in TOGETHER.items()}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(shared)))
