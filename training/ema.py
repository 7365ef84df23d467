"""An exponential moving average of the weights, which is what a run with `ema_decay` leaves behind."""

from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback

from fcn_hf.errors import FCNError
from fcn_hf.files import write_aside
from training.limits import check_value

EMA_FILE = "ema.pt"


class EMACallback(TrainerCallback):
    """Follows the weights (and the statistics of batch normalisation) by torch's `AveragedModel`.

    The average goes into checkpoints and is taken up again from them, so a resumed run ends in the same weights.
    `FCNTrainer` evaluates the average, which takes the place of the weights when training ends.

    Args:
        decay (`float`): share of the average that a step keeps, such as 0.999; in (0, 1).
        resume_from (`str`, *optional*): checkpoint folder to take the average from.

    Raises:
        `FCNError`: if `decay` is out of range, or the checkpoint holds no average.
    """

    def __init__(self, decay: float, resume_from: str | None = None):
        check_value("ema_decay", decay)
        self.decay = decay
        self.resume_from = resume_from
        self.average: AveragedModel | None = None

    def model_for(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model with averaged weights while training goes on; before and after that, `model` itself."""
        return model if self.average is None else self.average.module

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(self.decay), use_buffers=True)
        if self.resume_from is not None:
            path = Path(self.resume_from) / EMA_FILE
            if not path.is_file():
                raise FCNError(f"{path} is missing: {self.resume_from} was saved by a run without ema_decay.")
            self.average.load_state_dict(torch.load(path, map_location=args.device, weights_only=True))

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.average.update_parameters(model)

    def save(self, checkpoint: Path) -> None:
        """Put the average into a checkpoint folder."""
        average = self.average
        if average is not None:
            write_aside(checkpoint / EMA_FILE, lambda path: torch.save(average.state_dict(), path))

    def on_train_end(self, args, state, control, model=None, **kwargs):
        model.load_state_dict(self.average.module.state_dict())
        self.average = None


def averaged_weights(checkpoint: str) -> dict[str, torch.Tensor]:
    """The averaged state dict that a checkpoint folder of a run with `ema_decay` holds."""
    average = torch.load(Path(checkpoint) / EMA_FILE, map_location="cpu", weights_only=True)
    return {name.removeprefix("module."): value for name, value in average.items() if name.startswith("module.")}
