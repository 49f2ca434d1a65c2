"""`config show` and `config explain`: the resolved configuration, and what its settings mean."""

from typing import Annotated, Any

import typer

from jobs.options import Answer, command
from jobs.settings import Settings
from prectr.core.config import FrozenConfig, dump_yaml, setting_docs, suggest_setting
from prectr.core.errors import UsageError
from prectr.core.secrets import masked


@command("config show")
def show(
    *,
    section: Annotated[str | None, typer.Argument(help="A section or setting, such as serve or serve.batch.")] = None,
    docs: Annotated[bool, typer.Option("--docs", help="Print what each setting means, with its value.")] = False,
    settings: Settings,
) -> Answer:
    """The resolved configuration, which `--config` reads back, or one section of it.

    Raises:
        UsageError: no such section or setting.
    """
    if docs:
        return explain(setting=section, settings=settings)
    if section is None:
        return Answer(settings.model_dump(mode="json"), show=lambda: print(masked(dump_yaml(settings).rstrip())))
    part = _part(settings, section)
    if not isinstance(part, FrozenConfig):
        return Answer({section: part}, show=lambda: print(masked(f"{section}: {part}")))
    return Answer(part.model_dump(mode="json"), show=lambda: print(masked(dump_yaml(part).rstrip())))


@command("config explain")
def explain(
    *,
    setting: Annotated[
        str | None, typer.Argument(help="A setting or section, such as train.epochs or serve.batch; all by default.")
    ] = None,
    settings: Settings,
) -> Answer:
    """What settings mean: their names, values and descriptions.

    Raises:
        UsageError: no such section or setting.
    """
    if setting is not None:
        _part(settings, setting)
    entries = [
        entry
        for entry in setting_docs(settings)
        if setting is None or entry.name == setting or entry.name.startswith(f"{setting}.")
    ]

    def show_all() -> None:
        for entry in entries:
            print(f"{entry.name} = {masked(str(entry.value))}\n    {entry.description}")

    content = [{"setting": entry.name, "value": entry.value, "description": entry.description} for entry in entries]
    return Answer(content, show=show_all)


def _part(settings: FrozenConfig, path: str) -> Any:
    """The section or value at a dotted path.

    Raises:
        UsageError: there is none; names the nearest.
    """
    part: Any = settings
    names = path.split(".")
    for number, name in enumerate(names, start=1):
        if not isinstance(part, FrozenConfig) or name not in type(part).model_fields:
            hint = suggest_setting(type(settings), names[:number])
            if not hint:
                hint = f" '{'.'.join(names[: number - 1])}' has no settings below it."
            raise UsageError(f"config: no setting '{path}'.{hint}")
        part = getattr(part, name)
    return part
