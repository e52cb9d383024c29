"""What stops a look is itself a finding."""

from __future__ import annotations

from tuning.diagnosis.checks import Check, State, looked
from tuning.errors import ResultsError


def test_a_package_that_a_look_needs_and_has_not_is_named() -> None:
    def look() -> Check:
        import no_such_package.inner  # noqa: F401

        raise AssertionError

    found = looked("memory", look)
    assert found.state is State.FAILURE
    assert found.todo == "pip install --force-reinstall no_such_package"


def test_what_the_system_or_a_law_refuses_is_a_failure() -> None:
    for error in (OSError(5, "Input/output error"), ResultsError("cannot write x")):

        def look(error: Exception = error) -> Check:
            raise error

        found = looked("disk", look)
        assert found.state is State.FAILURE
        assert str(error) in found.says
