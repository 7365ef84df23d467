"""Which families of timm's classifiers `convolutionalize` takes: python benchmarks/convolutionalize_families.py

Prints a Markdown table: the smallest member of each family (module) with at most 10M parameters, with random weights.
"""

import torch
from timm import create_model, list_models, list_modules

from fcn_hf import convolutionalize

MOST_PARAMETERS = 10e6
# What an error says, and why that is so.
REASONS = {
    "reads a whole map": "squeeze-and-excitation: one factor a channel from the whole map",
    "checks the size": "checks that the picture has one size",
    "positional embedding": "positional embedding of one size",
    "it reshapes": "reshapes maps, as attention between positions does",
    "can't trace": "decides in its forward by sizes",
    "expected the pictures alone": "its forward takes more than pictures (a transformer)",
    "whole picture": "normalises over the whole map",
}


def smallest(family: str) -> str | None:
    """The family's smallest classifier, if it is small enough."""
    sizes = {}
    for name in list_models(module=family):
        with torch.device("meta"):
            sizes[name] = sum(parameter.numel() for parameter in create_model(name).parameters())
    name = min(sizes, key=lambda name: sizes[name])
    return name if sizes[name] <= MOST_PARAMETERS else None


@torch.no_grad()
def verdict(name: str) -> str:
    classifier = create_model(name).eval()
    height, width = classifier.default_cfg["input_size"][1:]
    try:
        net = convolutionalize(classifier, (height, width))
    except ValueError as error:
        return "refused: " + next((reason for part, reason in REASONS.items() if part in str(error)), str(error))
    pixel_values = torch.randn(1, 3, height, width)
    torch.testing.assert_close(net(pixel_values)[:, :, 0, 0], classifier(pixel_values), rtol=1e-4, atol=1e-4)
    return "taken"


if __name__ == "__main__":
    print("| family | classifier | answer |\n|---|---|---|")
    for family in list_modules():
        if name := smallest(family):
            print(f"| {family} | {name} | {verdict(name)} |", flush=True)
