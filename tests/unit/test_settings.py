"""Settings: one place, checked when loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agent_runner import providers
from nanotasks.domain.vocabulary import PROVIDERS
from nanotasks.errors import ConfigError
from nanotasks.settings import Settings, describe, env_name, load


def test_defaults_need_nothing() -> None:
    """An empty environment is a complete configuration."""
    settings = load({})
    assert settings.central_url.startswith("sqlite:///")
    assert settings.queue == f"host.{settings.host_id}"


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("NANOTASKS_MAX_CONTAINERS", "many", "valid int"),
        ("NANOTASKS_BELL_S", "1.5", "valid int"),
        ("NANOTASKS_FILE_THREADS", "perhaps", "valid bool"),
        ("NANOTASKS_RUNTIME", "dokcer", "Did you mean docker"),
        ("NANOTASKS_TIMEZONE", "Mars/Base", "IANA"),
        ("NANOTASKS_DATA_DIRR", "/x", "Did you mean NANOTASKS_DATA_DIR"),
    ],
)
def test_a_bad_value_names_the_variable_and_the_way_out(name: str, text: str, wanted: str) -> None:
    """An unreadable value or an unknown name is a configuration error that helps."""
    with pytest.raises(ConfigError, match=wanted) as caught:
        load({name: text})
    assert name in str(caught.value) or wanted == "IANA"
    assert caught.value.exit_code == 78


def test_switches_of_the_tests_are_no_settings() -> None:
    """What says that a test must not be skipped is nobody else's business."""
    load({"NANOTASKS_TEST_REQUIRE_DOCKER": "1"})


def test_storage_is_shared_where_a_directory_is_named(tmp_path: Path) -> None:
    """Sessions and workspaces are there, all else stays; its agents must bear that one sign of life is missing."""
    here = {"NANOTASKS_DATA_DIR": str(tmp_path / "data"), "NANOTASKS_SHARED_DIR": str(tmp_path / "shared")}
    settings = load(here)
    assert (settings.storage, settings.files_dir) == ("shared", tmp_path / "shared")
    assert settings.agent_lease_s == 20.0
    local = load({"NANOTASKS_DATA_DIR": str(tmp_path / "data")})
    assert (local.storage, local.files_dir) == ("local", tmp_path / "data")
    with pytest.raises(ConfigError, match="would stop themselves after 8 s") as refused:
        load({**here, "NANOTASKS_AGENT_LEASE_MARGIN_S": "20"})
    assert "NANOTASKS_HOST_TIMEOUT_S" in str(refused.value.fix)
    with pytest.raises(ConfigError, match="shared directory is too long"):
        load({**here, "NANOTASKS_SHARED_DIR": "/" + "x" * 400})


def test_a_child_gets_the_same_settings(tmp_path: Path) -> None:
    """The environment made from settings loads back to the same settings."""
    settings = load(
        {"NANOTASKS_DATA_DIR": str(tmp_path), "NANOTASKS_FILE_THREADS": "yes", "NANOTASKS_MAX_CONTAINERS": "7"}
    )
    assert load(settings.environment()) == settings


def test_every_setting_has_a_meaning_and_a_unit_where_it_is_a_quantity() -> None:
    """A number that is not a count says what it counts in."""
    for spec in dataclasses.fields(Settings):
        assert spec.metadata["meaning"], spec.name
        if spec.name.endswith(("_s", "_ms", "_mb", "_kb")):
            assert spec.metadata["unit"], spec.name
    assert {row["env"] for row in describe()} == {env_name(spec.name) for spec in dataclasses.fields(Settings)}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MAX_CONTAINERS", "0", "too small"),
        ("WORKER_CONCURRENCY", "-1", "too small"),
        ("GATEWAY_PORT", "-5", "too small"),
        ("GATEWAY_PORT", "65536", "too large"),
        ("LEASE_S", "nan", "valid float"),
        ("LEASE_S", "inf", "valid float"),
        ("SWEEP_DUE_PERIOD_S", "0", "too small"),
        ("PROVIDER", "dmeo", "Did you mean demo"),
        ("HOST_ID", "a b/c", "no host id"),
        ("REDIS_URL", "foo", "NANOTASKS_REDIS_URL"),
        ("REDIS_URL", "http://u:hush@x", "NANOTASKS_REDIS_URL"),
        ("WEBHOOK_OUTBOUND_URL", "foo", "http"),
    ],
)
def test_a_value_that_means_nothing_is_refused(name: str, value: str, said: str) -> None:
    """With the variable's name and a way out, and without a password."""
    with pytest.raises(ConfigError, match=said) as refused:
        load({f"NANOTASKS_{name}": value})
    assert refused.value.fix
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("name", ["PROVIDER", "RUNTIME", "HOST_ID", "TIMEZONE", "MAX_CONTAINERS"])
def test_an_empty_value_means_the_default(name: str) -> None:
    """As in an env file in which nothing was filled in."""
    assert load({f"NANOTASKS_{name}": ""}) == load({})


def test_the_providers_are_those_of_the_runner() -> None:
    """The host imports nothing of the runner, so their names stand in both."""
    assert set(PROVIDERS) == {"auto", *providers._FACTORIES}
