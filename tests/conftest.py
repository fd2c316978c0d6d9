"""How tests are shared out when several processes run them (`make test`)."""

import pytest

SHARED = ("demo", "trained")
"""Fixtures that take minutes to make: the tests that look at one of them stay together, and start first."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of one file together, so that what it sets up is made once."""
    if not config.pluginmanager.has_plugin("xdist"):
        return
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: SHARED.index(groups[item]) if groups[item] in SHARED else len(SHARED))


def _group(item: pytest.Item) -> str:
    shared = [name for name in getattr(item, "fixturenames", ()) if name in SHARED]
    return shared[0] if shared else item.location[0]
