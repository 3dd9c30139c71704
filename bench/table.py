#!/usr/bin/env python3
"""table.py: sipedge-proxy beside Kamailio and a bare relay (and OpenSIPS, where OPENSIPS names a command that does the same job), in
turn, in a network namespace of their own. Prints the table of figures with ratios and goals, and writes table.json and table.svg.

  table.py                         all figures, three runs each: some 40 minutes
  table.py --reps 1 --only instr   one figure: instr cpu mem rate overload shards
  table.py --figures PATH          also writes what `sipedge capacity` works with; needs cpu and mem

BENCH_OUT=DIR (default: out/ here) takes binaries, logs and results; SIPEDGE_PROXY=PATH is the program (default: the release build)."""

import argparse
import datetime
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.environ.setdefault("BENCH_OUT", os.path.join(HERE, "out"))
RELAY = [os.path.join(OUT, "relay"), "s", "127.0.0.2:5060", "127.0.0.10:5070", "127.0.0.20:5080"]
FIGURES = ["instr", "cpu", "mem", "rate", "overload", "shards"]
# Calls that ring at the same time, and calls per second of the CPU figure.
RINGING, RATE = 20000, 1000
# s of load before memory in the steady state, and that of answered calls, is looked at: transactions live for 64 x T1, 32 s.
WARM = 36
# What a figure may miss its goal by and still meet it. B per call: PSS counts whole pages, and 30 of them more or less are 6 B for each of 20,000 calls.
NOISE = {"answered_bytes": 8}
# s
OVERLOAD, AFTER = 5, 3

# Figure: (text, unit, whether less is better, goal, of which the goal is a multiple). In the order of the table.
GOALS = {
    "instructions": ("user instructions per call", "", True, 45000, None),
    "cpu_us": ("CPU per call at 1,000 cps, even arrivals", "µs", True, 2.0, "relay"),
    "cpu_us_kamailio": ("the same against Kamailio", "µs", True, 0.25, "kamailio"),
    "invite_p50_us": ("INVITE one way, p50", "µs", True, 1.5, "relay"),
    "invite_p99_us": ("INVITE one way, p99", "µs", True, 1.5, "relay"),
    "ringing_bytes": ("memory per ringing call", "B", True, 1500, None),
    "answered_bytes": ("memory per answered call", "B", True, 0, None),
    "idle_kb": ("memory at start", "KB", True, 12288, None),
    "steady_kb": ("memory at 1,000 cps steady", "KB", True, 40960, None),
    "rate_cps": ("highest rate, generator on the same cores", "cps", False, 25000, None),
    "goodput": ("goodput at twice that rate, of the highest", "", False, 0.9, None),
    "goodput_after": ("goodput 1 s after, of what is offered", "", False, 0.99, None),
    "shards": ("two shards against one", "", False, 1.8, None),
}


def commands():
    """Who is measured, and how each is started."""
    found = {"sipedge": [os.path.join(HERE, "sipedge.sh")]}
    if shutil.which("kamailio"):
        found["kamailio"] = [os.path.join(HERE, "kamailio.sh")]
    else:
        print("no kamailio here: apt-get install kamailio", file=sys.stderr)
    if os.environ.get("OPENSIPS"):
        found["opensips"] = os.environ["OPENSIPS"].split()
    return found


def bench(what, name, cmd, *more):
    """One measurement of bench.py; None when the proxy did not stand it."""
    line = [sys.executable, os.path.join(HERE, "bench.py"), what, "--name", name, "--gen", "callgen", "--cmd", " ".join(cmd), *more]
    ran = subprocess.run(line, capture_output=True, text=True)
    if ran.returncode != 0:
        print("%s %s: %s" % (name, what, ran.stderr.strip()[-300:]), file=sys.stderr)
        return None
    return json.loads(ran.stdout.strip().splitlines()[-1])


def load(rate, seconds):
    """So much load on the proxy that runs; calls that were answered from end to end, per second."""
    line = [
        os.path.join(OUT, "callgen"),
        "127.0.0.10:5070",
        "127.0.0.20:5080",
        "127.0.0.2:5060",
        str(int(rate * seconds)),
        str(rate),
        "80",
        "200",
        "2500",
    ]
    said = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    return said["ok"] / seconds


