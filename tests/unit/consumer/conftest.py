"""The fakes of the models, for the tests of the engine."""

import pytest

from tests.engine_fakes import Device, FakeCaptioner, FakeEmbedder


@pytest.fixture
def device() -> Device:
    """Return the device that both fakes share."""
    return Device()


@pytest.fixture
def captioner(device: Device) -> FakeCaptioner:
    """Return a BLIP that is not loaded."""
    return FakeCaptioner(device)


@pytest.fixture
def embedder(device: Device, captioner: FakeCaptioner) -> FakeEmbedder:
    """Return a CLIP with room for everything."""
    fake = FakeEmbedder(device)
    fake.captioner = captioner
    return fake
