"""Write tests/vectors/privacy.json: what Google's dp-accounting says of Gaussian noise, to hold ours against.

`pip install dp-accounting==0.6.0`, then `python tests/vectors/make_privacy.py`.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import dp_accounting
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from fedchain.protocol.privacy import ORDERS

CASES = (
    (9.61, 1.0, 20, 1e-5),
    (5.18, 1.0, 20, 1e-5),
    (2.85, 1.0, 20, 1e-5),
    (1.0, 0.1, 100, 1e-5),
    (0.8, 0.05, 400, 1e-5),
    (2.0, 0.01, 1000, 1e-6),
    (1.1, 0.2, 100, 1e-5),
    (6.0, 0.5, 50, 1e-7),
)


def main() -> None:
    cases = []
    for z, q, rounds, delta in CASES:
        event = dp_accounting.GaussianDpEvent(z)
        if q < 1:
            event = dp_accounting.PoissonSampledDpEvent(q, event)
        cases.append(
            {
                "z": z,
                "q": q,
                "rounds": rounds,
                "delta": delta,
                "epsilon_whole_orders": RdpAccountant(ORDERS).compose(event, rounds).get_epsilon(delta),
                "epsilon_all_orders": RdpAccountant().compose(event, rounds).get_epsilon(delta),
                "epsilon_pld": PLDAccountant().compose(event, rounds).get_epsilon(delta),
            }
        )
    made = {"made_with": f"dp-accounting {version('dp-accounting')}", "gaussian": cases}
    (Path(__file__).parent / "privacy.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
