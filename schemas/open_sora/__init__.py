"""Open-Sora's own configs: reading them without running them, and both ways between their keys and osora's."""

from schemas.open_sora.exporting import Export, export_layer, export_recipe
from schemas.open_sora.files import export_file
from schemas.open_sora.importing import Import, import_config
from schemas.open_sora.leftovers import Leftover
from schemas.open_sora.source import Config, ConfigError, read_config

__all__ = [
    "Config",
    "ConfigError",
    "Export",
    "Import",
    "Leftover",
    "export_file",
    "export_layer",
    "export_recipe",
    "import_config",
    "read_config",
]
