"""Loading of frozen, typed configuration from presets, YAML files and `--set` assignments.

An unknown key is refused; the message suggests the nearest valid name. The sections themselves lie beside the code that
they configure, or in `jobs.settings`.
"""

import ast
import difflib
import inspect
import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from prectr.core.errors import UsageError, quoted, shorten

_SHOWN_PROBLEMS = 10
"""Problems of a configuration that an error message names."""


class FrozenConfig(BaseModel):
    """Base class of every configuration section: immutable and typed; it refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    presets: ClassVar[Path | None] = None
    """Directory of the presets `NAME.yaml`, from which the field `preset` chooses; None if there are no presets."""


@dataclass(frozen=True)
class _Execution:
    """Marker of a field; see `Execution`."""


FieldType = TypeVar("FieldType")
Execution = Annotated[FieldType, _Execution()]
"""Type of a field that says how a stage runs (CPUs, GPUs, memory, copies), not what it computes. Such a field is
recorded with the artifact but is not part of its identity: a change of it does not make a finished stage run again."""

ConfigType = TypeVar("ConfigType", bound=FrozenConfig)


def load_config(
    config_class: type[ConfigType], file: Path | None = None, assignments: Sequence[str] = ()
) -> ConfigType:
    """Resolve a configuration from defaults, the preset that it names, `file` (YAML) and `a.b=value` assignments.

    Later sources of this list override earlier ones, key by key.

    >>> class Section(FrozenConfig):
    ...     rate: float = 0.5
    >>> class Settings(FrozenConfig):
    ...     training: Section = Section()
    >>> load_config(Settings, assignments=["training.rate=0.1"]).training.rate
    0.1
    >>> load_config(Settings, assignments=["training.raet=0.1"])
    Traceback (most recent call last):
    prectr.core.errors.UsageError: --set training.raet=0.1: unknown key 'training.raet'. Did you mean 'training.rate'?

    Raises:
        UsageError: a file cannot be read, a key or preset is unknown, or a value has the wrong type. The message names
            the key, where it was written and, for an unknown key or preset, the nearest valid one.
    """
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if file is not None:
        values = _read_yaml(file)
        origin = {path: str(file) for path in _leaf_paths(values)}
    for assignment in assignments:
        path, value = _parse_assignment(assignment)
        assign_path(values, path, value)
        origin[".".join(path)] = f"--set {shorten(assignment)}"
    values = _merged(_preset(config_class.presets, values.get("preset"), file), values)
    try:
        return config_class.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(error, config_class, origin)) from None


def dump_yaml(config: FrozenConfig) -> str:
    """The resolved configuration as YAML; `--config` reads it back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class SettingDoc(NamedTuple):
    """A setting: its dotted name, its value as JSON type, and its description."""

    name: str
    value: Any
    description: str


def setting_docs(config: FrozenConfig, prefix: str = "") -> list[SettingDoc]:
    """All settings of a configuration and its sections, in the order of their fields.

    A description is the docstring below the field, or its `Field(description=...)`. It is empty if there is neither.
    """
    docs: list[SettingDoc] = []
    docstrings = _field_docstrings(type(config))
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, FrozenConfig):
            docs += setting_docs(value, f"{prefix}{name}.")
        else:
            json_value = config.model_dump(mode="json", include={name})[name]
            description = field.description or docstrings.get(name, "")
            docs.append(SettingDoc(f"{prefix}{name}", json_value, " ".join(description.split())))
    return docs


