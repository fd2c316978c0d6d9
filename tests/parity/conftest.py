"""Parity runs on one thread and without TF32."""

from collections.abc import Iterator

import pytest
import torch

from tests.parity.runner import set_exact_arithmetic


@pytest.fixture(autouse=True)
def exact_arithmetic() -> Iterator[None]:
    threads = torch.get_num_threads()
    set_exact_arithmetic()
    yield
    torch.set_num_threads(threads)
