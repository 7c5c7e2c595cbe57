"""What is believed of a token, and of an issuer's keys: without a service, given keys and time."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import generate_key, import_key

from tallystick.core import timestamp
from tallystick.errors import RejectedError
from tallystick.govern.access import ROLES
from tallystick.limits import ISSUER_KEYS_MAX, TOKEN_BYTES_MAX
from tallystick.serve.jwks import IssuerKeys
from tallystick.serve.oidc import ALGORITHMS, ALGORITHMS_USUAL, OidcSettings
from tallystick.serve.tokens import LEEWAY_SECONDS, TokenRefusedError, judge
from tests.serve.identity import AUDIENCE, IdentityProvider, b64, new_key, public

NOW: Final = 1_790_000_000
PROVIDER: Final = IdentityProvider("https://id.example.com/realms/one", clock=lambda: NOW)
STRANGER: Final = new_key("rsa", "rsa")
FIRST: Final = '{"iss":"https://elsewhere.example",'


def keys_of(*published: dict[str, Any], algorithms: tuple[str, ...] = ALGORITHMS_USUAL) -> IssuerKeys:
    return IssuerKeys.parse(json.dumps({"keys": published or PROVIDER.published}).encode(), algorithms)


def judged(text: str, keys: IssuerKeys | None = None, *, now: float | None = None, **given: Any) -> Any:
    moment = int((NOW if now is None else now) * timestamp.SECOND)
    settings = PROVIDER.settings(**given)
    return judge(text, keys or keys_of(algorithms=settings.algorithms), settings, now=moment)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [("rsa", "RS256"), ("rsa", "PS256"), ("ec", "ES256"), ("ed", "EdDSA")],
)
def test_a_good_token_says_who_it_is_of_and_until_when(key: str, algorithm: str) -> None:
    ends_at = NOW + 200

    user = judged(PROVIDER.token(key, algorithm, exp=ends_at))

    assert (user.subject, user.role, user.tenant, user.operator) == ("248289761001", "Developer", "acme", False)
    assert user.expires_at == timestamp.render(ends_at * timestamp.SECOND)
    assert user.entity == "user:248289761001"
    assert user.actor == {
        "id": "248289761001",
        "type": "user",
        "name": "jane@example.com",
        "identity_provider": PROVIDER.url,
    }


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name not in ALGORITHMS_USUAL])
def test_other_algorithms_are_believed_when_they_are_named_and_only_then(algorithm: str) -> None:
    kind, curve = ALGORITHMS[algorithm]
    key = generate_key(kind, curve or 2_048, {"kid": "x"})  # type: ignore[call-overload]
    text = PROVIDER.forged({"alg": algorithm, "kid": "x"}, key=key, algorithm=algorithm)
    usual, named = (keys_of(public(key), algorithms=names) for names in (ALGORITHMS_USUAL, (algorithm,)))

    assert judged(text, named, algorithms=[algorithm]).role == "Developer"
    with pytest.raises(TokenRefusedError, match="is none of"):
        judged(text, usual)


def without(name: str) -> str:
    return PROVIDER.token(**{name: None})


WRONG: Final[dict[str, tuple[Callable[[], str], str]]] = {
    "no token": (lambda: "nonsense", "no three parts"),
    "four parts": (lambda: PROVIDER.token() + ".x", "no three parts"),
    "letters of another alphabet": (lambda: PROVIDER.token() + "+", "no three parts"),
    "9 KB": (lambda: PROVIDER.token(more="x" * 9_000), "more than 8192 bytes"),
    "not signed": (lambda: PROVIDER.forged({"alg": "none"}, algorithm="none"), "'none' is none of"),
    "not signed, shouted": (lambda: PROVIDER.forged({"alg": "NoNe"}, algorithm="none"), "'NoNe' is none of"),
    "no algorithm": (lambda: PROVIDER.forged(b'{"kid":"rsa"}'), "the algorithm None"),
    "the public key as a secret": (
        lambda: PROVIDER.forged({"alg": "HS256"}, algorithm="HS256"),
        "'HS256' is none of",
    ),
    "signed by another key": (lambda: PROVIDER.forged(key=STRANGER), "signature does not hold"),
    "the signature left out": (lambda: PROVIDER.token().rpartition(".")[0] + ".", "signature does not hold"),
    "one byte of the claims": (
        lambda: PROVIDER.token().replace(".ey", ".eX", 1),
        "signature does not hold",
    ),
    "an id that is not there": (lambda: PROVIDER.forged({"kid": "gone"}), "no keys fit RS256 and the id 'gone'"),
    "an id that is no text": (lambda: PROVIDER.forged({"kid": 7}), "no short text"),
    "no id, and two keys": (
        lambda: PROVIDER.forged(b'{"alg":"EdDSA","kid":"rsa"}', algorithm="RS256"),
        "no keys fit EdDSA",
    ),
    "a key of another type": (
        lambda: PROVIDER.forged({"alg": "ES256"}, key=PROVIDER.keys["ec"], algorithm="ES256"),
        "no keys fit ES256 and the id 'rsa'",
    ),
    "an extension that must be known": (lambda: PROVIDER.forged({"crit": ["exp"], "exp": 1}), "extension"),
    "an empty list of them": (lambda: PROVIDER.forged({"crit": []}), "extension"),
    "another form of payload": (lambda: PROVIDER.forged({"b64": False, "crit": ["b64"]}), "extension"),
    "a logout": (lambda: PROVIDER.forged({"typ": "logout+jwt"}), "not that of an access token"),
    "a type that is no text": (lambda: PROVIDER.forged({"typ": ["JWT"]}), "not that of an access token"),
    "a member of the head twice": (
        lambda: PROVIDER.forged(b'{"alg":"none","alg":"RS256","kid":"rsa"}'),
        "head cannot be read",
    ),
    "a claim twice": (
        lambda: PROVIDER.forged(claims=(FIRST + json.dumps(PROVIDER.claims())[1:]).encode()),
        "claims cannot be read",
    ),
    "claims that are no object": (lambda: PROVIDER.forged(claims=b"[1]"), "claims is no object"),
    "claims that go deep": (lambda: PROVIDER.forged(claims=b"[" * 2_000 + b"]" * 2_000), "claims cannot be read"),
    "claims that are no JSON": (lambda: PROVIDER.forged(claims=b"\xff"), "claims cannot be read"),
    "a key that it brings": (
        lambda: PROVIDER.forged({"jwk": public(STRANGER), "kid": "mine"}, key=STRANGER),
        "no keys fit",
    ),
    "a key that it brings under a known id": (
        lambda: PROVIDER.forged({"jwk": public(STRANGER), "x5c": ["AA=="]}, key=STRANGER),
        "signature does not hold",
    ),
    "another issuer": (lambda: PROVIDER.token(iss="https://id.example.com/realms/two"), "its issuer is"),
    "the issuer with a slash": (lambda: PROVIDER.token(iss=f"{PROVIDER.url}/"), "its issuer is"),
    "no issuer": (lambda: without("iss"), "its issuer is None"),
    "another audience": (lambda: PROVIDER.token(aud="another"), "it is for 'another'"),
    "other audiences": (lambda: PROVIDER.token(aud=["another", {"a": AUDIENCE}]), "it is for"),
    "part of the audience": (lambda: PROVIDER.token(aud=f"{AUDIENCE}.evil"), "it is for"),
    "no audience": (lambda: without("aud"), "it is for None"),
    "over": (lambda: PROVIDER.token(exp=NOW - 1), "it ended at"),
    "no end": (lambda: without("exp"), "no end"),
    "an end that is text": (lambda: PROVIDER.token(exp="9999999999"), "which is no time"),
    "an end that is true": (lambda: PROVIDER.token(exp=True), "which is no time"),
    "an end beyond all years": (lambda: PROVIDER.token(exp=10**15), "which is no time"),
    "not yet": (lambda: PROVIDER.token(nbf=NOW + LEEWAY_SECONDS + 60), "which is not yet"),
    "made in the future": (lambda: PROVIDER.token(iat=NOW + LEEWAY_SECONDS + 60), "which is not yet"),
    "no subject": (lambda: without("sub"), "its subject is None"),
    "a long subject": (lambda: PROVIDER.token(sub="x" * 256), "not 1 to 255 characters"),
    "a subject with a line in it": (lambda: PROVIDER.token(sub="a\nb"), "its subject is"),
    "a subject that is a number": (lambda: PROVIDER.token(sub=7), "its subject is 7"),
    "no role": (lambda: without("tallystick_role"), "no role that is known here"),
    "a role that there is not": (lambda: PROVIDER.token(tallystick_role="Root"), "no role that is known here"),
    "two roles": (
        lambda: PROVIDER.token(tallystick_role=["Auditor", "Developer"]),
        "stands for Auditor and Developer",
    ),
    "an operator of its own making": (lambda: PROVIDER.token(tallystick_role="operator"), "no role that is known"),
    "no tenant": (lambda: without("tallystick_tenant"), "names no tenant"),
    "two tenants": (lambda: PROVIDER.token(tallystick_tenant=["acme", "other"]), "names no tenant"),
}
"""One thing wrong → how it is made, and what the diagnostics say."""


@pytest.mark.parametrize("name", WRONG)
def test_a_token_with_one_thing_wrong_is_refused_for_it(name: str) -> None:
    make, why = WRONG[name]

    with pytest.raises(TokenRefusedError) as refused:
        judged(make())

    assert why in str(refused.value)
    assert len(str(refused.value)) < 400


def test_what_a_token_brings_beside_its_claims_is_not_looked_at() -> None:
    head = {"jku": "https://evil.example/keys", "x5u": "https://evil.example/x", "jwk": public(STRANGER), "nonce": "1"}

    assert judged(PROVIDER.forged(head)).subject == "248289761001"
    for kind in ("JWT", "jwt", "at+jwt", "application/at+JWT"):
        assert judged(PROVIDER.forged({"typ": kind})).role == "Developer"


def test_clocks_may_differ_a_minute_but_the_end_is_the_end() -> None:
    ahead = PROVIDER.token(iat=NOW, nbf=NOW, exp=NOW + 10)

    assert judged(ahead, now=NOW - LEEWAY_SECONDS).role == "Developer"
    assert judged(ahead, now=NOW + 9.999).role == "Developer"
    for moment in (NOW - LEEWAY_SECONDS - 1, NOW + 10):
        with pytest.raises(TokenRefusedError):
            judged(ahead, now=moment)
    assert judged(PROVIDER.token(exp=NOW + 10.5), now=NOW + 10.4).expires_at.endswith("500000Z")


def test_a_token_without_an_id_of_its_key_needs_that_there_is_one_key_of_its_kind() -> None:
    text = PROVIDER.forged(b'{"alg":"RS256"}')
    two = [*PROVIDER.published, public(STRANGER, kid="other")]

    assert judged(text).role == "Developer"
    with pytest.raises(TokenRefusedError, match="2 keys fit RS256"):
        judged(text, keys_of(*two))


def test_the_role_may_lie_deep_and_be_called_otherwise() -> None:
    given: dict[str, Any] = {"role_claim": "realm_access.roles", "roles": ["cn=audit,dc=x=Auditor", "ops=operator"]}

    def of(*values: str) -> Any:
        return judged(PROVIDER.token(realm_access={"roles": [*values]}), **given)

    assert of("offline_access", "cn=audit,dc=x").role == "Auditor"
    assert (of("ops").role, of("ops").operator, of("ops").may("ManageTenants")) == ("Admin", True, True)
    for values in ([], ["Auditor"], ["Admin"], ["operator"], ["ops", "cn=audit,dc=x"]):
        with pytest.raises(TokenRefusedError, match="stands for"):
            of(*values)
    for strange in ("roles", {"roles": {"ops": 1}}, {"roles": [["ops"]]}, None):
        with pytest.raises(TokenRefusedError, match="stands for"):
            judged(PROVIDER.token(realm_access=strange), **given)


def test_two_values_that_stand_for_one_role_are_one_role() -> None:
    text = PROVIDER.token(tallystick_role=["a", "b"])

    assert judged(text, roles={"a": "ReadOnly", "b": "ReadOnly"}).role == "ReadOnly"


def test_a_claim_may_have_dots_in_its_name_and_the_tenant_may_be_fixed() -> None:
    text = PROVIDER.token(**{"https://tally.example/role": "Auditor", "org": {"id": "other"}})

    assert judged(text, role_claim="https://tally.example/role").role == "Auditor"
    assert judged(text, tenant_claim="org.id").tenant == "other"
    assert judged(text, tenant="default").tenant == "default"


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda data: f"{b64(data).decode()}.e30.e30"))
def test_any_text_is_refused_or_judged(text: str) -> None:
    with pytest.raises(TokenRefusedError):
        judged(text)


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "jwk", "x5c", "jku", "cty"]), st.none() | st.integers()))
def test_a_head_of_odd_values_is_refused_or_judged(more: dict[str, Any]) -> None:
    text = PROVIDER.forged(more)
    with suppress(TokenRefusedError):
        assert judged(text).role == "Developer"


# ------------------------------------------------------------------------------------------------------ keys


def changed(name: str = "rsa", **more: Any) -> dict[str, Any]:
    return {**public(PROVIDER.keys[name]), **more}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (7, "it is no key"),
        ({}, "of the type 'None'"),
        ({"kty": "oct", "k": "c2VjcmV0"}, "of the type 'oct'"),
        ({"kty": ["RSA"]}, "checks no signature"),
        (changed(use="enc"), "not for checking"),
        (changed(key_ops=["sign"]), "not for checking"),
        (changed(key_ops="verify"), "not for checking"),
        (changed(alg="RS384"), "none of the algorithms"),
        (changed(alg="ES256"), "none of the algorithms"),
        (changed(alg="RSA-OAEP"), "none of the algorithms"),
        (changed(alg=7), "none of the algorithms"),
        (changed("ec", crv="P-384"), "none of the algorithms"),
        (changed("ec", crv="secp256k1"), "none of the algorithms"),
        (changed("ed", crv="X25519"), "none of the algorithms"),
        (changed("ec", x="AAAA"), "no key of the type EC"),
        (changed("ed", x="AAAA"), "no key of the type OKP"),
        (changed(kid=7), "no short text"),
        (changed(kid="x" * 257), "no short text"),
        (changed(n="A" * 1_400), "more than"),
        (changed(n="!"), "no base64url"),
        (changed(n="AQAB"), "it has 17 bits"),
        (changed(e="AQ"), "exponent"),
        (changed(e="BA"), "no key of the type RSA"),
        (PROVIDER.keys["rsa"].as_dict(private=True), "private half"),
    ],
)
def test_a_key_that_checks_nothing_is_left_aside_with_the_reason(said: Any, why: str) -> None:
    keys = keys_of(said, changed("ed"))

    assert [key.id for key in keys.keys] == ["ed"]
    assert [why in told for told in keys.left_aside] == [True], keys.left_aside


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[],"keys":[]}', b"[" * 100_000, b'{"keys":null}'],
)
def test_what_is_no_set_of_keys_is_refused(data: bytes) -> None:
    with pytest.raises(RejectedError):
        IssuerKeys.parse(data, ALGORITHMS_USUAL)


def test_a_set_of_keys_is_bounded() -> None:
    many = [changed("ed", kid=str(number)) for number in range(ISSUER_KEYS_MAX)]

    assert len(keys_of(*many).keys) == ISSUER_KEYS_MAX
    with pytest.raises(RejectedError, match="65 keys, at most 64"):
        keys_of(*many, changed())


def test_a_key_is_used_for_what_it_says_and_nothing_else() -> None:
    only = keys_of(changed(alg="PS256", key_ops=["verify"]))

    assert judged(PROVIDER.token("rsa", "PS256"), only).role == "Developer"
    with pytest.raises(TokenRefusedError, match="no keys fit RS256"):
        judged(PROVIDER.token("rsa", "RS256"), only)


def test_of_two_keys_of_one_id_the_one_of_the_kind_counts_and_of_two_kinds_alike_none() -> None:
    both = keys_of(changed(kid="one"), changed("ec", kid="one"))

    assert judged(PROVIDER.forged({"kid": "one"}), both).role == "Developer"
    with pytest.raises(TokenRefusedError, match="2 keys fit"):
        judged(PROVIDER.forged({"kid": "one"}), keys_of(changed(kid="one"), public(STRANGER, kid="one")))


def test_the_library_reads_the_keys_that_we_publish() -> None:
    for key in PROVIDER.keys.values():
        assert import_key(public(key)).thumbprint() == key.thumbprint()


# -------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"issuer": ""}, "issuer"),
        ({"issuer": "id.example.com"}, "issuer"),
        ({"issuer": "http://id.example.com"}, "issuer"),
        ({"issuer": "http://10.0.0.1"}, "issuer"),
        ({"issuer": "http://localhost.evil.example"}, "issuer"),
        ({"issuer": "http://127.0.0.1@evil.example"}, "issuer"),
        ({"issuer": "https://user:secret@id.example.com"}, "issuer"),
        ({"issuer": "https://id.example.com/?a=b"}, "issuer"),
        ({"issuer": "https://id.example.com/#a"}, "issuer"),
        ({"issuer": "https://id.example.com:99999"}, "issuer"),
        ({"issuer": "https://[::1"}, "issuer"),
        ({"issuer": "https://id.example.com/\nHost: x"}, "issuer"),
        ({"issuer": "file:///etc/passwd"}, "issuer"),
        ({"issuer": "https://" + "x" * 600}, "issuer"),
        ({"audience": None}, "audience"),
        ({"audience": ""}, "audience"),
        ({"audience": "a\nb"}, "audience"),
        ({"algorithms": ["none"]}, "algorithms"),
        ({"algorithms": ["RS256", "HS256"]}, "algorithms"),
        ({"role_claim": ""}, "role_claim"),
        ({"role_claim": "x" * 300}, "role_claim"),
        ({"roles": ["admins"]}, "roles"),
        ({"roles": ["=Admin"]}, "roles"),
        ({"roles": ["admins=Root"]}, "roles"),
        ({"roles": ["admins=Admin", "admins=Auditor"]}, "roles"),
        ({"roles": {str(number): "Admin" for number in range(257)}}, "roles"),
        ({"tenant_claim": "\x00"}, "tenant_claim"),
        ({"tenant": "Not A Tenant"}, "tenant"),
        ({"tenant": "acme", "tenant_claim": "org"}, "tenant"),
    ],
)
def test_settings_that_do_not_do_are_one_clear_error(given: dict[str, Any], place: str) -> None:
    with pytest.raises(RejectedError) as refused:
        OidcSettings.of(**{"issuer": "https://id.example.com", "audience": AUDIENCE, **given})

    assert refused.value.place == place
    assert refused.value.cure


def test_settings_have_sensible_defaults() -> None:
    for issuer in ("https://id.example.com/", "http://127.0.0.1:9", "http://localhost", "http://[::1]:80/realm"):
        settings = OidcSettings.of(issuer=issuer, audience=AUDIENCE)
        assert settings.discovery_url == f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    assert settings.algorithms == ("RS256", "ES256", "PS256", "EdDSA")
    assert (settings.role_claim, settings.tenant_claim) == ("tallystick_role", "tallystick_tenant")
    assert settings.roles == {role: role for role in ROLES}
    assert TOKEN_BYTES_MAX == 8_192
