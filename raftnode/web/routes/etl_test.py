"""RavenDB's routes that try a script of an ETL on one document. Nothing is stored."""

import msgspec
from aiohttp import web
from msgspec.structs import replace

from raftnode.foundation.names import fold
from raftnode.record.model import ConnectionString, Database
from raftnode.web.errors import bad_request
from raftnode.web.requests import Input, answer, body, not_supported
from raftnode.web.routes.connection_strings import check_connection
from raftnode.web.routes.tasks import checked_by_kind
from raftnode.web.services import SERVICES
from raftnode.web.stores import existing_database, store_to_read
from raftnode.web.views.base import Json
from tasks.etl.trial import Trial, TrialTools, TriesScripts
from tasks.kinds.registry import ConfigurationError, kinds, known, load


class EtlTest(Input, frozen=True, kw_only=True):
    """What to try. `connection` is a connection string that is not stored; without it the stored one is used."""

    document_id: str
    configuration: Json
    connection: Json | None = None
    is_delete: bool = False
    perform_rolled_back_transaction: bool = False


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.post("/databases/{database}/admin/etl/{kind}/test", try_script)]


async def try_script(request: web.Request) -> web.Response:
    """What the one transform of a configuration would make of a document, or of its deletion."""
    given, database = await body(request, EtlTest), existing_database(request)
    type = request.match_info["kind"]
    if not known(f"{type}Etl"):
        types = ", ".join(name.removesuffix("Etl").lower() for name in kinds() if name.endswith("Etl"))
        raise bad_request(f"The path has '{type[:40]}', which is no type of ETL. Write one of: {types}.")
    kind = await checked_by_kind(lambda: load(f"{type}Etl"))
    if not isinstance(kind, TriesScripts):
        names = ", ".join(name for name in kinds() if name.endswith("Etl"))
        raise not_supported(f"A test of the kind {kind.name}", f"ETLs are: {names}.")
    if given.connection is not None:
        database = await _with(database, given.connection)
    services, store = request.app[SERVICES], await store_to_read(request)
    [document] = await store.get([given.document_id])
    if document is None:
        raise bad_request(f"'DocumentId': there is no document '{given.document_id[:200]}'. Give the id of one.")
    if given.is_delete:
        document = replace(document, deleted=True, body=b"")
    environment = services.supervisor.environment
    trial = Trial(
        configuration=given.configuration,
        database=database,
        document=document,
        rolled_back=given.perform_rolled_back_transaction,
    )
    tools = TrialTools(node=services.tag, settings=environment.settings, shared=environment.shared, load=store.get)
    try:
        return answer(await kind.try_script(trial, tools))
    except ConfigurationError as error:
        raise bad_request(str(error)) from None


async def _with(database: Database, given: Json) -> Database:
    """The database with that connection string, which the record does not have."""
    type, name = str(given.get("Type") or ""), str(given.get("Name") or "")
    await check_connection(type, given, database)
    string = ConnectionString(name=name, type=type, configuration=msgspec.json.encode(given))
    return replace(database, connection_strings=database.connection_strings.set(fold(name), string))
