"""Kinds of tasks: what the daemon asks of each, and which ones this node can run.

A kind is an object under the entry-point group `raftnode.tasks`. It is imported when a task of that kind is first
defined or run here.
"""

from collections.abc import Coroutine, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec
import structlog

from raftnode.foundation.decoding import from_python_json
from raftnode.foundation.module_isolation import users_name
from raftnode.foundation.names import fold
from raftnode.record.definition import TaskDefinition as TaskDefinition
from raftnode.record.model import Database, Progress, Task

if TYPE_CHECKING:
    from tasks.runtime.context import TaskContext

log = structlog.get_logger(__name__)

GROUP = "raftnode.tasks"
BUILT_IN = {"update": "tasks.kinds.update:KIND"}
"""Kinds that are no ongoing tasks of users, beside those of the entry points."""
SECTIONS = {
    "RavenEtl": "RavenEtls",
    "SqlEtl": "SqlEtls",
    "Backup": "PeriodicBackups",
    "Replication": "ExternalReplications",
}
"""RavenDB's sections of the database record by TaskType, there even when they are empty."""


class ConfigurationError(ValueError):
    """A task's configuration or a connection string is refused. The message names the field and the remedy."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        super().__init__(f"{field}: {problem}")


class TaskFailed(Exception):
    """Raised by a body when it cannot go on for now: it is shown, and the body is started again after a while."""


class RunSuperseded(TaskFailed):
    """A newer run of the task has reached the sink: this one ends, and only a new claim may go on."""


class TaskKind(Protocol):
    """What a kind provides. `name` is the TaskType of its tasks ("SqlEtl"): any name of letters and digits."""

    name: str

    def parse(self, configuration: Mapping[str, Any], database: Database) -> TaskDefinition:
        """Validate RavenDB's configuration JSON at the door. Raises ConfigurationError."""

    def run(self, context: "TaskContext") -> Coroutine[Any, Any, None]:
        """The body: runs until cancelled, and ends with all its threads and subprocesses gone. After an error it is
        called again a while later."""


@runtime_checkable
class TakesConnections(Protocol):
    """What a kind provides besides, if its tasks use connection strings of a type that is the kind's own ("Sql")."""

    connection_type: str

    def parse_connection(self, configuration: Mapping[str, Any], database: Database) -> None:
        """Validate the JSON of a connection string at the door. Raises ConfigurationError."""


@runtime_checkable
class ShowsMore(Protocol):
    """What a kind provides besides, if the info of its tasks has fields of its own in RavenDB's shape."""

    def shown(self, task: Task, connection: bytes | None, details: Mapping[str, Any]) -> Mapping[str, Any]:
        """These fields. `connection` is the JSON of the task's connection string, `details` what the run on the holder
        shows (see `RunFigures.details`), empty while nobody tells."""


@runtime_checkable
class ShowsProgress(Protocol):
    """The same for a kind whose fields tell of what its tasks have done, whoever did it."""

    def shown_with(self, task: Task, progress: Progress | None, details: Mapping[str, Any]) -> Mapping[str, Any]:
        """These fields. `progress` is the task's, as the record has it."""


@runtime_checkable
class ResetsTransforms(Protocol):
    """What a kind provides besides, if each transform of its tasks can begin again alone, see `Task.resets`."""

    resets_transforms: bool


@cache
def _entry_points() -> dict[str, EntryPoint]:
    ours = [EntryPoint(name=name, value=value, group=GROUP) for name, value in BUILT_IN.items()]
    found: dict[str, EntryPoint] = {}
    # A plug-in must not run in the place of a kind of ours, so those come first.
    for point in (*ours, *sorted(entry_points(group=GROUP), key=_is_users)):
        used = found.setdefault(_plain(point.name), point)
        if used.value != point.value:
            log.warning(
                "A task kind is not used, as another one has its name. Rename its entry point.",
                kind=point.name,
                ignored=point.value,
                used=used.value,
            )
    return found


