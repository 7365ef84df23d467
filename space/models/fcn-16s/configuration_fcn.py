"""Configuration of Fully Convolutional Networks (Long, Shelhamer, Darrell, CVPR 2015 and PAMI 2016)."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class FCNConfig(PreTrainedConfig):
    r"""
    Everything that shapes an FCN; the default is FCN-8s on VGG16 at the paper's width (134M parameters).

    Args:
        backbone (`str`, *optional*, defaults to `"vgg"`):
            The classifier made fully convolutional: `"vgg"` (3x3 convolutions in stages, each ended by a 2x2 pooling).
        hidden_sizes (`list[int]`, *optional*, defaults to `(64, 128, 256, 512, 512)`):
            Channels of the five stages.
        depths (`list[int]`, *optional*, defaults to `(2, 2, 3, 3, 3)`):
            3x3 convolutions in each stage.
        use_batch_norm (`bool`, *optional*, defaults to `False`):
            Whether each 3x3 convolution is followed by batch normalisation, as in VGG16-BN.
        hidden_size (`int`, *optional*, defaults to 4096):
            Channels of fc6 and fc7.
        prediction_stride (`int`, *optional*, defaults to 8):
            32, 16 or 8: the stride of the finest scores, hence FCN-32s, FCN-16s (adds pool4) and FCN-8s (adds pool4
            and pool3).
        geometry (`str`, *optional*, defaults to `"same"`):
            `"same"` pads 3x3 by 1 and fc6 by 3. `"caffe"` pads the first convolution by 100 px and fc6 by 0, as the
            authors' release does; published weights need it.
        upsampling (`str`, *optional*, defaults to `"learned"`):
            Every transposed convolution starts as bilinear interpolation. `"learned"`: all of them train. `"inner"`:
            all but the last do (CVPR 2015). `"bilinear"`: none does (the release).
        skip_scales (`list[float]`, *optional*, defaults to `(1.0, 1.0)`):
            Factors on pool4 and pool3 before they are scored; the at-once FCN-8s uses `(0.01, 0.0001)`.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.5):
            Dropout probability after fc6 and after fc7, in [0, 1).
        num_channels (`int`, *optional*, defaults to 3):
            Channels of `pixel_values`.
        semantic_loss_ignore_index (`int`, *optional*, defaults to 255):
            Label that counts neither in the loss nor in any score.

    Raises:
        `StrictDataclassError` (from `huggingface_hub.errors`), with the wrong value and the values allowed.

    Example:

    ```python
    >>> from fcn_hf import FCNConfig, FCNForSemanticSegmentation

    >>> config = FCNConfig(prediction_stride=16, num_labels=21)
    >>> model = FCNForSemanticSegmentation(config)
    >>> model.fc6
    Conv2d(512, 4096, kernel_size=(7, 7), stride=(1, 1), padding=(3, 3))
    ```"""

    model_type = "fcn"

    backbone: str = "vgg"
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512, 512)
    depths: list[int] | tuple[int, ...] = (2, 2, 3, 3, 3)
    use_batch_norm: bool = False
    hidden_size: int = 4096
    prediction_stride: int = 8
    geometry: str = "same"
    upsampling: str = "learned"
    skip_scales: list[float | int] | tuple[float | int, ...] = (1.0, 1.0)
    hidden_dropout_prob: float | int = 0.5
    num_channels: int = 3
    semantic_loss_ignore_index: int = 255

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.id2label is not None and self.label2id is None:
            self.label2id = {label: index for index, label in self.id2label.items()}

    def validate_choices(self):
        """`backbone`, `prediction_stride`, `geometry` and `upsampling` come from short lists."""
        choices = {
            "backbone": ("vgg",),
            "prediction_stride": (32, 16, 8),
            "geometry": ("same", "caffe"),
            "upsampling": ("learned", "inner", "bilinear"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not known; expected one of {allowed}.")

    def validate_stages(self):
        """Five stages, since pool3, pool4 and pool5 (strides 8, 16, 32) are what an FCN scores."""
        if len(self.hidden_sizes) != 5 or min(self.hidden_sizes) < 1:
            raise ValueError(f"hidden_sizes={self.hidden_sizes} must hold five positive channel counts, one per stage.")
        if len(self.depths) != 5 or min(self.depths) < 1:
            raise ValueError(f"depths={self.depths} must hold five positive numbers of convolutions, one per stage.")

    def validate_sizes(self):
        """Counts are positive, `skip_scales` are two, dropout is a probability."""
        for name in ("hidden_size", "num_channels", "num_labels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        if len(self.skip_scales) != 2:
            raise ValueError(f"skip_scales={self.skip_scales} must hold two factors, for pool4 and pool3.")
        if not 0 <= self.hidden_dropout_prob < 1:
            raise ValueError(f"hidden_dropout_prob={self.hidden_dropout_prob} must be at least 0 and below 1.")


__all__ = ["FCNConfig"]
