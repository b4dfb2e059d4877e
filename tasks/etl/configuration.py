"""What the configurations of all ETL kinds have in common, and what is refused of it at the door."""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from raftnode.foundation.names import fold
from raftnode.record.commands.base import CommandRefused, check_labels
from raftnode.scripting.javascript import ScriptError
from tasks.etl.transform import Transform
from tasks.kinds.registry import ConfigurationError

TRANSFORMS_MAX = 100


class TransformConfiguration(msgspec.Struct, frozen=True, rename="pascal"):
    """RavenDB's Transformation."""

    name: str = ""
    collections: tuple[str, ...] = ()
    script: str = ""
    apply_to_all_documents: bool = False
    disabled: bool = False


def check_transforms(transforms: Sequence[TransformConfiguration]) -> None:
    """Refuses too many or none, names and collections that are missing, and names that are there twice. Raises
    ConfigurationError."""
    if not 1 <= len(transforms) <= TRANSFORMS_MAX:
        raise ConfigurationError("Transforms", f"has {len(transforms)} entries; give 1 to {TRANSFORMS_MAX}")
    if name := twice(transform.name for transform in transforms):
        raise ConfigurationError("Transforms.Name", f"'{name}' is listed twice; names must be unique")
    for transform in transforms:
        if not transform.name.strip():
            raise ConfigurationError("Transforms.Name", "is empty; name each transform")
        if not transform.collections and not transform.apply_to_all_documents:
            problem = f"transform '{transform.name}' has none; name collections or set ApplyToAllDocuments"
            raise ConfigurationError("Transforms.Collections", problem)
        if transform.collections and transform.apply_to_all_documents:
            problem = f"of transform '{transform.name}' are named, and ApplyToAllDocuments is set; choose one"
            raise ConfigurationError("Transforms.Collections", problem)


def check_script(transform: Callable[[], Transform]) -> None:
    """Compiles the script. Raises ConfigurationError."""
    try:
        transform().check()
    except ScriptError as error:
        raise ConfigurationError("Transforms.Script", str(error)) from None


def check_requires(labels: tuple[str, ...]) -> None:
    """Refuses what cannot be labels. Raises ConfigurationError."""
    try:
        check_labels(labels)
    except CommandRefused as refused:
        raise ConfigurationError("Requires", refused.error.message) from None


def twice(names: Iterable[str]) -> str | None:
    """The first name that is there again in another spelling or the same; None if none is."""
    seen: set[str] = set()
    for name in names:
        if fold(name) in seen:
            return name
        seen.add(fold(name))
    return None
