"""Settings: one table (`config.schema`), loaded from a TOML file, variables and flags."""

from config.errors import Problem, SettingsError
from config.loader import load
from config.schema import InitialNode, Settings
from config.table import Setting, settings_table

__all__ = ["InitialNode", "Problem", "Setting", "Settings", "SettingsError", "load", "settings_table"]
