"""The auditor: recomputes every round from chain and store, with no key and nobody's permission.

`audit` takes readers and gives a `Report`; `write_html` and `print_report` show it to people, `Report.to_json` to
machines. `follow` watches a federation while it runs, and with a sender challenges what is wrong.
"""

from .audit import audit
from .html import write_html
from .report import CHECKS, Account, Check, Report, Seconds, Status
from .terminal import print_report
from .watchtower import follow

__all__ = ["CHECKS", "Account", "Check", "Report", "Seconds", "Status", "audit", "follow", "print_report", "write_html"]
