"""The same answers in less time: what can be done once, when a model is loaded, instead of with every picture."""

from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .constant_border import skip_constant_border
from .errors import FCNError
from .packed_convolution import pack_convolutions
from .torch_calls import Call, Observer
from .trunks_fcn import FCNTrunk

PROBE = 64
"""Height and width, in pixels, of the picture with which layers are watched: two positions of the coarsest map."""


def optimize(model: Any, dtype: torch.dtype | None = None) -> Any:
    """Make a model faster, in place and for inference alone: it can't be saved or trained, nor take other weights.

    Its answers stay the same but for rounding (about 1e-6 of the largest score in float32). Convolutions lie in memory
    channels last, which those of CPUs are fastest in, and batch normalisation is folded into the convolution before it.
    Of VGG and AlexNet, `packed_convolution.py` lays out the weights for the processor; of VGG with the
    release's 100 px of padding, `constant_border.py` leaves out what doesn't depend on the picture.

    Args:
        model: a semantic segmentation model of transformers.
        dtype: of the weights and all maps, if another is wanted. `torch.bfloat16` is several times faster on CPUs with
            AMX and keeps the class of nearly all pixels; nets of depthwise convolutions (MobileNet, EfficientNet) are
            slower in it there.

    Returns:
        The same model, in evaluation mode.

    Raises:
        `FCNError`: if `dtype` isn't a floating-point one.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise FCNError(f"dtype is {dtype}; expected a floating-point one, such as torch.bfloat16.")
    model = model.eval().requires_grad_(False).to(dtype=dtype, memory_format=torch.channels_last)
    fold_batch_norm(model)
    for trunk in [module for module in model.modules() if isinstance(module, FCNTrunk)]:
        pack_convolutions(trunk)
        skip_constant_border(trunk)
    model.save_pretrained, model.load_state_dict = refuse_to_save, refuse_to_load
    return model


def refuse_to_save(*args: Any, **kwargs: Any) -> None:
    """In place of `save_pretrained`: an optimized model's weights aren't those that its config describes."""
    raise FCNError("This model was made for inference by optimize; save what from_pretrained gives, before optimize.")


def refuse_to_load(*args: Any, **kwargs: Any) -> None:
    """In place of `load_state_dict`: what was made of the weights would stay as it is."""
    raise FCNError("This model was made for inference by optimize; load weights before optimize.")


@torch.no_grad()
def fold_batch_norm(model: Any) -> None:
    """Fold every batch normalisation into the convolution whose answer it alone reads; others stay as they are.

    Which they are is seen on a small picture, so that it holds for whatever backbone; all stay in a net that takes none
    of that size.
    """
    convolutions: dict[int, nn.Conv2d] = {}
    normalised: dict[Any, list[int]] = {}
    runs: Counter[nn.Module] = Counter()
    reads: Counter[int] = Counter()
    # As long as a tensor lives, no other has its id.
    alive: list[torch.Tensor] = []

    def convolved(module: nn.Conv2d, inputs: Any, output: torch.Tensor) -> None:
        runs[module] += 1
        convolutions[id(output)] = module
        alive.append(output)

    def normalises(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        normalised.setdefault(module, []).append(id(inputs[0]))
        alive.append(inputs[0])

    def read(call: Call) -> None:
        made = [call.result] if isinstance(call.result, torch.Tensor) else call.result
        # What makes no tensors asks for a shape or a device.
        if isinstance(made, list | tuple) and any(isinstance(part, torch.Tensor) for part in made):
            reads.update({id(tensor) for tensor in call.tensors()})
            alive.extend(part for part in made if isinstance(part, torch.Tensor))

    hooks = [m.register_forward_hook(convolved) for m in model.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(normalises) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    channels = getattr(model.config, "num_channels", None) or 3
    picture = torch.zeros(1, channels, PROBE, PROBE, device=model.device, dtype=model.dtype)
    try:
        with Observer(read):
            model(picture)
    except Exception:  # whatever a net of another kind raises that knows one size of pictures alone
        return
    finally:
        for hook in hooks:
            hook.remove()
    names = {module: name for name, module in model.named_modules()}
    for normalisation, (answer, *others) in normalised.items():
        convolution = convolutions.get(answer)
        if convolution is None or others or runs[convolution] > 1 or reads[answer] > 1:
            continue
        if normalisation.running_mean is None:  # it normalises by each batch
            continue
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias,
            normalisation.running_mean, normalisation.running_var, normalisation.eps,
            normalisation.weight, normalisation.bias,
        )  # fmt: skip
        # timm's have their activation within.
        rest = [getattr(normalisation, name) for name in ("drop", "act") if hasattr(normalisation, name)]
        model.set_submodule(names[normalisation], nn.Sequential(*rest))
