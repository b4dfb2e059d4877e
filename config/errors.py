"""What is wrong with the settings: every problem names the key, the value, the rule and the remedy."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Problem:
    """One broken rule. `involved` are all keys the rule reads, `source` says where the value came from."""

    key: str
    value: str
    rule: str
    remedy: str
    source: str = ""
    involved: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        value = f" = {self.value}" if self.value else ""
        source = f" ({self.source})" if self.source else ""
        return f"{self.key}{value}{source}: {self.rule}. {self.remedy}"


class SettingsError(Exception):
    """The settings are refused; `problems` are all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"the settings are refused:\n{lines}")
