"""Verifies Tallystick evidence bundles and proofs, by SPEC 11 and without the software that made them."""

from tallystick_verify.bundle import Finding as Finding
from tallystick_verify.bundle import Report as Report
from tallystick_verify.canonical import RefusedError as RefusedError
from tallystick_verify.judge import judge_checkpoint as judge_checkpoint
from tallystick_verify.judge import judge_proof as judge_proof
from tallystick_verify.judge import judge_record as judge_record
from tallystick_verify.judge import verify_bundle as verify_bundle
from tallystick_verify.judge import verify_pair as verify_pair
