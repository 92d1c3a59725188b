"""A trainer of a few lines, with dropout and augmentation, for the tests of `common.run`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset

from common.config import AnyNumber, LoaderConfig, from_command_line
from common.errors import UserError, command
from common.files import write_json
from common.networks.weights import Pretrained
from common.run import Run


@dataclass(frozen=True, kw_only=True)
class Config(LoaderConfig):
    """Toy configuration."""

    learning_rate: float = 0.05
    """Step size."""
    iterations: int = 24
    """Updates."""
    nan_at: AnyNumber[int] = -1
    """Make the loss NaN at this step."""
    slow: float = 0.0
    """Seconds to sleep in every step."""
    bad_sample: AnyNumber[int] = -1
    """Index that cannot be read."""


def demo() -> Config:
    """A short training on noise."""
    return Config(batch_size=4, workers=0, save_every=5, log_every=2)


class Toy(Pretrained, nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Points(Dataset):
    def __init__(self, config: Config) -> None:
        self.config = config

    def __len__(self) -> int:
        return 13

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        epoch, index = key
        if index == self.config.bad_sample:
            raise UserError(f"picture_{index}.png: truncated; copy it again")
        noise = np.random.default_rng([self.config.seed, epoch, index]).standard_normal(3)
        return torch.tensor(noise + index, dtype=torch.float32) / 13


@command
def main() -> None:
    import time

    config = from_command_line({"demo": demo}, __doc__)
    run = Run(config, paper="toy", steps=config.iterations)
    accelerator = run.accelerator
    model = Toy()
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.iterations)
    model, optimizer = accelerator.prepare(model, optimizer)
    run.restore(model=model, optimizer=optimizer, schedule=schedule, ema=ema)
    for batch in run.batches(Points(config)):
        with accelerator.accumulate(model):
            loss = (model(batch)[:, 0] - batch.sum(dim=1)).square().mean()
            if run.step == config.nan_at:
                loss = loss * float("nan")
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        time.sleep(config.slow)
        if not run.updated:
            continue
        schedule.step()
        ema.update_parameters(accelerator.unwrap_model(model))
        run.log(loss=loss, learning_rate=schedule.get_last_lr()[0])
        if run.due(8):
            with run.scoring(model) as network:
                shown = {"mean": network.net[1].running_mean.tolist(), "training": network.training}
                shown["seed"] = torch.initial_seed()
                write_json(run.folder / f"scored_{run.rank}.json", shown)
            run.keep_if_best(-loss.item() if accelerator.num_processes == 1 else 0.0, model)
    run.wait()
    run.close()


if __name__ == "__main__":
    main()
