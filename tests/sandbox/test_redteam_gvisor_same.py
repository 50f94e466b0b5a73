"""Red team under gVisor: attacks on files and processes that are word for word those under runc."""

from __future__ import annotations

import pytest

from pokerarena.sandbox.home import SandboxHome
from tests.sandbox.test_redteam_host import (
    test_descriptors_of_the_host_do_not_leak_in,
    test_links_it_plants_lead_the_host_nowhere,
    test_the_opponents_code_cards_and_chance_are_out_of_reach,
)
from tests.sandbox.test_redteam_kernel import (
    test_the_kernels_switches_and_devices_are_out_of_reach,
)
from tests.sandbox.test_redteam_resources import (
    test_a_child_that_outlives_the_agent_dies_with_it,
    test_open_files_are_bounded,
)

__all__ = [
    "test_a_child_that_outlives_the_agent_dies_with_it",
    "test_descriptors_of_the_host_do_not_leak_in",
    "test_links_it_plants_lead_the_host_nowhere",
    "test_open_files_are_bounded",
    "test_the_kernels_switches_and_devices_are_out_of_reach",
    "test_the_opponents_code_cards_and_chance_are_out_of_reach",
]


@pytest.fixture
def home(gvisor_home: SandboxHome) -> SandboxHome:
    """The same name as runc's home: the tests do not know the difference."""
    return gvisor_home
