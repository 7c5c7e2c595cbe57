"""What README shows an auditor who has none of our software: `ssh-keygen` and `sha256sum`, on good and bad evidence."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

import tallystick
from tallystick.core.sshsig import public_key_line

README: Final = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
(COMMANDS,) = [block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "ssh-keygen -Y verify" in block]

pytestmark = pytest.mark.ssh_keygen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the auditor has: the bundle, and who may sign, under the name that README uses."""
    with tallystick.open(tmp_path / "audited") as ledger:
        ledger.append(event_type="user.created", entity_id="user-7", actor="admin-jane")
        ledger.export(tmp_path / "evidence")
        signer = f"{ledger.origin} {public_key_line(ledger.evidence_key)}\n"
    (tmp_path / "allowed_signers").write_text(signer)
    return tmp_path


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-euo", "pipefail", "-c", COMMANDS]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_they_take_a_good_bundle(folder: Path) -> None:
    done = run(folder)

    assert done.returncode == 0, done.stderr
    assert 'Good "tallystick-bundle@v1" signature for local/audited' in done.stdout
    assert "evidence/events.jsonl: OK" in done.stdout


@pytest.mark.parametrize("name", ["manifest.json", "events.jsonl", "manifest.json.sig"])
def test_they_refuse_a_byte_changed_in_any_of_the_three_files(folder: Path, name: str) -> None:
    path = folder / "evidence" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    assert run(folder).returncode != 0


def test_they_refuse_another_signer_and_another_name(folder: Path) -> None:
    signers = folder / "allowed_signers"
    good = signers.read_text()

    signers.write_text(good.replace("local/audited", "local/other"))
    another_name = run(folder)
    with tallystick.open(folder / "stranger") as stranger:
        signers.write_text(f"local/audited {public_key_line(stranger.evidence_key)}\n")
    another_signer = run(folder)

    assert another_name.returncode != 0
    assert another_signer.returncode != 0