def _field_docstrings(config_class: type[FrozenConfig]) -> dict[str, str]:
    """Docstrings below the fields of a class and of its bases, by field."""
    texts: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        if not issubclass(base, FrozenConfig) or base is FrozenConfig:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in itertools.pairwise(body.body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts[field.target.id] = str(text.value.value)
    return texts


def execution_fields(config_class: type[FrozenConfig]) -> tuple[str, ...]:
    """Names of the fields of type `Execution`."""
    return tuple(
        name
        for name, field in config_class.model_fields.items()
        if any(isinstance(mark, _Execution) for mark in field.metadata)
    )


def computed_part(config: FrozenConfig) -> dict[str, Any]:
    """The settings that decide a result, as JSON types: fields of type `Execution` are left out, at any depth."""
    return config.model_dump(mode="json", exclude=_execution(config))


def _execution(config: FrozenConfig) -> dict[str, Any]:
    """The `Execution` fields at any depth, in the form of pydantic's `exclude`."""
    sections = {name: getattr(config, name) for name in type(config).model_fields}
    inner = {name: _execution(value) for name, value in sections.items() if isinstance(value, FrozenConfig)}
    marked = dict.fromkeys(execution_fields(type(config)), True)
    return {name: fields for name, fields in inner.items() if fields} | marked


def _preset(folder: Path | None, name: Any, file: Path | None) -> dict[str, Any]:
    """The values of a preset. A name that is not a string gives no values; the validation then reports it."""
    if folder is None or not isinstance(name, str):
        return {}
    names = sorted(preset.stem for preset in folder.glob("*.yaml"))
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
        where = "" if file is None else f"{file} or --set: "
        raise UsageError(f"{where}preset {quoted(name)}: no such preset.{hint} There are {', '.join(names)}.")
    return _read_yaml(folder / f"{name}.yaml")


def _merged(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    """Merge two configurations key by key, at any depth; a value of `upper` replaces one of `lower`."""
    sections = {
        key: _merged(lower[key], value)
        for key, value in upper.items()
        if isinstance(value, dict) and isinstance(lower.get(key), dict)
    }
    return {**lower, **upper, **sections}


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: cannot read the configuration file ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not valid YAML: {shorten(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{file}: the configuration must be a mapping of sections, got {type(content).__name__}.")
    return content


def _parse_assignment(assignment: str) -> tuple[list[str], Any]:
    key, separator, text = assignment.partition("=")
    if not separator or not key.strip():
        raise UsageError(f"--set {shorten(assignment)}: write it as section.key=value.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    return [part.strip() for part in key.split(".")], value


def assign_path(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set `values[path[0]][path[1]]...` in place; create the sections that are missing."""
    for part in path[:-1]:
        inner = values.get(part)
        if not isinstance(inner, dict):
            inner = values[part] = {}
        values = inner
    values[path[-1]] = value


def _leaf_paths(values: dict[str, Any], prefix: str = "") -> list[str]:
    paths: list[str] = []
    for key, value in values.items():
        path = f"{prefix}{key}"
        paths.append(path)
        if isinstance(value, dict):
            paths.extend(_leaf_paths(value, f"{path}."))
    return paths


def _explain(error: ValidationError, config_class: type[FrozenConfig], origin: dict[str, str]) -> str:
    lines = []
    problems = error.errors()
    for problem in problems[:_SHOWN_PROBLEMS]:
        path = [str(part) for part in problem["loc"]]
        dotted = ".".join(path)
        related = [source for key, source in origin.items() if _within(dotted, key) or _within(key, dotted)]
        where = origin.get(dotted) or (related[-1] if related else "the configuration")
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key {quoted(dotted)}.{suggest_setting(config_class, path)}")
        else:
            lines.append(f"{where}: {quoted(dotted)}: {shorten(problem['msg'])} (got {quoted(problem.get('input'))}).")
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"{len(problems) - _SHOWN_PROBLEMS:,} more problems.")
    return "\n".join(lines)


def _within(path: str, section: str) -> bool:
    return path.startswith(section + ".")


def suggest_setting(config_class: type[FrozenConfig], path: list[str]) -> str:
    """A hint for an unknown key: the nearest valid key of its section, or else all its valid keys."""
    section: Any = config_class
    for part in path[:-1]:
        annotation = section.model_fields[part].annotation
        section = next((kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields")), None)
        if section is None:  # inside a list or mapping, which has no fixed keys
            return ""
    valid = list(section.model_fields)
    nearest = difflib.get_close_matches(path[-1], valid, n=1)
    if nearest:
        return f" Did you mean '{'.'.join([*path[:-1], nearest[0]])}'?"
    return f" Valid keys here: {', '.join(valid)}."
