"""The paper's experiment as one command: a grid measured offline, with statistics, tables, figures and a page."""
