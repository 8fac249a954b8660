"""A start as one of several processes is refused, however it was launched."""

import pytest

from training.launch import check_launch
from twinquant.errors import UserError


@pytest.mark.parametrize(
    "variable", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "HOROVOD_SIZE", "WORLD_SIZE"]
)
@pytest.mark.parametrize("horovod", [False, True])
def test_several_processes_are_refused(variable, horovod):
    with pytest.raises(UserError, match=rf"one of 4 processes \({variable}=4\).*--num_accumulation_steps"):
        check_launch(horovod, {variable: "4"})


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}, {"PMI_SIZE": "many"}])
def test_a_single_process_goes_on(environment):
    assert check_launch(False, environment) is None
    note = check_launch(True, environment)
    assert note is not None and "--horovod" in note
