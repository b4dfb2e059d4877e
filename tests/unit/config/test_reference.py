"""The files that are written from the table."""

import re
from pathlib import Path

import pytest

from config import Settings, load
from config.__main__ import ROOT, main
from config.reference import default_toml, settings_md
from config.table import settings_table


def test_the_reference_page_and_the_default_file_are_up_to_date() -> None:
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == settings_md(), "run: python -m config"
    assert (ROOT / "config/default.toml").read_text(encoding="utf-8") == default_toml(), "run: python -m config"


def test_writing_them_anew_writes_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "config").mkdir()
    monkeypatch.setattr("config.__main__.ROOT", tmp_path)
    main()
    assert (tmp_path / "docs/settings.md").read_text(encoding="utf-8") == settings_md()
    assert (tmp_path / "config/default.toml").read_text(encoding="utf-8") == default_toml()


def test_the_default_file_says_every_default(tmp_path: Path) -> None:
    assert load(ROOT / "config/default.toml", {}, {}) == Settings()
    full = tmp_path / "full.toml"
    full.write_text(re.sub(r"(?m)^#(?=\w+ = )", "", default_toml()), encoding="utf-8")
    assert load(full, {}, {}) == Settings()
    assert full.read_text(encoding="utf-8").count(" = ") == len(settings_table())


def test_the_reference_page_names_every_setting() -> None:
    page = settings_md()
    for setting in settings_table():
        assert f"**`{setting.key}`**" in page
        assert setting.env in page
        assert setting.flag in page


def test_the_five_files_of_the_composed_cluster_form_one_cluster() -> None:
    loaded = [load(file, {}, {}) for file in sorted((ROOT / "config/cluster").glob("*.toml"))]
    assert [settings.node.tag for settings in loaded] == ["A", "B", "C", "D", "E"]
    assert len({settings.cluster.initial_nodes for settings in loaded}) == 1
    assert [settings.url for settings in loaded] == [n.url for n in loaded[0].cluster.initial_nodes]
    assert {settings.http.port for settings in loaded} == {8080}
    assert {settings.security.unsecured_access_allowed for settings in loaded} == {"private_network"}


def test_no_volume_of_the_composed_cluster_is_a_single_letter_which_compose_v2_takes_for_a_drive() -> None:
    sources = re.findall(r'"([^":]+):/var/lib/raftnode"', (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert len(sources) == 5
    assert all(len(source) > 1 for source in sources)


def test_every_settings_file_in_the_pages_is_taken(tmp_path: Path) -> None:
    blocks = re.findall(r"(?ms)^```toml\n(.*?)^```", (ROOT / "docs/operations.md").read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        file = tmp_path / "node.toml"
        file.write_text(block, encoding="utf-8")
        settings = load(file, {}, {})
        assert settings.node.tag in {node.tag for node in settings.cluster.initial_nodes}
