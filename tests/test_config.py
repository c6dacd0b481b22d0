"""Settings: precedence, refusals by name, and the sample files."""

from __future__ import annotations

from pathlib import Path

import pytest

from caterva2_jupyter.config import SETTINGS, Address, Config, Grant, load_config, parse_nbytes
from caterva2_jupyter.errors import ConfigError


def config(text: str, tmp_path: Path, **environ: str) -> Config:
    file = tmp_path / "caterva2.toml"
    file.write_text(text)
    return load_config(file, environ)


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    both = config('[client]\nurl = "http://file:1"', tmp_path, CATERVA2_URL="http://environment:1")
    assert both.client(url="http://line:1").url == "http://line:1"
    assert both.client().url == "http://environment:1"
    assert config('[client]\nurl = "http://file:1"', tmp_path).client().url == "http://file:1"
    assert load_config(environ={}).client().url == "http://localhost:8002"


def test_unknown_keys_and_sections_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'htpp' in \[broker\]"):
        config('[broker]\nhtpp = "localhost:1"', tmp_path)
    with pytest.raises(ConfigError, match=r"\[brokr\]"):
        config("[brokr]", tmp_path)
    with pytest.raises(ConfigError, match=r"'nmae' in \[publisher.one\]"):
        config('[publisher.one]\nnmae = "x"', tmp_path)


def test_a_value_of_the_wrong_kind_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[subscriber\] login has to be true or false"):
        config('[subscriber]\nlogin = "no"', tmp_path)
    with pytest.raises(ConfigError, match="not TOML"):
        config("[broker", tmp_path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[subscriber]\ncachequota = "lots"', r"\[subscriber\] cachequota: 'lots' is not a number of bytes"),
        ("[broker]\nheartbeat = -1", r"\[broker\] heartbeat has to be a number, not negative"),
        ("[publisher]\nquiet = nan", r"\[publisher\] quiet has to be a number"),
        ('[subscriber]\nfollow = "foo"', r"\[subscriber\] follow has to be a list of texts, not 'foo'"),
    ],
)
def test_a_value_that_means_nothing_is_refused_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        config(text, tmp_path)


def test_publishers_to_follow_are_urls_addresses_or_sockets(tmp_path: Path) -> None:
    text = '[subscriber]\npublishers = ["http://h:1/", "h:2", "/run/pub.sock"]'
    assert config(text, tmp_path).subscriber().publishers == (
        "http://h:1",
        "http://h:2",
        "http+unix://%2Frun%2Fpub.sock",
    )
    for wrong in ("ftp://h", "http://", "h"):
        with pytest.raises(ConfigError):
            config("", tmp_path).subscriber(publishers=(wrong,))


def test_a_token_file_that_is_no_text_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xff\xfe")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="is not text"):
        config(f'[network]\ntoken_file = "{file}"', tmp_path).broker()


def test_without_a_file_the_broker_is_on_localhost_and_with_one_it_has_to_be_named(tmp_path: Path) -> None:
    assert load_config(environ={}).subscriber().broker == Address("localhost", 8000)
    assert config("[subscriber]", tmp_path).subscriber().broker is None
    assert config("[broker]", tmp_path).subscriber().broker == Address("localhost", 8000)


def test_an_id_selects_its_own_section_only(tmp_path: Path) -> None:
    both = config('[publisher]\nname = "a"\n[publisher.two]\nname = "b"', tmp_path)
    assert both.publisher().name == "a"
    assert both.publisher(ident="two").name == "b"
    assert both.publisher(ident="two").statedir == Path("_caterva2/pub.two")
    with pytest.raises(ConfigError, match=r"\.toml has no section \[publisher\.three\]: .*--id three NAME ROOT"):
        both.publisher(ident="three")
    with pytest.raises(ConfigError, match=r"no configuration file, so no section \[publisher\.three\]"):
        load_config(environ={}).publisher(ident="three")
    assert both.publisher(ident="three", name="c").statedir == Path("_caterva2/pub.three")
    with pytest.raises(ConfigError, match="no name"):
        config("[publisher.two]", tmp_path).publisher(ident="two")


def test_users_are_on_when_there_is_a_secret_unless_login_is_false(tmp_path: Path) -> None:
    assert not load_config(environ={}).subscriber().login
    assert load_config(environ={"CATERVA2_SECRET": "s"}).subscriber().login
    off = config("[subscriber]\nlogin = false", tmp_path, CATERVA2_SECRET="s")
    assert not off.subscriber().login
    with pytest.raises(ConfigError, match="CATERVA2_SECRET"):
        config("[subscriber]\nlogin = true", tmp_path).subscriber()


def test_listening_openly_without_a_token_is_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="insecure = true"):
        load_config(environ={}).broker(http="*:8000")
    assert load_config(environ={"CATERVA2_NETWORK_TOKEN": "t"}).broker(http="*:8000").network.read_token == "t"
    assert config("[network]\ninsecure = true", tmp_path).broker(http="10.0.0.1:8000").network.insecure


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("publish: one\nread: two\n")
    token.chmod(0o644)
    text = f'[network]\ntoken_file = "{token}"'
    with pytest.raises(ConfigError, match="chmod 600"):
        config(text, tmp_path).broker()
    token.chmod(0o600)
    network = config(text, tmp_path).broker().network
    assert (network.publish_token, network.read_token) == ("one", "two")
    assert "one" not in repr(network)


