"""The LICENSE file of a package: which licences apply, and what they require of anyone who passes the package on."""

from __future__ import annotations

from potstill.components.licences.licences import LicenceVerdict

__all__ = ["licence_notice"]


def licence_notice(licences: dict[str, str], verdict: LicenceVerdict) -> str:
    """Text of LICENSE; empty where no licence is named.

    Args:
        licences: SPDX identifier, or `unknown`, of each part of the chain, by its description.
        verdict: the verdict on the chain.
    """
    known = [f"{what}: {licence}" for what, licence in licences.items() if licence != "unknown"]
    if not known:
        return ""
    lines = ["Licences by their SPDX identifiers, as stated in the recipe.", "", *known]
    duties = list(verdict.obligations) + ([] if verdict.commercial else ["use it for non-commercial purposes only"])
    if duties:
        lines += ["", "Anyone who passes this package on must:", *(f"- {duty}" for duty in duties)]
        lines += ["", "This list follows from the licences above. It is not legal advice."]
    return "\n".join([*lines, ""])
