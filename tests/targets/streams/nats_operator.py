"""A NATS operator with one account, and the .creds file of a user, as `nsc` makes them: signed JWTs and a key."""

import base64
import hashlib
import json
import os

import nkeys


def _pair(prefix):
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def _base64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _token(issuer, subject, name, nats):
    claims = {"iat": 1_700_000_000, "iss": issuer.public_key.decode(), "sub": subject.public_key.decode(), "name": name}
    claims["nats"] = {**nats, "version": 2}
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).rstrip(b"=").decode()
    parts = ({"typ": "JWT", "alg": "ed25519-nkey"}, claims)
    text = ".".join(_base64(json.dumps(part).encode()) for part in parts)
    return f"{text}.{_base64(issuer.sign(text.encode()))}"


def _creds(token, user):
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )


def make(folder):
    """(lines for the server's configuration, the user's .creds file, one of a user that another account signed)."""
    operator = _pair(nkeys.PREFIX_BYTE_OPERATOR)
    account, other, system = (_pair(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(3))
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    storage = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    preload = ""
    for pair, more in ((account, storage), (system, {})):
        claims = {"type": "account", "limits": {**limits, "wildcards": True, **more}}
        preload += f"{pair.public_key.decode()}: {_token(operator, pair, 'of ours', claims)}\n"
    config = (
        f"operator: {_token(operator, operator, 'op', {'type': 'operator'})}\nresolver: MEMORY\n"
        f"system_account: {system.public_key.decode()}\nresolver_preload: {{ {preload} }}\n"
    )
    paths = []
    for signer, name in ((account, "user.creds"), (other, "stranger.creds")):
        user = _pair(nkeys.PREFIX_BYTE_USER)
        token = _token(signer, user, name, {"type": "user", "subs": -1, "data": -1, "payload": -1})
        path = folder / name
        path.write_text(_creds(token, user))
        path.chmod(0o600)
        paths.append(str(path))
    return config, *paths
