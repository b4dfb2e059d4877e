"""Where settings come from, and what is refused."""

from pathlib import Path

import pytest

from config import Settings, SettingsError, load, settings_table
from config.errors import Problem
from config.timings import PROFILES


def refused(
    file: Path | None = None, env: dict[str, str] | None = None, flags: dict[str, str] | None = None
) -> dict[str, Problem]:
    with pytest.raises(SettingsError) as caught:
        load(file, env or {}, flags or {})
    text = str(caught.value)
    for problem in caught.value.problems:
        assert problem.key in text
        assert problem.rule in text
        assert problem.remedy in text
    return {problem.key: problem for problem in caught.value.problems}


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "raftnode.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_nothing_given_is_a_node_alone_on_loopback() -> None:
    settings = load(None, {}, {})
    assert settings == Settings()
    assert settings.url == "http://127.0.0.1:8080"
    assert settings.cluster_address == "127.0.0.1:38888"
    assert not settings.secured


def test_each_source_overrides_the_one_before(tmp_path: Path) -> None:
    file = written(tmp_path, '[http]\nport = 1001\nhost = "127.0.0.2"\n[log]\nlevel = "error"\n')
    env = {"RAFTNODE_HTTP_PORT": "1002", "RAFTNODE_LOG_LEVEL": "debug"}
    settings = load(file, env, {"http.port": "1003"})
    assert settings.http.host == "127.0.0.2"
    assert settings.log.level == "debug"
    assert settings.http.port == 1003


def test_a_profile_sets_its_timings_and_single_timings_override_it(tmp_path: Path) -> None:
    file = written(tmp_path, "[cluster]\ntask_stop_timeout_ms = 140\n")
    cluster = load(file, {"RAFTNODE_CLUSTER_LEASE_MS": "440"}, {"cluster.profile": "fast"}).cluster
    assert cluster.heartbeat_ms == 40
    assert cluster.lease_ms == 440
    assert cluster.task_stop_timeout_ms == 140
    assert cluster.time_before_moving_to_rehab_ms == 750


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_keeps_the_rules(profile: str) -> None:
    cluster = load(None, {}, {"cluster.profile": profile}).cluster
    assert {name: getattr(cluster, name) for name in PROFILES[profile]} == PROFILES[profile]


def test_the_default_profile_is_what_the_defaults_say() -> None:
    assert {name: getattr(Settings().cluster, name) for name in PROFILES["default"]} == PROFILES["default"]


def test_an_unknown_key_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    file = written(tmp_path, "[cluster]\nheartbeet_ms = 5\n[htp]\nport = 1\n")
    env = {"RAFTNODE_CLUSTER_LEASE": "5"}
    found = refused(file, env, {"tasks.checkpoint": "1"})
    assert "cluster.heartbeat_ms" in found["cluster.heartbeet_ms"].remedy
    assert found["cluster.heartbeet_ms"].source == str(file)
    assert "http" in found["htp"].remedy
    assert "RAFTNODE_CLUSTER_LEASE_MS" in found["RAFTNODE_CLUSTER_LEASE"].remedy
    assert "tasks.checkpoint_ms" in found["tasks.checkpoint"].remedy


def test_variables_a_container_platform_makes_are_no_settings() -> None:
    env = {
        "RAFTNODE_PORT": "tcp://10.0.0.1:8080",
        "RAFTNODE_SERVICE_HOST": "10.0.0.1",
        "RAFTNODE_PORT_8080_TCP_ADDR": "10.0.0.1",
        "RAFTNODE_CONFIG": "/etc/raftnode.toml",
        "RAFTNODE_HTTP_HOST": "",
        "HOME": "/root",
    }
    assert load(None, env, {}) == Settings()


def test_a_value_out_of_range_or_of_another_type_is_refused_by_name_value_and_rule(tmp_path: Path) -> None:
    file = written(tmp_path, '[http]\nport = "8080"\n[node]\ntag = "Toolong"\n')
    found = refused(file, {"RAFTNODE_LOG_LEVEL": "loud"}, {"cluster.port": "70000", "tasks.checkpoint_ms": "x"})
    assert found["http.port"].value == "'8080'"
    assert "1 to 4 capital letters" in found["node.tag"].rule
    assert "one of debug, info, warning, error" in found["log.level"].rule
    assert "a whole number from 1 to 65535" in found["cluster.port"].rule
    assert found["cluster.port"].source == "--cluster.port"
    assert "tasks.checkpoint_ms" in found


def test_a_broken_value_brings_up_no_second_problem_about_itself() -> None:
    found = refused(flags={"cluster.heartbeat_ms": "0", "cluster.lease_ms": "60", "http.host": "0.0.0.0"})
    assert set(found) == {"cluster.heartbeat_ms", "http.host", "node.url"}


def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path: Path) -> None:
    file = written(tmp_path, "[http\n")
    missing = tmp_path / "none.toml"
    assert "line 1" in refused(file)[str(file)].rule
    assert "No such file" in refused(missing)[str(missing)].rule


def test_initial_nodes_come_from_toml_and_as_json(tmp_path: Path) -> None:
    tables = "".join(
        f'[[cluster.initial_nodes]]\ntag = "{tag}"\nurl = "http://{tag}:80"\ncluster_address = "{tag}:81"\n'
        for tag in "AB"
    )
    nodes = '[{"tag":"A","url":"http://A:80","cluster_address":"A:81"},{"tag":"B","url":"http://B:80","cluster_address":"B:81"}]'
    from_file = load(written(tmp_path, tables), {}, {})
    assert from_file == load(None, {"RAFTNODE_CLUSTER_INITIAL_NODES": nodes}, {})
    assert [node.tag for node in from_file.cluster.initial_nodes] == ["A", "B"]
    assert from_file.url == "http://A:80"
    assert from_file.cluster_address == "A:81"
    assert "cluster.initial_nodes" in refused(env={"RAFTNODE_CLUSTER_INITIAL_NODES": "A,B"})
    assert "cluster.initial_nodes" in refused(env={"RAFTNODE_CLUSTER_INITIAL_NODES": '[{"tag":"A"}]'})


def test_every_setting_is_reachable_by_file_variable_and_flag(tmp_path: Path) -> None:
    for setting in settings_table():
        if isinstance(setting.default, tuple):
            continue
        text = f'"{setting.default}"' if isinstance(setting.default, str) else str(setting.default)
        file = written(tmp_path, f"[{setting.section}]\n{setting.name} = {text}\n")
        assert load(file, {}, {}) == Settings()
        assert load(None, {setting.env: str(setting.default)}, {}) == Settings()
        assert load(None, {}, {setting.key: str(setting.default)}) == Settings()
        assert setting.meaning
        assert setting.rule
        if isinstance(setting.default, int):
            assert setting.key in refused(flags={setting.key: "-1"})


def test_no_two_settings_share_a_variable_or_a_flag() -> None:
    table = settings_table()
    assert len({s.env for s in table}) == len({s.flag for s in table}) == len(table)
    aliases = [s.alias for s in table if s.alias]
    assert aliases == ["--tag", "--data-dir", "--profile"]
    assert table[0].flag == "--node.tag"
    heartbeat = next(s for s in table if s.key == "cluster.heartbeat_ms")
    assert (heartbeat.env, heartbeat.flag) == ("RAFTNODE_CLUSTER_HEARTBEAT_MS", "--cluster.heartbeat-ms")
