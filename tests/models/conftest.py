"""Fixtures of the networks' tests."""

from __future__ import annotations

import functools

import pytest
import torch

from retinue.models.registry import create_model


@pytest.fixture
def one_thread():
    """On small inputs, threads cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def _build_on_meta(name):
    with torch.device("meta"):
        return create_model(name).eval()


@pytest.fixture(scope="session")
def meta():
    """`meta(name)`: that network with 1,000 classes in eval mode, without memory; shared, so no
    test changes it."""
    return _build_on_meta
