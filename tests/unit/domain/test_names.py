"""Names and acceptance checks, against the recorded behaviour of NanoClaw 2 (`tests/data/names.json`)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanotasks.domain import names

CASES = json.loads((Path(__file__).parents[2] / "data" / "names.json").read_text())["cases"]


def attachment_name(attachment: dict[str, Any]) -> str:
    return re.sub(r"attachment-\d+", "attachment-<TS>", names.derive_attachment_name(attachment, 1))


def package_name(name: str) -> dict[str, bool]:
    apt, npm = names.is_apt_package(name), names.is_npm_package(name)
    return {"apt_tool": apt, "npm_tool": npm, "apt_host": apt, "npm_host": npm}


def one_after_the_other(make: Any, wanted: list[str], existing: list[str]) -> list[str]:
    made: list[str] = []
    for name in wanted:
        made.append(make(name, {*existing, *made}))
    return made


RULES = {
    "normalize_name": names.normalize_name,
    "valid_group_folder": names.is_group_folder,
    "namespaced_platform_id": lambda given: names.namespaced_platform_id(given["channel"], given["raw"]),
    "safe_attachment_name": names.is_safe_name,
    "derive_attachment_name": attachment_name,
    "container_name_accepted": names.is_container_name,
    "package_name": package_name,
    "package_count_host": lambda given: names.is_package_count(given["apt"], given["npm"]),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['fn']}-{str(case['input'])[:20]!r}")
def test_recorded_behaviour(case: dict[str, Any]) -> None:
    """Every rule gives the recorded result; a MIME type named like a JavaScript property has no extension."""
    if case["fn"] == "new_group_folders":
        found: Any = one_after_the_other(names.group_folder, case["input"], case["existing_folders"])
    else:
        found = RULES[case["fn"]](case["input"])
    assert found == ("attachment-<TS>" if "js_prototype_key" in case.get("tags", ()) else case["out"])


def test_wired_chats_get_names_of_their_own() -> None:
    """A chat's destination is its normalised name, else channel and id; a taken name gets a number."""
    chats = [("Family", "mg-1"), ("family!", "mg-2"), (None, "mg-123456789"), ("", "mg-123456789")]
    taken: list[str] = []
    for name, chat_id in chats:
        taken.append(names.chat_local_name(name, "telegram", chat_id, taken))
    assert taken == ["family", "family-2", "telegram-mg-12345", "telegram-mg-12345-2"]


@given(st.text(), st.sets(st.sampled_from(["unnamed", "a", "a-2", "b"])))
def test_a_folder_is_always_new_and_plain(name: str, taken: set[str]) -> None:
    """Whatever a person types, the folder is free and one plain path component."""
    folder = names.group_folder(name, taken)
    assert folder not in taken
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", folder)


@given(st.text())
def test_a_safe_name_stays_one_component(name: str) -> None:
    """A name that is called safe cannot leave its folder."""
    if names.is_safe_name(name):
        assert Path("/box", name).parent == Path("/box") and "\0" not in name
