"""Every setting by every way it can be given, with every kind of value that it cannot take: refused by name."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from config import Settings, SettingsError, load, settings_table
from config.table import Setting
from raftnode.cli.main import cli

WAYS = ("file", "variable", "flag")
NUMBERS = ("-1", "1.5", "0x10", "ten", "true", "9" * 40, "NaN", " ", "5 ms", "٣" * 3)
CHOICES = ("Default", "none", "0", "[]")
LISTS = (
    "A,B",
    "{}",
    "[1]",
    '[{"tag": "A"}]',
    '[{"tag": "A", "url": "http://a:1", "cluster_address": "a:1", "x": 1}]',
    "[",
)
TEXTS = {
    "node.tag": ("a", "ABCDE", "A1", "../A", "A\n"),
    "node.data_dir": ("x" * 5000,),
    "node.url": ("ftp://a:1", "http://a", "a:1", "http://a:1/x", "http://a b:1"),
    "cluster.public_address": ("a", "a:b", "http://a:1", "a b:1"),
    "http.host": ("x" * 5000,),
    "cluster.host": ("x" * 5000,),
    "security.certificate_file": ("/nowhere/c.pem",),
    "security.key_file": ("/nowhere/k.pem",),
    "security.ca_file": ("/nowhere/ca.pem",),
}
WRONG_TYPES = ("[1]", "{a = 1}", "1979-05-27", "1.5")
"""In TOML; none of them is a value of any setting."""


def bad_values(setting: Setting) -> tuple[str, ...]:
    """Values, as text, that the setting must refuse."""
    if isinstance(setting.default, int):
        return (*NUMBERS, *_beyond(setting))
    if isinstance(setting.default, tuple):
        return LISTS
    return CHOICES if setting.rule.startswith("one of") else TEXTS[setting.key]


def _beyond(setting: Setting) -> tuple[str, str]:
    low, high = (int(word) for word in setting.rule.split() if word.isdecimal())
    return str(low - 1), str(high + 1)


def given(way: str, setting: Setting, value: str, directory: Path) -> Settings:
    if way == "variable":
        return load(None, {setting.env: value}, {})
    if way == "flag":
        return load(None, {}, {setting.key: value})
    return load(written(setting, f"'''{value}'''", directory), {}, {})


def written(setting: Setting, toml: str, directory: Path) -> Path:
    file = directory / "raftnode.toml"
    file.write_text(f"[{setting.section}]\n{setting.name} = {toml}\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("setting", settings_table(), ids=lambda setting: setting.key)
def test_a_bad_value_is_refused_with_key_value_rule_source_and_remedy(
    setting: Setting, way: str, tmp_path: Path
) -> None:
    sources = {"file": str(tmp_path / "raftnode.toml"), "variable": setting.env, "flag": setting.flag}
    for value in bad_values(setting):
        with pytest.raises(SettingsError) as caught:
            given(way, setting, value, tmp_path)
        [problem] = [p for p in caught.value.problems if p.key == setting.key]
        assert problem.rule, value
        assert problem.remedy, value
        if not setting.key.endswith("_file"):
            assert setting.rule in problem.rule
            assert problem.source == sources[way]
            assert problem.value == repr(value)


@pytest.mark.parametrize("setting", settings_table(), ids=lambda setting: setting.key)
def test_a_value_of_another_type_in_the_file_is_refused(setting: Setting, tmp_path: Path) -> None:
    for toml in WRONG_TYPES:
        with pytest.raises(SettingsError, match=setting.key):
            load(written(setting, toml, tmp_path), {}, {})


@pytest.mark.parametrize("setting", settings_table(), ids=lambda setting: setting.key)
def test_a_misspelt_setting_is_refused_and_the_right_one_named(setting: Setting, tmp_path: Path) -> None:
    file = tmp_path / "raftnode.toml"
    file.write_text(f"[{setting.section}]\n{setting.name}x = 1\n")
    for arguments, right in (
        ((file, {}, {}), setting.key),
        ((None, {f"{setting.env}X": "1"}, {}), setting.env),
        ((None, {}, {f"{setting.key}x": "1"}), setting.key),
    ):
        with pytest.raises(SettingsError, match=f"there is no such setting. Did you mean {right}"):
            load(*arguments)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"[http]\nport = 1\nport = 2\n",
        b"[http]\n[http]\n",
        b"http = 5\n",
        b"port = 1\n",
        b"[[http]]\n",
        b"= 1",
    ],
)
def test_a_file_of_anything_else_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "raftnode.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"raftnode\.toml"):
        load(file, {}, {})
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path, {}, {})


def test_the_command_ends_with_2_and_says_what_is_wrong() -> None:
    ran = CliRunner().invoke(
        cli, ["run", "--http.port", "0", "--cluster.lease-ms", "x"], env={"RAFTNODE_HTTP_HOSTS": "x"}
    )
    assert ran.exit_code == 2
    for said in ("http.port = '0' (--http.port)", "cluster.lease_ms = 'x'", "Did you mean RAFTNODE_HTTP_HOST?"):
        assert said in ran.output
    unknown = CliRunner().invoke(cli, ["run", "--http.prot", "1"])
    assert unknown.exit_code == 2
    assert "--http.port" in unknown.output


def test_a_file_that_is_not_there_or_not_toml_is_named_with_the_reason(tmp_path: Path) -> None:
    for file, reason in (
        (tmp_path / "none.toml", "the file cannot be read: No such file or directory. Name another file"),
        (tmp_path, "the file cannot be read: Is a directory. Name another file"),
    ):
        with pytest.raises(SettingsError) as refused:
            load(file, {}, {})
        assert str(refused.value).endswith(f"  - {file}: {reason}")


def test_the_wrong_part_of_a_list_is_named_and_no_pattern_is_shown() -> None:
    nodes = '[{"tag": "A", "url": "http://a:1", "cluster_address": "a"}]'
    with pytest.raises(SettingsError) as refused:
        load(None, {"RAFTNODE_CLUSTER_INITIAL_NODES": nodes, "RAFTNODE_NODE_URL": "ftp://x"}, {})
    assert str(refused.value).splitlines()[1:] == [
        "  - node.url = 'ftp://x' (RAFTNODE_NODE_URL): must be http://host:port or https://host:port. Fix the value",
        f"  - cluster.initial_nodes = {nodes!r} (RAFTNODE_CLUSTER_INITIAL_NODES): must be a list of {{tag, url "
        "(http://host:port), cluster_address (host:port)}; JSON in variables and flags. Fix $[0].cluster_address",
    ]
