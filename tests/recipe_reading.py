"""What an emitted recipe of Megatron-Bridge sets, read without running it."""

import ast
from typing import Any

Sections = dict[str, dict[str, Any]]


def read_recipe(text: str) -> Sections:
    """Give the literal values that a recipe sets, by section; those of CommOverlapConfig too."""
    found: Sections = {}
    function = next(node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    for statement in function.body:
        if not isinstance(statement, ast.Assign):
            continue
        path, value = ast.unparse(statement.targets[0]).split("."), statement.value
        if path[0] == "cfg" and isinstance(value, ast.Call) and ast.unparse(value.func) == "CommOverlapConfig":
            found["comm_overlap"] = {str(word.arg): ast.literal_eval(word.value) for word in value.keywords}
        elif len(path) == 3 and not isinstance(value, ast.Call):
            found.setdefault(path[1], {})[path[2]] = ast.literal_eval(value)
    return found


def recipe_of_format(text: str) -> str | None:
    """Give the name of the mixed precision that a recipe starts from."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "get_mixed_precision_config":
            return str(ast.literal_eval(node.args[0]))
    return None
