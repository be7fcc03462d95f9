"""The figure of the page: how the scores of users are spread, and where the proposed ones lie."""

from __future__ import annotations

import numpy as np

from e2urec_core.report.canvas import GREY, PALE, SUBJECT, canvas, svg_text
from e2urec_core.report.looks import Drawing, exact
from e2urec_core.report.pollution.schema import PollutionDocument
from e2urec_core.report.wording import whole

WIDTH, HEIGHT = 520, 285


def scores(document: PollutionDocument) -> Drawing:
    """Users by score, all and proposed."""
    name, heading = "scores", "Scores of users"
    bars = document.bars
    edges = np.array([*(bar.low for bar in bars), bars[-1].high])
    with canvas(WIDTH, HEIGHT, name=name) as figure:
        axes = figure.add_subplot()
        axes.stairs([bar.users for bar in bars], edges, fill=True, color=PALE)
        axes.stairs([bar.users for bar in bars], edges, color=GREY, linewidth=1.2)
        axes.stairs([bar.proposed for bar in bars], edges, fill=True, color=SUBJECT)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("Mean label quality of a user (no unit)")
        axes.set_title("Users in a bar (count)", pad=10)
        drawn = svg_text(figure, name=name, title=heading)
    caption = (
        f"n = {whole(document.num_users)} users, {whole(document.num_rows)} training rows, one seed. "
        "Filled: proposed users. The lower the score, the less other users' rows lead one to expect the labels."
    )
    table = [("From", "To", "Users", "Proposed")]
    table += [(exact(bar.low), exact(bar.high), whole(bar.users), whole(bar.proposed)) for bar in bars if bar.users]
    return Drawing(name, heading, (drawn,), caption, tuple(table))
