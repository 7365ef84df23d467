"""What is said when something can't be had from the Hub; tests/training/test_publish.py has the cases that need one."""

import subprocess
import sys

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from fcn_hf.hub_errors import hub_reason


def raised(error, cause=None):
    try:
        try:
            raise cause or ValueError
        except type(cause or ValueError()) as inner:
            raise error from (inner if cause else None)
    except type(error) as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (raised(OSError("We couldn't connect"), OfflineModeIsEnabled("x")), "HF_HUB_OFFLINE is set"),
        (raised(OSError("We couldn't connect"), ConnectionError("reset\nby peer.")), "failed (reset by peer); see to"),
        (OSError("a folder has no config.json\nand more"), "a folder has no config.json"),
        (OSError(), "OSError"),
    ],
)
def test_the_reason_is_one_line_that_names_what_lies_behind(error, said):
    reason = hub_reason(error)
    assert said in reason and "\n" not in reason


def test_the_package_does_without_httpx():
    """Neither torch nor transformers nor huggingface_hub 2 brings it; an extra of ours may."""

    code = "import sys; sys.modules['httpx'] = None; import fcn_hf, fcn_hf.evaluation, fcn_hf.cli"
    subprocess.run([sys.executable, "-c", code], check=True)
