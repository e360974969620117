"""install() and uninstall(): regard's modules under flash-attn's names in sys.modules, and their exact removal.

Each installed module is an object of its own with flash-attn's name, a spec, and for packages a __path__ that leads to
a flash-attn on disk, so that parts which regard does not replace are still found there.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# flash-attn's name -> regard's module; parents come before their children.
_MODULES = {
    "flash_attn": "regard.flash_attn",
    "flash_attn.flash_attn_interface": "regard.flash_attn.flash_attn_interface",
    "flash_attn.bert_padding": "regard.flash_attn.bert_padding",
    "flash_attn.layers": "regard.flash_attn.layers",
    "flash_attn.layers.rotary": "regard.flash_attn.layers.rotary",
    "flash_attn.ops": "regard.flash_attn.ops",
    "flash_attn.ops.triton": "regard.flash_attn.ops.triton",
    "flash_attn.ops.triton.rotary": "regard.flash_attn.ops.triton.rotary",
    "flash_attn.cute": "regard.flash_attn.cute",
    "flash_attn.cute.interface": "regard.flash_attn.cute.interface",
    "flash_attn_interface": "regard.flash_attn.fa3.flash_attn_interface",
    "flash_attn_config": "regard.flash_attn.fa3.flash_attn_config",
    "flash_attn_3": "regard.flash_attn.fa3",
    "flash_attn_3.flash_attn_interface": "regard.flash_attn.fa3.flash_attn_interface",
    "flash_attn_3.flash_attn_config": "regard.flash_attn.fa3.flash_attn_config",
}
# Names of regard.flash_attn that flash-attn does not have.
_OURS = ("install", "uninstall")
_ROOTS = ("flash_attn", "flash_attn_interface", "flash_attn_config", "flash_attn_3")

# What sys.modules held under these names before install(); None while not installed.
_replaced: dict[str, ModuleType] | None = None


def install() -> None:
    """Makes `import flash_attn`, `flash_attn_interface`, `flash_attn_3` and their submodules find regard.

    Modules imported before keep what they have. A real flash-attn that was imported comes back with uninstall().
    Calling it twice is calling it once. It does not pretend that a distribution named flash-attn is installed: code
    that asks importlib.metadata, such as transformers' attn_implementation="flash_attention_2", still says that it is
    missing.
    """
    global _replaced
    if _replaced is not None:
        return
    targets = {name: importlib.import_module(target) for name, target in _MODULES.items()}
    paths = {name: _paths_on_disk(name) for name, target in targets.items() if hasattr(target, "__path__")}
    _replaced = _take_out()
    for name, target in targets.items():
        module = _copy(name, target, paths.get(name))
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    importlib.invalidate_caches()


def uninstall() -> None:
    """Undoes install(): sys.modules is as it was under these names. Without install() it does nothing."""
    global _replaced
    if _replaced is None:
        return
    _take_out()
    sys.modules.update(_replaced)
    _replaced = None
    importlib.invalidate_caches()


def _take_out() -> dict[str, ModuleType]:
    """Removes all flash-attn modules from sys.modules and returns them."""
    names = [name for name in sys.modules if name.partition(".")[0] in _ROOTS]
    return {name: sys.modules.pop(name) for name in names}


def _copy(name: str, target: ModuleType, path: list[str] | None) -> ModuleType:
    module = ModuleType(name, target.__doc__)
    module.__dict__.update({key: value for key, value in vars(target).items() if _is_content(key, value)})
    spec = ModuleSpec(name, _Loader(), origin=target.__file__, is_package=path is not None)
    if path is not None:
        spec.submodule_search_locations = module.__path__ = path
    module.__dict__.update(
        __spec__=spec, __loader__=spec.loader, __file__=target.__file__, __version__=_version(name),
        __package__=name if path is not None else name.rpartition(".")[0],
        __all__=[key for key in target.__all__ if key not in _OURS] if hasattr(target, "__all__") else [],
    )
    return module


def _is_content(key: str, value: Any) -> bool:
    """Functions, classes and constants; submodules are set by name."""
    return key not in _OURS and not key.startswith("__") and not isinstance(value, ModuleType)


def _version(name: str) -> str:
    """The version of flash-attn whose interface the module is."""
    if name.startswith("flash_attn.cute"):
        return "4.0.0"
    return "2.8.4" if name.partition(".")[0] == "flash_attn" else "3.0.0"


def _paths_on_disk(name: str) -> list[str]:
    """Folders of a package of this name that is installed, found without importing it; usually none."""
    search: list[str] | None = None
    for part in name.split("."):
        spec = PathFinder.find_spec(part, search)
        if spec is None or spec.submodule_search_locations is None:
            return []
        search = list(spec.submodule_search_locations)
    return search or []


class _Loader(Loader):
    """Loader of installed modules; they exist already, so there is nothing to create or to run."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return sys.modules.get(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        return None