def _is_users(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name != "raftnode"


def kinds() -> tuple[str, ...]:
    """The names of all kinds this node can run, sorted. Imports none: `sql_etl` is the entry point of "SqlEtl"."""
    return tuple(sorted(_spelt(point) for point in _entry_points().values()))


def definable() -> tuple[str, ...]:
    """The names of those of which users define tasks, sorted."""
    return tuple(name for name in kinds() if fold(name) not in BUILT_IN)


def section(kind: str) -> str:
    """The field of the database record that lists the tasks of that kind."""
    return SECTIONS.get(kind, f"{kind}s")


def load(name: str) -> TaskKind:
    """The kind of that name, however it is spelt ("SqlEtl", "sql_etl"). Imports it. Raises ConfigurationError."""
    point = _entry_points().get(_plain(name))
    if point is None:
        known = ", ".join(definable())
        raise ConfigurationError("TaskType", f"this node has no task kind '{name[:40]}'; it knows: {known}")
    try:
        return _imported(point)
    except Exception as error:
        raise ConfigurationError(
            "TaskType",
            f"the task kind '{name[:40]}' ({point.value}) cannot be loaded on this node: {described(error)}. Correct "
            "its package, or remove it, and start the node again",
        ) from error


def known(name: str) -> bool:
    """Whether this node has the kind of that name, loaded or not."""
    return _plain(name) in _entry_points()


def parsed(name: str, configuration: Mapping[str, Any], database: Database) -> TaskDefinition:
    """What the kind of that name makes of a configuration. Raises ConfigurationError, also where a plug-in fails in
    another way: it must not look like a defect of the node."""
    kind = load(name)
    spelt = _spelt(_entry_points()[_plain(name)])
    if not spelt.isalnum():
        problem = f"'{spelt[:40]}' may have letters and digits only; name its entry point so"
        raise ConfigurationError("TaskType", problem)
    try:
        definition = kind.parse(configuration, database)
    except ConfigurationError:
        raise
    except Exception as error:
        log.warning("A task kind failed to read a configuration.", kind=name, reason=described(error), exc_info=error)
        missing = isinstance(error, KeyError) and error.args and error.args[0] not in configuration
        remedy = "Is that field missing? Add it" if missing else "Correct the configuration, or the kind"
        raise ConfigurationError(
            "Configuration", f"the kind {name} cannot read it: {described(error)}. {remedy}"
        ) from error
    if not isinstance(definition, TaskDefinition):
        raise ConfigurationError(
            "TaskType", f"{name}.parse returned {type(definition).__name__}, not a tasks.kinds.registry.TaskDefinition"
        )
    if not _is_object(definition.configuration):
        raise ConfigurationError("TaskType", f"{name}.parse returned a configuration that is not a JSON object")
    # As nodes tell it of themselves, by which placement finds who can run it.
    return msgspec.structs.replace(definition, kind=spelt)


def described(error: Exception) -> str:
    """An error nobody expected, in one line. A bare message of a KeyError says nothing without its type."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@cache
def _imported(point: EntryPoint) -> TaskKind:
    if _is_users(point):
        # A user's package may have a module that is called as one of ours.
        point = EntryPoint(point.name, users_name(point.module) + point.value.removeprefix(point.module), point.group)
    kind: TaskKind = point.load()
    _LOADED[_plain(point.name)] = kind
    return kind


_LOADED: dict[str, TaskKind] = {}


def loaded(name: str) -> TaskKind | None:
    """The kind of that name if it has been imported here before, so that nobody needs to wait for that."""
    return _LOADED.get(_plain(name))


def _is_object(configuration: bytes) -> bool:
    try:
        return isinstance(from_python_json(configuration), dict)
    except ValueError:
        return False


def _spelt(point: EntryPoint) -> str:
    """The name of the kind under that entry point."""
    return "".join(part.capitalize() for part in point.name.split("_"))


def _plain(name: str) -> str:
    return fold(name.replace("_", ""))
