"""What people write, checked: YAML files, the types of settings, and one line on what is wrong."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from rftkit.common.errors import UserError

T = TypeVar("T")
STRICT = ConfigDict(strict=True, allow_inf_nan=False)
NEEDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_too_short": "a text",
    "string_unicode": "a text",  # bytes of a file name that are no UTF-8
}
BOUNDS = {
    "greater_than": "above {gt:.15g}",
    "greater_than_equal": "at least {ge:.15g}",
    "less_than_equal": "at most {le:.15g}",
}


def _number(value: Any) -> Any:
    """A text as its number, and 20.0 as 20: YAML reads 1e-5 as text, and flags are texts."""
    if isinstance(value, bool):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    except OverflowError:
        return math.inf
    return int(number) if number.is_integer() else number


Whole = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number)]
Text = Annotated[str, Field(min_length=1)]


def check_lists(**given: Any) -> None:
    """UserError if a parameter of a notebook is no list: of a text or a number papermill's `-p` makes none."""
    for name, value in given.items():
        if not isinstance(value, list | tuple) or not value:
            inside = str(value).strip("[]() ") or "..."
            said = f"'{name}' must be a list with something in it, not {value!r:.80}"
            raise UserError(f"{said}: give papermill -y '{{{name}: [{inside:.80}]}}'")


def choices(field: FieldInfo) -> list[str]:
    """The values of a field that has a closed list of them; none of another."""
    return [value for value in get_args(field.annotation) if isinstance(value, str)]


def checked(kind: type[T], values: dict[str, Any]) -> T:
    """A pydantic dataclass of these values; UserError, in the kit's words, on the first mistake."""
    try:
        return kind(**values)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
    case, value = found["type"], found["input"]
    if case == "value_error":
        raise UserError(str(found["ctx"]["error"]))
    name = found["loc"][0]
    if case == "literal_error":
        known = ", ".join(choices(kind.__pydantic_fields__[name]))
        raise UserError(f"unknown {name} '{value}': choose one of {known}")
    if case in BOUNDS:
        raise UserError(f"setting '{name}' must be {BOUNDS[case].format(**found['ctx'])}, not {float(value):.15g}")
    raise UserError(f"setting '{name}' needs {NEEDS[case]}, not '{value}'")


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file, not to be changed: it is kept for the next who asks. UserError if there is none."""
    try:
        content = _parsed(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{what} '{path}' is not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{what} '{path}' is not a YAML mapping")
    return content


@lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    """Parsed once: a study asks for the settings of hundreds of runs."""
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"'{twice[0]}' stands in it twice")
        return super().construct_mapping(node, deep)