def test_url_is_an_alias_of_urlbase(tmp_path: Path) -> None:
    assert config('[subscriber]\nurl = "http://x:1/"', tmp_path).subscriber().urlbase == "http://x:1"
    assert config('[subscriber]\nurl = "http://x:1"', tmp_path).client().url == "http://x:1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:8000", Address("localhost", 8000)),
        ("[::1]:80", Address("::1", 80)),
        ("http://h:1/", Address("h", 1)),
        ("/run/c2.sock", Address(socket_path="/run/c2.sock")),
        ("c2.sock", Address(socket_path="c2.sock")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected


def test_texts_that_are_not_addresses_or_sizes_are_refused() -> None:
    for text in (
        "host:port",
        "host:99999",
        ":",
        "localhost",
        "data.example.org",
        "ftp://h:1",
        "http://h:1/base",
        "h:1/x",
    ):
        with pytest.raises(ConfigError):
            Address.parse(text)
    for size in ("10X", "", "-1", True, float("inf")):
        with pytest.raises(ConfigError):
            parse_nbytes(size)
    assert parse_nbytes("10GB") == 10 << 30


@pytest.mark.parametrize("name", ["caterva2.sample.toml", "caterva2-standalone.sample.toml"])
def test_the_sample_files_are_usable_unedited(repository: Path, name: str) -> None:
    sample = load_config(repository / name, {})
    assert sample.subscriber().http == Address("localhost", 8002)
    assert (sample.subscriber().broker is None) == ("standalone" in name)
    assert sample.publisher(name="foo").http == Address("localhost", 8001)


def test_every_setting_is_in_the_sample_and_in_the_documentation(repository: Path) -> None:
    sample = (repository / "caterva2.sample.toml").read_text()
    table = (repository / "docs" / "configuration.md").read_text()
    for setting in SETTINGS:
        assert f"| `{setting.section}` | `{setting.key}` | {setting.kind} |" in table
        if setting.key not in ("url", "secret", "token"):  # an alias, and what is better kept in the environment
            assert f"{setting.key} = " in sample


def test_what_is_republished_has_a_name_and_a_broker(tmp_path: Path) -> None:
    made = config('[broker]\n[subscriber]\nrepublish = ["foo"]\nupstreams = ["far:8002"]', tmp_path).subscriber()
    assert (made.republish, made.upstreams) == (("foo",), ("http://far:8002",))
    with pytest.raises(ConfigError, match="republish needs a broker"):
        config('[subscriber]\nrepublish = ["foo"]', tmp_path).subscriber()
    for name in ("@public", "a/b", ""):
        with pytest.raises(ConfigError):
            config("[broker]", tmp_path).subscriber(republish=(name,))


def test_codes_need_a_token_as_their_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a read token"):
        config("[network]\nmac = true", tmp_path).broker()
    network = config("[network]\nmac = true", tmp_path, CATERVA2_NETWORK_TOKEN="publish=p,read=r").broker().network
    assert network.mac_key
    assert not {"p", "r"} & {network.publish_bearer, network.read_bearer}
    plain = config("", tmp_path, CATERVA2_NETWORK_TOKEN="publish=p,read=r").broker().network
    assert (plain.publish_bearer, plain.read_bearer, plain.mac_key) == ("p", "r", b"")


def test_grants_say_who_may_see_what(tmp_path: Path) -> None:
    text = """
    [subscriber]
    [subscriber.groups]
    modellers = ["ada@example.org"]
    [[subscriber.grants]]
    roots = ["climate-*"]
    groups = ["modellers"]
    [[subscriber.grants]]
    roots = ["@shared"]
    users = ["*"]
    access = "write"
    """
    made = config(text, tmp_path, CATERVA2_SECRET="s").subscriber()
    assert made.groups == {"modellers": ("ada@example.org",)}
    assert made.grants == (Grant(("climate-*",), (), ("modellers",)), Grant(("@shared",), ("*",), (), is_write=True))
    with pytest.raises(ConfigError, match="grants need to know who somebody is"):
        config(text, tmp_path).subscriber()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("grants = 1", "grants are tables"),
        ("grants = [1]", "a grant is a table"),
        ('grants = [{roots = ["x"]}]', "names roots"),
        ('grants = [{users = ["x"]}]', "names roots"),
        ('grants = [{roots = "x", users = ["x"]}]', "list of texts"),
        ('grants = [{root = ["x"], users = ["x"]}]', "no key 'root'"),
        ('grants = [{roots = ["x"], users = ["x"], access = "all"}]', '"read" or "write"'),
        ('grants = [{roots = ["@personal"], users = ["x"]}]', "belongs to its user"),
        ('groups = {a = "b"}', "a table of lists"),
        ("groups = 1", "a table of lists"),
    ],
)
def test_a_grant_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config(f"[subscriber]\n{text}", tmp_path)
