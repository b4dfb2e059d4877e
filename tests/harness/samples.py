"""A small task of each kind that users may put, with the connection strings that these use."""

from typing import Any

CONNECTIONS: tuple[dict[str, Any], ...] = (
    {
        "Type": "Sql", "Name": "sql", "FactoryName": "Microsoft.Data.Sqlite",
        "ConnectionString": "Data Source=/nowhere/sample.sqlite",
    },
    {"Type": "Raven", "Name": "raven", "Database": "Other", "TopologyDiscoveryUrls": ["http://127.0.0.1:1"]},
)  # fmt: skip
TASKS: dict[str, dict[str, Any]] = {
    "Backup": {"FullBackupFrequency": "0 2 * * *", "LocalSettings": {"FolderPath": "/nowhere/backups"}},
    "RavenEtl": {
        "ConnectionStringName": "raven",
        "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders(this)"}],
    },
    "Replication": {"ConnectionStringName": "raven", "Database": "Other"},
    "SqlEtl": {
        "ConnectionStringName": "sql",
        "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id"}],
        "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({})"}],
    },
}
"""By kind; the name is to be added."""
