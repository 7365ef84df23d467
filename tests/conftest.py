"""Shared by all tests: no network, no traces, and a net small enough to be built in milliseconds."""

import atexit
import os
import shutil
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
# Caches of data sets and remote code, which would otherwise pile up in the user's own.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="fcn-hf-tests-")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest
import torch

from fcn_hf import FCNConfig, FCNForSemanticSegmentation

TINY = {"hidden_sizes": (4, 4, 8, 8, 8), "depths": (1, 1, 1, 1, 1), "hidden_size": 8, "num_labels": 5}


def build_tiny(**settings) -> FCNForSemanticSegmentation:
    """A tiny net in eval mode whose every weight is random, skips and kernels included: zeros would hide mistakes."""
    torch.manual_seed(0)
    model = FCNForSemanticSegmentation(FCNConfig(**{**TINY, **settings})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.fixture
def tiny():
    """The builder of tiny nets: `tiny(prediction_stride=16)`."""
    return build_tiny
