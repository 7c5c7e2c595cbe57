"""What a deployment begins with fits the code: the sample of settings, the unit, and the recipe of the image."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tallystick.cli.program import COMMANDS
from tallystick.serve.settings import OPTIONS

ROOT: Final = Path(__file__).parent.parent
DEPLOY: Final = ROOT / "deploy"
SAMPLE: Final = (DEPLOY / "tallystick.toml").read_text("utf-8")


def check(file: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`tallystick config check`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK_")}
    command = [sys.executable, "-m", "tallystick", "config", "check", str(file), "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env={**kept, **environment})


def uncommented(text: str) -> str:
    """The sample with all that it shows in force."""
    return re.sub(r"^# (?=\[|\w+ = )", "", text, flags=re.MULTILINE)


def test_the_sample_of_settings_is_taken(tmp_path: Path) -> None:
    done = check(DEPLOY / "tallystick.toml", TALLYSTICK_DATA=str(tmp_path))
    assert done.returncode == 0, done.stderr
    said = {one["name"]: one for one in json.loads(done.stdout)["settings"]}
    assert said["data"] == {"name": "data", "value": str(tmp_path), "from": "TALLYSTICK_DATA"}
    assert said["listen.port"]["from"].endswith("tallystick.toml")
    assert said["log.level"]["value"] == "info"


def test_the_sample_shows_every_setting() -> None:
    document = tomllib.loads(uncommented(SAMPLE))
    shown = {f"{part}.{name}" for part, below in document.items() if isinstance(below, dict) for name in below}
    shown |= {name for name, value in document.items() if not isinstance(value, dict)}
    hidden = {"oidc.algorithm", "oidc.tenant_claim"}
    assert {option.name for option in OPTIONS} - hidden == shown


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("data = 7", "data: '7' is no text"),
        ("dta = 'x'", "there is no setting 'dta'; did you mean data?"),
        ("[listen]\nport = '80'", "listen.port: '80' is no whole number"),
        ("[listen]\nport = 70000", "listen.port: 70000 is out of bounds; 0 to 65535"),
        ("[listen]\nport = true", "listen.port: 'True' is no whole number"),
        ("[listen]\nworkers = 0", "listen.workers: 0 is out of bounds"),
        ("[verification]\nhours = -1", "verification.hours: -1.0 is out of bounds"),
        ("[verification]\nhours = nan", "out of bounds"),
        ("[access]\nrecord_reads = 1", "access.record_reads: '1' is no true or false"),
        ("[log]\nlevel = 'loud'", "log.level: 'loud' is not known; use debug, info, warning, error"),
        ("[tls]\ncert = '/nowhere.pem'", "tls.cert: there is no file /nowhere.pem"),
        ("[oidc]\naudience = 'x'", "goes with --oidc-issuer"),
        ("[oidc]\nrole = 'x'", "oidc.role: 'x' is no list of texts"),
        ("[a]\nb = {c = 1}", "there is no setting"),
        ("= nothing", "it is no TOML"),
        ("\xff", "it is no TOML"),
        ("x" * 70_000, "more than 65,536 bytes"),
        ("data = 'deploy/tallystick.toml'", "cannot be written"),
    ],
)
def test_a_wrong_file_of_settings_is_one_clear_error(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_bytes(text.encode("latin-1"))
    done = check(file)
    assert done.returncode == 2, done.stdout
    said = json.loads(done.stderr)["error"]
    told = f"{said['place']}: {said['problem']}; {said['cure']}"
    assert problem in told
    assert "Traceback" not in done.stderr


def test_a_certificate_that_cannot_be_used_is_found_before_anything_starts(tmp_path: Path) -> None:
    for name in ("cert", "key"):
        (tmp_path / f"{name}.pem").write_text("-----BEGIN NOTHING-----\n")
    (tmp_path / "half.toml").write_text(f"[tls]\ncert = '{tmp_path}/cert.pem'\n")
    (tmp_path / "bad.toml").write_text(f"[tls]\ncert = '{tmp_path}/cert.pem'\nkey = '{tmp_path}/key.pem'\n")
    assert "a certificate and its key go together" in check(tmp_path / "half.toml").stderr
    assert "the certificate cannot be used" in check(tmp_path / "bad.toml").stderr


@pytest.mark.slow
def test_a_variable_that_nothing_reads_is_told_of(tmp_path: Path) -> None:
    done = check(DEPLOY / "tallystick.toml", TALLYSTICK_DATA=str(tmp_path), TALLYSTICK_PROT="1")
    assert (done.returncode, json.loads(done.stdout)["unknown_variables"]) == (0, ["TALLYSTICK_PROT"])
    assert check(DEPLOY / "tallystick.toml", TALLYSTICK_PORT="x").returncode == 2
    assert check(DEPLOY / "tallystick.toml", TALLYSTICK_RECORD_READS="maybe").returncode == 2


def test_the_unit_starts_what_there_is() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "tallystick.service")
    for name in ("ExecStartPre", "ExecStart"):
        program, command = unit["Service"][name].split()[:2]
        assert program.endswith("/bin/tallystick")
        assert command in COMMANDS
    assert "--config" in unit["Service"]["ExecStart"]
    for folder in unit["Service"]["StateDirectory"].split():
        assert f'"/var/lib/{folder}"' in SAMPLE


def test_the_image_is_made_of_what_there_is() -> None:
    recipe = (DEPLOY / "Dockerfile").read_text("utf-8")
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", recipe, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.findall(r"uv==([\d.]+)", recipe) == re.findall(r"UV_VERSION := ([\d.]+)", makefile)
    known = {option.variable for option in OPTIONS}
    assert set(re.findall(r"(TALLYSTICK_\w+)=", recipe)) <= known