class Table:
    """What was measured: figure, then who, then all its values."""

    def __init__(self):
        self.values = {}

    def add(self, figure, who, value):
        if value is not None:
            self.values.setdefault(figure, {}).setdefault(who, []).append(value)

    def median(self, figure, who):
        values = self.values.get(figure, {}).get(who)
        return statistics.median(values) if values else None

    def rows(self):
        for figure, (text, unit, less, goal, of) in GOALS.items():
            key = "cpu_us" if figure == "cpu_us_kamailio" else figure
            ours = self.values.get(key, {}).get("sipedge")
            if not ours:
                continue
            base = self.median(key, of) if of else 1
            bound = goal * base if base is not None else None
            median = statistics.median(ours)
            met = None if bound is None else (median <= bound + NOISE.get(figure, 0) if less else median >= bound)
            yield dict(
                figure=figure,
                text=text,
                unit=unit,
                goal=goal,
                goal_of=of,
                bound=bound,
                met=met,
                ours=dict(min=min(ours), median=median, max=max(ours), runs=len(ours)),
                others={who: self.median(key, who) for who in self.values[key] if who != "sipedge"},
                ratio_to_kamailio=ratio(median, self.median(key, "kamailio")),
                ratio_to_relay=ratio(median, self.median(key, "relay")),
            )


def ratio(value, other):
    return round(value / other, 3) if other else None


def measure(table, figures, reps):
    """All figures, each contender in turn, so that what else the machine does meets all of them."""
    contenders = commands()
    if "instr" in figures:
        import instr

        for who, cmd in contenders.items():
            table.add("instructions", who, round(instr.per_call(who, cmd)))
    for run in range(reps):
        print("run %d of %d" % (run + 1, reps), file=sys.stderr)
        if "cpu" in figures:
            for who, cmd in {**contenders, "relay": RELAY}.items():
                found = bench("steady", who, cmd, "--rate", str(RATE), "--secs", "5")
                if found and found["valid"]:
                    table.add("cpu_us", who, found["cpu_us_per_call"])
                    table.add("invite_p50_us", who, found["rtt"]["ow_invite"]["p50"])
                    table.add("invite_p99_us", who, found["rtt"]["ow_invite"]["p99"])
        if "mem" in figures:
            for who, cmd in contenders.items():
                idle = bench("idle", who, cmd, "--secs", "2")
                steady = bench("steady", who, cmd, "--rate", str(RATE), "--secs", "3", "--warm", str(WARM))
                table.add("idle_kb", who, idle and idle["pss_kb"])
                table.add("steady_kb", who, steady and steady["pss_kb"])
                for state in ("ringing", "answered"):
                    held = bench("mem", who, cmd, "--state", state, "--calls", str(RINGING), "--rate", str(RATE), "--warm", str(WARM))
                    table.add(state + "_bytes", who, held and held["bytes_per_call_pss"])
        if "rate" in figures:
            for who, cmd in contenders.items():
                found = bench("max", who, cmd, "--lo", "2000", "--hi", "40000", "--step", "500", "--secs", "4")
                table.add("rate_cps", who, found and found["max_cps"])
        if "overload" in figures and table.median("rate_cps", "sipedge"):
            overload(table, contenders["sipedge"], table.median("rate_cps", "sipedge"))
        if "shards" in figures:
            shards(table, contenders["sipedge"])


def overload(table, cmd, highest):
    """Twice the highest rate, then a rate that the proxy stands: how much of each is answered."""
    sys.path.insert(0, HERE)
    import bench as tools

    proxy = tools.Proxy(" ".join(cmd))
    try:
        table.add("goodput", "sipedge", round(load(2 * highest, OVERLOAD) / highest, 3))
        time.sleep(1)
        offered = 0.8 * highest
        table.add("goodput_after", "sipedge", round(load(offered, AFTER) / offered, 3))
    finally:
        proxy.stop()


def shards(table, cmd):
    """The highest rate of two shards over that of one. The generator needs a core of its own: with fewer than four it says nothing."""
    if (os.cpu_count() or 1) < 4:
        print("shards: not measured, it takes 4 cores", file=sys.stderr)
        return
    rates = []
    for count in ("1", "2"):
        found = bench("max", "sipedge", ["env", "SHARDS=" + count] + cmd, "--lo", "2000", "--hi", "80000", "--step", "500", "--secs", "4")
        rates.append(found and found["max_cps"])
    if all(rates):
        table.add("shards", "sipedge", round(rates[1] / rates[0], 2))


def number(value):
    if value is None:
        return "-"
    return "{:,.0f}".format(value) if abs(value) >= 100 else "{:g}".format(round(value, 3))


