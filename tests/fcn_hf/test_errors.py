"""What is said when something can't be had from the Hub; tests/training/test_publish.py has the cases that need one."""

import re
from pathlib import Path

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from fcn_hf.errors import hub_reason


def raised_from(cause, error):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (raised_from(OfflineModeIsEnabled("x"), OSError("We couldn't connect")), "HF_HUB_OFFLINE is set"),
        (
            raised_from(ConnectionError("reset\nby peer."), OSError("We couldn't connect")),
            "failed (reset by peer); see to",
        ),
        (OSError("a folder has no config.json\nand more"), "a folder has no config.json"),
        (OSError(), "OSError"),
    ],
)
def test_the_reason_is_one_line_that_names_what_lies_behind(error, said):
    reason = hub_reason(error)
    assert said in reason and "\n" not in reason


def test_the_package_does_without_httpx():
    """From huggingface_hub 2 on nothing that the package depends on brings it."""
    for path in (Path(__file__).parents[2] / "fcn_hf").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) httpx", path.read_text(), re.MULTILINE), path
