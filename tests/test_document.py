"""Files that are wrong, hostile or not files at all: one InputError that names the file, and the line or the field."""

import json
import os
import unicodedata
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.document import (
    MAXIMUM_BYTES,
    MAXIMUM_DEPTH,
    parse_json,
    parse_yaml,
    read_document,
    read_text,
    validate,
)
from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import find_cluster, find_model
from meshwright.catalog.model_entry import ModelEntry

LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


def _complaint(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_document(path)
    assert caught.value.file == str(path)
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("laughs.yaml", LAUGHS.encode(), r"line 2: aliases \(\*a\) aren't accepted"),
        ("tag.yaml", b"a: 1\nb: !!int ''\n", r"line 2: tags \(tag:yaml.org,2002:int\) aren't accepted"),
        ("object.yaml", b"!!python/object/apply:os.system [ls]\n", "line 1: tags"),
        ("set.yaml", b"? !!set {a}\n: 1\n", "line 1: tags"),
        ("twice.yaml", b"a: 1\nb: 2\na: 3\n", "line 3, column 1: .*the key 'a' is given twice"),
        ("inner-twice.yaml", b"a:\n  - {b: 1, b: 2}\n", "line 2, column 12: .*the key 'b' is given twice"),
        ("key.yaml", b"? [a, b]\n: 1\n", "line 1, column 3: .*a key must be plain text"),
        ("tab.yaml", b"a: 1\n\tb: 2\n", "line 2, column 1: is not valid YAML"),
        ("open.yaml", b"a: [1, 2\nb: 3\n", "line 2, column 2: is not valid YAML"),
        ("two.yaml", b"a: 1\n---\nb: 2\n", "line 2, column 1: is not valid YAML: .*another document"),
        ("deep.yaml", b"a:\n  " + b"[" * 100_000, "line 2: nested more than 64 deep"),
        ("date.yaml", b"a: 2024-13-45\n", "is not valid YAML: month must be in 1..12"),
        ("digits.yaml", b"a: " + b"9" * 5_000, "is not valid YAML: Exceeds the limit"),
        ("clock.yaml", b"a: 1" + b":1" * 2_000_000, "line 1: a value longer than 100,000 characters"),
        ("control.yaml", b"a: \x01\n", "is not valid YAML"),
        ("null.yaml", b"a: b\0c\n", "is binary, not text"),
        ("binary.yaml", bytes(range(256)), "is not UTF-8 text"),
        ("latin.yaml", "a: café".encode("latin-1"), "is not UTF-8 text"),
        ("open.json", b'{"a": 1,\n "b": }', "line 2, column 7: is not valid JSON"),
        ("twice.json", b'{"a": 1, "a": 2}', "is not valid JSON: the key 'a' is given twice"),
        ("digits.json", b"9" * 5_000, "is not valid JSON: Exceeds the limit"),
        ("deep.json", b"[" * 200_000, "is nested too deep"),
        ("empty.json", b"", "line 1, column 1: is not valid JSON"),
    ],
)
def test_a_bad_file_is_one_error_that_says_where(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert _complaint(path).exit_code == 2
    with pytest.raises(InputError, match=complaint):
        read_document(path)


def test_billions_of_nodes_are_never_built(tmp_path: Path) -> None:
    path = tmp_path / "laughs.yaml"
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path.write_text("\n".join(lines))
    assert "aliases (*a0)" in _complaint(path).message


def test_a_file_of_100_mb_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(100 * 2**20)
    assert "is 100 MiB; at most 16 MiB are read" in str(_complaint(path))


def test_the_limits_themselves_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(b" " * MAXIMUM_BYTES)
    assert len(read_text(path)) == MAXIMUM_BYTES
    nested: Any = parse_yaml("[" * MAXIMUM_DEPTH + "]" * MAXIMUM_DEPTH, file="nested")
    for _ in range(MAXIMUM_DEPTH - 1):
        (nested,) = nested
    assert nested == []


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in str(_complaint(tmp_path / "missing.yaml"))
    assert "is a directory, not a file" in str(_complaint(tmp_path))
    assert "embedded null" in str(_complaint(Path("a\0b.yaml")))
    assert "File name too long" in str(_complaint(tmp_path / ("x" * 5_000 + ".yaml")))
    fifo = tmp_path / "pipe.yaml"
    os.mkfifo(fifo)
    assert "is not a regular file" in str(_complaint(fifo))
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    assert "can't be read" in str(_complaint(loop))


@pytest.mark.parametrize(("name", "text"), [("a.yaml", "a: 1\n"), ("a.json", '{"a": 1}')])
def test_a_byte_order_mark_is_not_content(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_document(path) == {"a": 1}


@given(st.text(max_size=60))
def test_no_text_escapes_as_another_exception(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        complaints = ["any"]
        try:
            parse(text, file="any")
        except InputError as error:
            complaints.append(error.file)
        assert set(complaints) == {"any"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    )
)
def test_what_was_written_is_read(document: object) -> None:
    assert parse_json(json.dumps(document), file="any") == document
    assert parse_yaml(yaml.safe_dump(document), file="any") == document


def _cluster(**changes: object) -> dict[str, Any]:
    tier = {
        "name": "all",
        "group": None,
        "topology": "switch",
        "bandwidth": "1 GB/s",
        "latency": "1 us",
        "startup": "1 us",
        "efficiency": 0.5,
    }
    whole = {"name": "mine", "device": "mi300x", "devices": 8, "devices_per_node": 8, "source": "a test"}
    return whole | {"tiers": [tier | {"source": "a test"}]} | changes


def _device_document() -> dict[str, Any]:
    document: dict[str, Any] = parse_yaml(
        (files("meshwright.catalog") / "devices/mi300x.yaml").read_text(), file="mi300x"
    )
    return document


def _refused(document: object) -> InputError:
    with pytest.raises(InputError) as caught:
        validate(ClusterEntry, document, file="mine.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("changes", "field", "complaint"),
    [
        ({"devices": 0}, "devices", "greater than or equal to 1"),
        ({"devices": -8}, "devices", "greater than or equal to 1"),
        ({"devices": "8"}, "devices", "must be a whole number"),
        ({"devices": "1e3"}, "devices", "whole number, not '1e3', which YAML reads as text; write it without quotes"),
        ({"devices": 8.5}, "devices", "must be a whole number"),
        ({"devices": True}, "devices", "must be a whole number"),
        ({"nodes": 4}, "nodes", "is not a known key"),
        ({"tiers": []}, "tiers", "at least 1 item"),
        ({"source": ""}, "source", "at least 4 characters"),
    ],
)
def test_the_error_leads_to_the_field(changes: dict[str, object], field: str, complaint: str) -> None:
    error = _refused(_cluster(**changes))
    assert error.path == field
    assert str(error).startswith(f"mine.yaml: {field}: ")
    assert complaint in str(error)


def _tier(group: int | None) -> dict[str, Any]:
    return _cluster()["tiers"][0] | {"group": group}


@pytest.mark.parametrize(
    ("groups", "number", "complaint"),
    [
        ((8,), 0, "must be null"),
        ((None, None), 0, "only the outermost"),
        ((2, None, None), 1, "only the outermost"),
        ((4, 4, None), 1, "aren't whole tiers of the 4"),
        ((4, 2, None), 1, "aren't whole tiers of the 4"),
        ((3, None), 0, "3 devices are neither whole nodes of devices_per_node 8 nor fill one"),
        ((4, 12, None), 1, "12 devices are neither whole nodes"),
    ],
)
def test_a_tier_that_does_not_nest_is_told_by_its_path(
    groups: tuple[int | None, ...], number: int, complaint: str
) -> None:
    error = _refused(_cluster(tiers=[_tier(group) for group in groups]))
    assert error.path == f"tiers.{number}.group"
    assert complaint in error.message
    assert validate(ClusterEntry, _cluster(tiers=[_tier(2), _tier(8), _tier(24), _tier(None)]), file="").devices == 8


MODEL: dict[str, Any] = {
    "name": "mine",
    "source": "a test",
    "layers": 4,
    "hidden": 1024,
    "heads": 32,
    "kv_heads": 8,
} | {
    "head_dim": 32,
    "ffn_hidden": 4096,
    "gated_mlp": True,
    "vocab": 32000,
    "tied_embeddings": False,
}
MIXTURE = {"experts": 8, "top_k": 2, "ffn_hidden": 512}


@pytest.mark.parametrize(
    ("changes", "path", "complaint"),
    [
        ({"heads": 33}, "kv_heads", "heads 33 must be a multiple of kv_heads 8"),
        ({"positions": "learned"}, "max_positions", "learned positions need max_positions"),
        ({"experts": MIXTURE | {"top_k": 9}}, "experts.top_k", "9 of 8 experts can't be chosen"),
        ({"experts": MIXTURE | {"groups": 3}}, "experts.groups", "8 experts can't be shared evenly by 3 groups"),
        ({"experts": MIXTURE | {"groups_per_token": 2}}, "experts.groups_per_token", "2 of 1 groups can't be chosen"),
        (
            {"experts": MIXTURE | {"groups": 8}},
            "experts.groups_per_token",
            "hold 1 experts, fewer than the 2 of a token",
        ),
        ({"experts": MIXTURE | {"dense_layers": 4}}, "experts.dense_layers", "4 of 4 layers leave no layer"),
        ({"name": "a\nb"}, "name", r"printable characters only, not '\n'"),
    ],
)
def test_fields_that_contradict_one_another_are_told_by_path(
    changes: dict[str, object], path: str, complaint: str
) -> None:
    assert validate(ModelEntry, MODEL, file="mine.yaml").layers == 4
    with pytest.raises(InputError) as caught:
        validate(ModelEntry, MODEL | changes, file="mine.yaml")
    assert caught.value.path == path
    assert complaint in caught.value.message


@given(st.text(min_size=1, max_size=30))
def test_a_name_holds_nothing_that_a_terminal_acts_on(name: str) -> None:
    unprintable = any(unicodedata.category(character)[0] in "CZ" and character != " " for character in name)
    try:
        accepted = validate(ModelEntry, MODEL | {"name": name}, file="mine.yaml").name == name
    except InputError as error:
        accepted = error.path != "name" or not error.message.isprintable()
    assert accepted is not unprintable


@pytest.mark.parametrize("character", ["\n", "\x1b", "\x9b", "\x7f", "\u202e", "\0"])
def test_control_characters_in_any_name_are_refused(character: str) -> None:
    tier = _tier(None) | {"name": f"a{character}b"}
    assert _refused(_cluster(tiers=[tier])).path == "tiers.0.name"
    assert _refused(_cluster(name=f"a{character}b")).path == "name"
    assert _refused(_cluster(device=f"a{character}b")).path == "device"


def test_a_name_taken_from_the_name_of_a_file_is_held_to_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a\nb.json"
    file.write_text((Path(__file__).parent / "hugging_face" / "llama-3.1-8b.json").read_text("utf-8"))
    with pytest.raises(InputError, match="name: must hold printable characters only"):
        find_model(str(file))


def test_the_error_leads_into_lists_and_to_what_is_missing() -> None:
    document = _cluster()
    del document["tiers"][0]["latency"]
    assert _refused(document).path == "tiers.0.latency"
    assert str(_refused(document)) == "mine.yaml: tiers.0.latency: is missing"


def test_several_errors_are_counted() -> None:
    assert str(_refused(_cluster(devices=0, nodes=1))).endswith("(and 1 more)")


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_a_document_that_is_no_mapping_is_refused(document: object) -> None:
    assert _refused(document).path == ""


def test_a_device_written_out_in_a_cluster_is_checked_like_a_file() -> None:
    device = _device_document()
    device["memory"]["capacity"] = 192
    error = _refused(_cluster(device=device))
    assert error.path == "device.memory.capacity"
    assert "needs a number with its unit" in str(error)
    assert "more" not in str(error)


def test_a_device_file_without_a_section_names_it() -> None:
    device = _device_document()
    del device["host"]
    with pytest.raises(InputError) as caught:
        validate(DeviceEntry, device, file="mine.yaml")
    assert caught.value.path == "host"
    assert "mine.yaml: host: is missing" in str(caught.value)


def test_a_cluster_file_of_the_user_is_found_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ndevice: mi300x\ndevices: 8\ndevices_per_node: 8\nsource: a test\ntiers:\n"
        "- {name: all, group: null, topology: switch, bandwidth: 1 GB/s, latency: 1 us, efficiency: 0.5,\n"
        "   startup: 1 us, source: a test}\n"
    )
    assert find_cluster(str(path)).devices == 8
    assert find_cluster(f"{path}:32").devices == 32
    path.write_text(path.read_text().replace("1 GB/s", "1"))
    with pytest.raises(InputError) as caught:
        find_cluster(str(path))
    assert (caught.value.file, caught.value.path) == (str(path), "tiers.0.bandwidth")
