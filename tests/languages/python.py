"""Reads the readings of sensors, one `name,value` on each line."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

LIMIT = 100.0


@dataclass
class Readings:
    """Values of each sensor, and how many lines were left out."""

    values: dict[str, list[float]] = field(default_factory=dict)
    dropped: int = 0

    # A line that cannot be read is counted, not raised.
    def read(self, path: Path, offset: float = 0.0) -> None:
        """Add every reading of a file."""
        for line in path.read_text(encoding="utf-8").splitlines():
            match line.split(","):
                case [sensor, value]:
                    self.add(sensor.strip(), value, offset)
                case [""]:
                    continue
                case _:
                    self.dropped += 1

    def add(self, sensor: str, value: str, offset: float) -> None:
        try:
            number = float(value) - offset
        except ValueError as error:
            print(f"{sensor}: {error}", file=sys.stderr)
            self.dropped += 1
            return
        if math.isnan(number) or not -LIMIT <= number <= LIMIT:
            self.dropped += 1
        else:
            self.values.setdefault(sensor, []).append(number)

    def means(self) -> dict[str, float]:
        return {name: sum(found) / len(found) for name, found in self.values.items()}


def newest(numbers: list[float], most: int = 10) -> list[float]:
    kept: list[float] = []
    index = len(numbers) - 1
    while index >= 0 and len(kept) < most:
        kept.append(numbers[index])
        index -= 1
    return kept if len(kept) > 1 else kept * 2


if __name__ == "__main__":
    readings = Readings()
    for name in sys.argv[1:]:
        readings.read(Path(name), offset=0.5)
    by_mean = sorted(readings.means().items(), key=lambda item: item[1])
    print("\n".join(f"{sensor:10} {mean:6.2f}" for sensor, mean in by_mean))