def text_of(rows):
    head = ["figure", "kamailio", "relay", "goal", "sipedge min", "median", "max", "of kamailio", "of relay", ""]
    lines = [head]
    for row in rows:
        goal = ("≤ " if GOALS[row["figure"]][2] else "≥ ") + number(row["goal"]) + (" × " + row["goal_of"] if row["goal_of"] else "")
        ours = row["ours"]
        unit = " (%s)" % row["unit"] if row["unit"] else ""
        lines.append(
            [
                row["text"] + unit,
                number(row["others"].get("kamailio")),
                number(row["others"].get("relay")),
                goal,
                number(ours["min"]),
                number(ours["median"]),
                number(ours["max"]),
                number(row["ratio_to_kamailio"]),
                number(row["ratio_to_relay"]),
                {True: "met", False: "not met", None: ""}[row["met"]],
            ]
        )
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def svg_of(rows):
    """Bars for each figure, each as long as its part of the largest one; a line stands at the goal."""
    wide, left, high = 420, 330, 16
    parts, y = [], 20
    colours = {"sipedge": "#1f6f8b", "kamailio": "#c97b3d", "relay": "#8a8a8a", "opensips": "#7b5ea7"}
    for row in rows:
        bars = {"sipedge": row["ours"]["median"], **{who: value for who, value in row["others"].items() if value is not None}}
        most = max([*bars.values(), row["bound"] or 0]) or 1
        parts.append('<text x="8" y="%d" font-weight="bold">%s</text>' % (y + 12, row["text"]))
        for who, value in bars.items():
            length = max(1, wide * value / most)
            parts.append('<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>' % (left, y, length, high - 4, colours.get(who, "#444")))
            parts.append('<text x="%.1f" y="%d">%s %s</text>' % (left + length + 6, y + 10, who, number(value)))
            y += high
        if row["bound"] is not None:
            x, top = left + wide * row["bound"] / most, y - high * len(bars) - 2
            parts.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#b00020" stroke-width="2"/>' % (x, x, top, y))
        y += 10
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="960" height="%d" font-family="sans-serif" font-size="11">'
        '<rect width="100%%" height="100%%" fill="white"/>%s</svg>\n' % (y, "".join(parts))
    )


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--reps", type=int, default=3, help="runs of each timed figure")
    arguments.add_argument("--only", nargs="+", choices=FIGURES, default=FIGURES)
    arguments.add_argument("--figures", metavar="PATH", help="where to write the figures of `sipedge capacity`")
    given = arguments.parse_args()
    os.makedirs(OUT, exist_ok=True)
    subprocess.run(["make", "-s", "-C", HERE, "OUT=" + OUT], check=True)
    if not os.environ.get("BENCH_IN_NAMESPACE"):
        os.environ["BENCH_IN_NAMESPACE"] = "1"
        inside = ["unshare", "-rn", "sh", "-c", 'ip link set lo up; exec "$@"', "_", sys.executable, *sys.argv]
        os.execvp(inside[0], inside)
    table = Table()
    measure(table, given.only, given.reps)
    rows = list(table.rows())
    print(text_of(rows))
    machine = dict(cores=os.cpu_count(), kernel=platform.release(), processor=processor())
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    with open(os.path.join(OUT, "table.json"), "w") as file:
        json.dump(dict(date=date, machine=machine, rows=rows, values=table.values), file, indent=2, ensure_ascii=False)
    with open(os.path.join(OUT, "table.svg"), "w") as file:
        file.write(svg_of(rows))
    if given.figures:
        write_figures(given.figures, table, date, machine)


def write_figures(path, table, date, machine):
    """What src/capacity reads: written whole, or not at all."""
    cpu, ringing, steady = (table.values.get(figure, {}).get("sipedge") for figure in ("cpu_us", "ringing_bytes", "steady_kb"))
    if not (cpu and ringing and steady):
        raise SystemExit("--figures needs cpu and mem, and runs that the proxy stood; %s is as it was" % path)
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    figures = dict(
        as_of=date,
        commit=commit or "unknown",
        machine="%d cores, %s" % (machine["cores"], machine["processor"]),
        rate_cps=RATE,
        cpu_us_per_call=dict(min=min(cpu), median=statistics.median(cpu), max=max(cpu)),
        ringing_call_bytes=math.ceil(max(ringing)),
        memory_mib=math.ceil(max(steady) / 1024),
    )
    with open(path + ".new", "w") as file:
        json.dump(figures, file, indent=2)
        file.write("\n")
    os.replace(path + ".new", path)


def processor():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
