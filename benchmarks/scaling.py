"""(e) Time against the number of images, severities and methods."""

from benchmarks.jobs import SIX_METHODS, probe_job, six_method_plan, subject
from benchmarks.tables import Table, spread
from benchmarks.timing import in_turns

SAMPLES, SEVERITIES, METHODS = (8, 16, 32), (1, 3, 5), (1, 3, 5)


def measure(*, device: str, rounds: int) -> Table:
    """Time ResNet-18 at 112 px."""
    table = Table(
        key="scaling",
        title="More images, severities, methods",
        columns=["what", "from", "to", "time ratio", "ratio if exactly linear"],
        text="ResNet-18 at 112 px, four noises; 8 images, one severity and one method unless said otherwise. Methods "
        f"are the gradient methods. Median (quartiles) of {rounds} pairs.",
    )
    jobs = {}
    for count in SAMPLES:
        jobs["images", count] = probe_job(
            subject("ResNet-18", count=count, device=device, side=112), six_method_plan(methods=SIX_METHODS[:1])
        )
    on = subject("ResNet-18", count=8, device=device, side=112)
    for count in SEVERITIES:
        levels = range(1, count + 1)
        jobs["severities", count] = probe_job(on, six_method_plan(methods=SIX_METHODS[:1], severities=levels))
    for count in METHODS:
        jobs["methods", count] = probe_job(on, six_method_plan(methods=SIX_METHODS[:count]))
    times = in_turns({f"{what} {count}": job for (what, count), job in jobs.items()}, rounds=rounds)
    for what, counts in (("images", SAMPLES), ("severities", SEVERITIES), ("methods", METHODS)):
        for count in counts[1:]:
            ratio = times.ratio(f"{what} {count}", f"{what} {counts[0]}")
            table.rows.append([what, counts[0], count, spread(ratio), _linear(what, counts[0], count)])
    added = (times.ratio("methods 5", "methods 1")[0] - 1) / 4
    table.goal = f"less than 5% a gradient method: {added:.1%}, {'reached' if added < 0.05 else 'missed'}."
    return table


def _linear(what: str, start: int, end: int) -> str:
    if what == "methods":
        return "1"
    passes = (1 + 4 * start, 1 + 4 * end) if what == "severities" else (start, end)
    return f"{passes[1] / passes[0]:.2f}"
