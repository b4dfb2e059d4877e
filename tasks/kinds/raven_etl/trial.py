"""A script of a RavenDB ETL on one document: the commands that it would send."""

from collections.abc import Sequence

import msgspec

from raftnode.foundation.names import fold
from tasks.etl.stream import TransformProgress
from tasks.etl.transform import TransformedDocument
from tasks.etl.trial import ScriptFailure, Trial, TrialTools, only, shown_output, transformed
from tasks.kinds.raven_etl import configuration as raven_configuration
from tasks.kinds.raven_etl.stream import RavenTransformStream


class RavenEtlTrialResult(msgspec.Struct, frozen=True, rename="pascal", kw_only=True):
    """RavenDB's RavenEtlTestScriptResult. The destination appends its own numbers to ids that end with a slash."""

    commands: Sequence[msgspec.Raw] = ()
    transformation_errors: Sequence[ScriptFailure] = ()
    debug_output: Sequence[str] = ()


async def try_script(trial: Trial, tools: TrialTools) -> RavenEtlTrialResult:
    """See `TriesScripts`."""
    etl = raven_configuration.parse(trial.configuration, trial.database)
    stream = RavenTransformStream(only(etl.transforms), TransformProgress(), "")
    document = trial.document
    if stream.as_is and stream.takes(document.collection):
        answer = TransformedDocument()
    else:
        answer = await transformed(stream, document, document, tools)
    reason = answer.error or stream.misplaced([(fold(target), body) for target, body in answer.rows])
    if reason is not None:
        failure = ScriptFailure(document.id, reason)
        return RavenEtlTrialResult(transformation_errors=[failure], debug_output=shown_output(answer))
    commands = stream.commands(document, answer, [stream]).commands
    return RavenEtlTrialResult(
        commands=[msgspec.Raw(command) for command in commands], debug_output=shown_output(answer)
    )
