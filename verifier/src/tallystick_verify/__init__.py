"""Verifies Tallystick evidence bundles and proofs, by SPEC 11 and without the software that made them."""

from tallystick_verify.canonical import RefusedError
from tallystick_verify.judge import judge_checkpoint, judge_proof, judge_record, verify_bundle, verify_pair
from tallystick_verify.report import Finding, Report

__all__ = ["Finding", "RefusedError", "Report", "judge_checkpoint", "judge_proof", "judge_record"]
__all__ += ["verify_bundle", "verify_pair"]
