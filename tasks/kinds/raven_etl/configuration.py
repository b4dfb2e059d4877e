"""The configuration of a RavenDB ETL task, RavenDB's, and what is refused at the door."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from raftnode.foundation.names import fold
from raftnode.record.model import Database
from tasks.etl.configuration import TransformConfiguration, check_requires, check_script, check_transforms
from tasks.etl.transform import Transform, behaviors, targets
from tasks.kinds.fitting import fitted
from tasks.kinds.registry import ConfigurationError
from tasks.sinks.documents.commands import SAME_ID, places

TIMEOUT_S = 300
TIMEOUT_S_MAX = 24 * 3600
POSTFIX_LENGTH_MAX = 128

_REMOVED = re.compile(r"\breplicateTo\w*\s*\(")
_OF_COLLECTION = re.compile(r"deleteDocumentsOf(\w+)Behavior")


class RavenTransformConfiguration(TransformConfiguration, frozen=True, rename="pascal"):
    """RavenDB's Transformation."""

    document_id_postfix: str | None = None


class RavenEtlConfiguration(msgspec.Struct, frozen=True, rename="pascal"):
    """RavenDB's RavenEtlConfiguration. `requires` is ours: the labels that a node must have to run the task."""

    name: str = ""
    connection_string_name: str = ""
    transforms: tuple[RavenTransformConfiguration, ...] = ()
    mentor_node: str | None = None
    pin_to_mentor_node: bool = False
    disabled: bool = False
    load_request_timeout_in_sec: int | None = None
    allow_etl_on_non_encrypted_channel: bool = False
    requires: tuple[str, ...] = ()

    @property
    def timeout_s(self) -> int:
        """How long the destination may take for a batch."""
        return self.load_request_timeout_in_sec or TIMEOUT_S


def parse(configuration: Mapping[str, Any], database: Database) -> RavenEtlConfiguration:
    """The configuration with its names filled in. Raises ConfigurationError."""
    etl = fitted(configuration, RavenEtlConfiguration)
    string = database.connection_strings.get(fold(etl.connection_string_name))
    if string is None or string.type != "Raven":
        known = ", ".join(sorted(s.name for s in database.connection_strings.values() if s.type == "Raven")) or "none"
        problem = f"there is no RavenDB connection string '{etl.connection_string_name}'; known: {known}"
        raise ConfigurationError("ConnectionStringName", problem)
    if etl.load_request_timeout_in_sec is not None and not 1 <= etl.load_request_timeout_in_sec <= TIMEOUT_S_MAX:
        problem = f"is {etl.load_request_timeout_in_sec}; give 1 to {TIMEOUT_S_MAX} seconds, or null for {TIMEOUT_S}"
        raise ConfigurationError("LoadRequestTimeoutInSec", problem)
    check_transforms(etl.transforms)
    for transform in etl.transforms:
        _check_transform(transform)
    _check_shared(etl.transforms)
    check_requires(etl.requires)
    return replace(etl, name=etl.name.strip() or f"Raven ETL to {string.name}", connection_string_name=string.name)


def _check_transform(transform: RavenTransformConfiguration) -> None:
    where, script = f"of transform '{transform.name}'", transform.script
    postfix = transform.document_id_postfix or ""
    if len(postfix) > POSTFIX_LENGTH_MAX or not postfix.isprintable() or not {"/", "|"}.isdisjoint(postfix):
        problem = f"{where} must have at most {POSTFIX_LENGTH_MAX} characters, and no slash or bar"
        raise ConfigurationError("Transforms.DocumentIdPostfix", problem)
    if not script.strip():
        return
    if _REMOVED.search(script):
        raise ConfigurationError("Transforms.Script", f"{where} calls replicateTo, an old name; call loadTo")
    if not targets(script):
        problem = f"{where} loads nothing; call loadTo<Collection>({{...}}), or leave it empty to send documents as is"
        raise ConfigurationError("Transforms.Script", problem)
    _check_behaviors(transform, where)
    check_script(partial(Transform, transform.name, script, documents=True))


def _check_behaviors(transform: RavenTransformConfiguration, where: str) -> None:
    names = behaviors(transform.script)
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError("Transforms.Script", f"{where} declares {name} twice; declare it once")
        of = _OF_COLLECTION.fullmatch(name)
        known = {fold(collection) for collection in transform.collections}
        if of is not None and known and fold(of[1]) not in known:
            problem = f"{where} declares {name}, and '{of[1]}' is none of its Collections; add it there, or remove it"
            raise ConfigurationError("Transforms.Script", problem)


def _check_shared(transforms: tuple[RavenTransformConfiguration, ...]) -> None:
    """Refuses two transforms that would write the same documents: what one loads the other would delete."""
    for place, one in enumerate(transforms):
        for other in transforms[:place]:
            mine, theirs = ({fold(c) for c in t.collections} for t in (one, other))
            apart = mine.isdisjoint(theirs) and not (one.apply_to_all_documents or other.apply_to_all_documents)
            if not apart and any(_overlap(a, b) for a in all_places(one) for b in all_places(other)):
                raise ConfigurationError(
                    "Transforms",
                    f"'{other.name}' and '{one.name}' load the same documents under the same ids, or one below what "
                    "the other deletes; give both a DocumentIdPostfix, or one other Collections or another target",
                )


def _overlap(one: str, other: str) -> bool:
    """Whether what is deleted in one place may be in the other one. Ids are compared without their case, and all below
    a prefix goes."""
    mine, theirs = fold(one), fold(other)
    if mine.startswith(SAME_ID) or theirs.startswith(SAME_ID):
        return mine == theirs
    return mine.startswith(theirs) or theirs.startswith(mine)


def all_places(transform: RavenTransformConfiguration) -> list[str]:
    """Where a transform may write, as in `commands.places`, whatever the collection of the document is."""
    named, postfix = targets(transform.script), transform.document_id_postfix or ""
    collections = transform.collections or (*named, "")
    return list(dict.fromkeys(place for one in collections for place in places(one, named, postfix)))
