"""container.json, as the runner gets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_runner import providers
from nanotasks.agents import container_config
from nanotasks.agents.container_config import known_providers, require_provider
from nanotasks.central.groups import AgentGroup, ContainerConfig
from nanotasks.central.sessions import AgentSession
from nanotasks.errors import ConfigError, InvalidError
from nanotasks.settings import Settings


def _config(**values: object) -> ContainerConfig:
    defaults = {"skills": '"all"', "mcp_servers": "{}", "packages_apt": "[]", "packages_npm": "[]"}
    return ContainerConfig(agent_group_id="ag-1", **{**defaults, "additional_mounts": "[]", **values})


def _document(config: ContainerConfig, provider: str | None = None) -> dict[str, object]:
    group = AgentGroup(id="ag-1", name="Andy", folder="andy")
    return container_config.document(group, config, AgentSession(id="s1", agent_provider=provider), Settings())


@pytest.mark.parametrize(
    ("session", "config", "default", "name"),
    [
        (None, None, "auto", "demo"),
        (None, None, "Claude", "claude"),
        (None, "Mock", "claude", "mock"),
        ("Other", "mock", "claude", "other"),
        ("", " ", "", "demo"),
        ("auto", "mock", "claude", "demo"),
    ],
)
def test_provider_name(session: str | None, config: str | None, default: str, name: str) -> None:
    """Session before configuration before installation, in lower case; `auto` is the built-in one."""
    assert container_config.provider_name(session, config, default) == name


def test_a_plain_group() -> None:
    """The name stands in for the assistant's; what is not set is left out."""
    assert _document(_config()) == {
        "mcpServers": {},
        "packages": {"apt": [], "npm": []},
        "additionalMounts": [],
        "skills": "all",
        "provider": "demo",
        "groupName": "Andy",
        "assistantName": "Andy",
        "agentGroupId": "ag-1",
        "maxMessagesPerPrompt": 10,
        "hostAnswers": True,
    }


def test_a_full_configuration() -> None:
    """Every field reaches the file under NanoClaw 2's name."""
    config = _config(
        assistant_name="Bo",
        model="m",
        effort="high",
        image_tag="i:1",
        max_messages_per_prompt=3,
        skills='["writing"]',
        mcp_servers='{"web": {"command": "x"}}',
        packages_apt='["jq"]',
    )
    document = _document(config, "mock")
    assert (document["assistantName"], document["model"], document["effort"]) == ("Bo", "m", "high")
    assert (document["imageTag"], document["maxMessagesPerPrompt"], document["skills"]) == ("i:1", 3, ["writing"])
    assert (document["mcpServers"], document["packages"]) == (
        {"web": {"command": "x"}},
        {"apt": ["jq"], "npm": []},
    )
    assert document["provider"] == "mock"


@pytest.mark.parametrize("damaged", ["not json", "[]", "null"])
def test_a_damaged_field_is_named(damaged: str) -> None:
    """It says which field of which group, and how to mend it."""
    with pytest.raises(ConfigError, match="mcp_servers"):
        _document(_config(mcp_servers=damaged))


def test_the_file_is_written_whole(tmp_path: Path) -> None:
    """Pretty JSON, and nothing beside it."""
    path = container_config.write(tmp_path, {"groupName": "Zoë"})
    assert json.loads(path.read_text()) == {"groupName": "Zoë"}
    assert "Zoë" in path.read_text()
    assert [found.name for found in tmp_path.iterdir()] == ["container.json"]


@pytest.mark.parametrize("name", [None, "auto", "demo", "Mock"])
def test_a_provider_of_the_runner_is_taken(name: str | None) -> None:
    """None and `auto` are the built-in one."""
    require_provider(name)


def test_a_provider_that_the_runner_does_not_have_is_refused() -> None:
    """An agent with it could not be started; the nearest known one is named."""
    with pytest.raises(InvalidError, match="Did you mean demo"):
        require_provider("dema")


def test_the_known_providers_are_those_of_the_runner() -> None:
    """The host reads their names from the runner's folder, and imports nothing of it."""
    assert set(known_providers()) == set(providers._FACTORIES)
