"""What a source holds and whether the gate would let it in: found out without a run, told in numbers and on one page.

No stage uses this folder, and the keys of stages leave it out. No user is named in anything that it writes.
"""

from e2urec_core.data_page.findings import Findings, check_source, read_source
from e2urec_core.data_page.page import render
from e2urec_core.data_page.shape import rows_of_users
from e2urec_core.data_page.verdicts import write_data_docs
from e2urec_core.data_page.wording import document, text

__all__ = ["Findings", "check_source", "document", "read_source", "render", "rows_of_users", "text", "write_data_docs"]
