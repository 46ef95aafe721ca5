"""What a training leaves to be read and plotted: a record an epoch."""

import csv
import io
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from c2f.files import write_atomically


@dataclass(frozen=True)
class EpochRecord:
    """One row of history.csv. The accuracies are shares from 0 to 1; the training ones are of augmented images."""

    epoch: int  # from 1
    lr: float  # of the epoch's last step
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float  # of training, without the evaluation
    images_per_second: float


@dataclass
class History:
    """A record an epoch, and whether training was interrupted before its last one."""

    records: list[EpochRecord] = field(default_factory=list)
    interrupted: bool = False

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> EpochRecord:
        return self.records[index]

    def as_dicts(self) -> list[dict[str, float]]:
        return [asdict(record) for record in self.records]

    def to_csv(self, path: Path) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, [column.name for column in fields(EpochRecord)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.as_dicts())
        write_atomically(path, text.getvalue().encode())

    @classmethod
    def from_csv(cls, path: Path) -> "History":
        with open(path, newline="", encoding="utf-8") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        return cls([EpochRecord(**{**row, "epoch": int(row["epoch"])}) for row in rows])
