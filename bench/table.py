#!/usr/bin/env python3
"""table.py: sipedge-proxy beside Kamailio and a bare relay (and OpenSIPS, where OPENSIPS names a command that does the same job), in
turn, in a network namespace of their own. Prints the table of figures with ratios and goals, and writes table.json and table.svg.

  table.py                         all figures, three runs each: some 30 minutes on a quiet machine
  table.py --reps 1 --only instr   one figure: instr cpu mem rate overload shards lookup reload
  table.py --figures PATH          also writes what `sipedge capacity` works with; needs cpu and mem

What cannot be measured stands in the table with the reason. BENCH_OUT=DIR (default: out/ here) takes binaries, logs and results;
SIPEDGE_PROXY=PATH is the program (default: the release build), ENGINE_BENCH=PATH the micro-benchmark (default: built by cargo)."""

import argparse
import contextlib
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
OUT = os.path.abspath(os.environ.get("BENCH_OUT") or os.path.join(HERE, "out"))
os.environ["BENCH_OUT"] = OUT

import bench as tools  # noqa: E402 (it takes BENCH_OUT as it is when it is read)
import instr  # noqa: E402
import prefixes  # noqa: E402

RELAY = [os.path.join(OUT, "relay"), "s", "127.0.0.2:5060", "127.0.0.10:5070", "127.0.0.20:5080"]
# Calls of the memory figures, and calls per second of the CPU figure.
HELD, RATE = 20000, 1000
# s of load before memory in the steady state is looked at, and s until the last transaction of a call has gone: 64 x T1 is 32 s. Kamailio
# keeps its transactions for 5 s.
WARM = {"sipedge": 36, "kamailio": 10}
GONE = {"sipedge": 34, "kamailio": 8}
# s of twice the highest rate; ms until a call that was not answered by then is given up; s of the load that follows.
OVERLOAD, GIVEN_UP_MS, AFTER = 5, 720, 3
# Calls per second, and s, while the prefixes are taken up; s before each time.
RELOAD_RATE, RELOAD_SECONDS, RELOAD_PAUSE = 200, 30, 1
# Cores that two shards and the generator need.
SHARD_CORES = 4
# s for one measurement of bench.py. The slowest takes two minutes.
LONGEST = 600

# Figure: (what measures it, text, unit, whether less is better, goal, of which the goal is a multiple). In the order of the table.
GOALS = {
    "instructions": ("instr", "user instructions per call", "", True, 45000, None),
    "cpu_us": ("cpu", "CPU per call at 1,000 cps, even arrivals", "µs", True, 2.0, "relay"),
    "cpu_us_kamailio": ("cpu", "the same against Kamailio", "µs", True, 0.25, "kamailio"),
    "invite_p50_us": ("cpu", "INVITE one way, p50", "µs", True, 1.5, "relay"),
    "invite_p99_us": ("cpu", "INVITE one way, p99", "µs", True, 1.5, "relay"),
    "ringing_bytes": ("mem", "memory per ringing call", "B", True, 1500, None),
    "answered_bytes": ("mem", "memory per answered call", "B", True, 0, None),
    "idle_kb": ("mem", "memory at start", "KB", True, 12288, None),
    "steady_kb": ("mem", "memory at 1,000 cps steady", "KB", True, 40960, None),
    "rate_cps": ("rate", "highest rate, generator on the same cores", "cps", False, 25000, None),
    "goodput": ("overload", "goodput at twice that rate, of the highest", "", False, 0.9, None),
    "goodput_after": ("overload", "goodput 1 s after, of what is offered", "", False, 0.99, None),
    "shards": ("shards", "two shards against one", "", False, 1.8, None),
    "lookup_ns": ("lookup", "source lookup among 1,000,000 prefixes", "ns", True, 100, None),
    "reload_s": ("reload", "reload of that table, written as JSON", "s", True, 1, None),
    "reload_yaml_s": ("reload", "the same, written as YAML", "s", True, 1, None),
    "reload_failed": ("reload", "calls that failed during these reloads", "", True, 0, None),
}
FIGURES = list(dict.fromkeys(goal[0] for goal in GOALS.values()))
# Rows that show another row's values.
SAME = {"cpu_us_kamailio": "cpu_us"}
# Share of the calls that may fail where memory is looked at: it moves the figure by no more.
LOST = 0.01
# Memory is taken up in pages: what so many calls move it by without any of them holding anything.
ZERO_BYTES = 8


class NotMeasured(Exception):
    """Why a figure has no value."""


def say(text):
    print("%s %s" % (time.strftime("%H:%M:%S"), text), file=sys.stderr, flush=True)


def bench(what, name, cmd, *more):
    """One measurement of bench.py."""
    line = [sys.executable, os.path.join(HERE, "bench.py"), what, "--name", name, "--gen", "callgen", "--cmd", " ".join(cmd), *more]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=LONGEST)
    if ran.returncode != 0:
        raise NotMeasured("bench.py %s: %s" % (what, (ran.stderr.strip().splitlines() or ["no reason given"])[-1][-200:]))
    return json.loads(ran.stdout.strip().splitlines()[-1])


def generator(calls, rate, give_up_ms=2500):
    """Command line of that load."""
    addresses = ["127.0.0.10:5070", "127.0.0.20:5080", "127.0.0.2:5060"]
    return [os.path.join(OUT, "callgen"), *addresses, str(int(calls)), str(rate), "80", "200", str(give_up_ms)]


def load(rate, seconds, give_up_ms):
    """What the generator says of so much load on the proxy that runs; with the calls per second that were carried from end to end."""
    ran = subprocess.run(generator(rate * seconds, rate, give_up_ms), capture_output=True, text=True, check=True, timeout=LONGEST)
    said = json.loads(ran.stdout)
    return {**said, "carried_cps": said["ok"] / said["secs"]}


class Table:
    """What was measured: figure, then who, then all its values; and why a figure has none."""

    def __init__(self):
        self.values = {}
        self.reasons = {}

    def add(self, figure, who, value):
        self.values.setdefault(figure, {}).setdefault(who, []).append(value)

    def median(self, figure, who):
        values = self.values.get(figure, {}).get(who)
        return statistics.median(values) if values else None

    @contextlib.contextmanager
    def attempt(self, part, who):
        """What goes wrong within keeps no other figure from being measured."""
        say("%s: %s" % (part, who))
        try:
            yield
        except (Exception, SystemExit) as why:
            reason = str(why) or type(why).__name__
            say("%s: %s: not measured: %s" % (part, who, reason))
            self.reasons.setdefault(part, {})[who] = reason

    def rows(self, parts):
        for figure, (part, text, unit, less, goal, of) in GOALS.items():
            if part not in parts:
                continue
            key = SAME.get(figure, figure)
            measured = self.values.get(key, {})
            ours = measured.get("sipedge")
            row = dict(figure=figure, text=text, unit=unit, goal=goal, goal_of=of, bound=None, met=None, ours=None)
            row["others"] = {who: self.median(key, who) for who in measured if who != "sipedge"}
            base = self.median(key, of) if of else 1
            if base is not None:
                row["bound"] = goal * base
            if ours:
                median = statistics.median(ours)
                row["ours"] = dict(min=min(ours), median=median, max=max(ours), runs=len(ours))
                row["ratio_to_kamailio"] = ratio(median, self.median(key, "kamailio"))
                row["ratio_to_relay"] = ratio(median, self.median(key, "relay"))
                if row["bound"] is not None:
                    row["met"] = median <= row["bound"] if less else median >= row["bound"]
            reasons = self.reasons.get(part, {})
            row["not_measured"] = {who: why for who, why in reasons.items() if not measured.get(who)}
            yield row


def ratio(value, other):
    return round(value / other, 3) if other else None


def measure(table, parts, reps):
    """All figures, each contender in turn, so that what else the machine does meets all of them. Where no goal is a multiple of what
    another has, the other is measured once."""
    sipedge = [os.path.join(HERE, "sipedge.sh")]
    others = {}
    if shutil.which("kamailio"):
        others["kamailio"] = [os.path.join(HERE, "kamailio.sh")]
    else:
        for part in parts:
            table.reasons.setdefault(part, {})["kamailio"] = "no kamailio here: apt-get install kamailio"
    if os.environ.get("OPENSIPS"):
        others["opensips"] = os.environ["OPENSIPS"].split()
    for run in range(reps):
        say("run %d of %d" % (run + 1, reps))
        all_once = {**others, "sipedge": sipedge} if run == 0 else {"sipedge": sipedge}
        for part in parts:
            contenders = {**others, "sipedge": sipedge, "relay": RELAY} if part == "cpu" else all_once
            if part in ("shards", "lookup", "reload"):
                contenders = {"sipedge": sipedge}
            for who, cmd in contenders.items():
                with table.attempt(part, who):
                    MEASURES[part](table, who, cmd)


def instructions(table, who, cmd):
    if not shutil.which("valgrind"):
        raise NotMeasured("no valgrind here: apt-get install valgrind")
    table.add("instructions", who, round(instr.per_call(who, cmd)))


def cpu(table, who, cmd):
    found = bench("steady", who, cmd, "--rate", str(RATE), "--secs", "5")
    if not found["valid"]:
        say("cpu: %s: %d of %d calls at %.0f cps; once more" % (who, found["ok"], found["calls"], found["cps_real"]))
        found = bench("steady", who, cmd, "--rate", str(RATE), "--secs", "5")
    if not found["valid"]:
        raise NotMeasured("%d of %d calls, %.0f of %d cps" % (found["ok"], found["calls"], found["cps_real"], RATE))
    table.add("cpu_us", who, found["cpu_us_per_call"])
    table.add("invite_p50_us", who, found["rtt"]["ow_invite"]["p50"])
    table.add("invite_p99_us", who, found["rtt"]["ow_invite"]["p99"])


def memory(table, who, cmd):
    table.add("idle_kb", who, bench("idle", who, cmd, "--secs", "2")["pss_kb"])
    steady = bench("steady", who, cmd, "--rate", str(RATE), "--secs", "3", "--warm", str(WARM.get(who, 36)))
    if steady["ok"] < (1 - LOST) * steady["calls"]:
        raise NotMeasured("steady: %d of %d calls" % (steady["ok"], steady["calls"]))
    table.add("steady_kb", who, steady["pss_kb"])
    held = bench("held", who, cmd, "--calls", str(HELD), "--rate", str(RATE), "--drain", str(GONE.get(who, 34)))
    if held["failed"] > LOST * 2 * HELD:
        raise NotMeasured("held: %d of %d calls failed" % (held["failed"], 2 * HELD))
    table.add("ringing_bytes", who, held["ringing_bytes"])
    table.add("answered_bytes", who, 0 if abs(held["answered_bytes"]) < ZERO_BYTES else held["answered_bytes"])


def rate(table, who, cmd):
    found = bench("max", who, cmd, "--lo", "2000", "--hi", "64000", "--step", "1000", "--secs", "3")
    if not found["max_cps"]:
        raise NotMeasured("not even 2,000 cps: %s" % found["tried"])
    table.add("rate_cps", who, found["max_cps"])


def overload(table, who, cmd):
    """Twice the highest rate, then a rate that the proxy stands, from 1 s after: how much of each is answered."""
    highest = table.median("rate_cps", who)
    if highest is None:
        raise NotMeasured("it takes the highest rate: --only rate overload")
    proxy = tools.Proxy(" ".join(cmd))
    try:
        load(highest / 2, 2, GIVEN_UP_MS)
        dropped = tools.udp_drops(5060)
        twice = load(2 * highest, OVERLOAD, GIVEN_UP_MS)
        # The generator gave up 1 s after its last call: 720 ms, and the 280 ms that a call lasts.
        after = load(0.8 * highest, AFTER, 2500)
        dropped = tools.udp_drops(5060) - dropped
    finally:
        proxy.stop()
    for name, said in (("at twice the rate", twice), ("after", after)):
        counts = ", ".join("%d %s" % (said[key], key) for key in ("calls", "ok", "refused", "dup", "odd", "stale", "txerr"))
        say("overload: %s: %s: %s in %.1f s, highest rate %.0f cps" % (who, name, counts, said["secs"], highest))
    say("overload: %s: %d messages dropped at the proxy's sockets" % (who, dropped))
    table.add("goodput_after", who, round(after["carried_cps"] / after["cps_real"], 3))
    if twice["cps_real"] < 1.8 * highest:
        raise NotMeasured("the generator offered %.0f cps beside the proxy, which is not twice %.0f" % (twice["cps_real"], highest))
    table.add("goodput", who, round(twice["carried_cps"] / highest, 3))


def shards(table, who, cmd):
    """The highest rate of two shards over that of one."""
    if (os.cpu_count() or 1) < SHARD_CORES:
        raise NotMeasured("it takes %d cores: two for the shards, and others for the generator" % SHARD_CORES)
    found = [
        bench("max", who, ["env", "SHARDS=%d" % count] + cmd, "--lo", "2000", "--hi", "64000", "--step", "1000", "--secs", "3")
        for count in (1, 2)
    ]
    one, two = [each["max_cps"] for each in found]
    if not one:
        raise NotMeasured("one shard stood no rate at all")
    table.add("shards", who, round(two / one, 2))


def lookup(table, who, _cmd):
    """By the micro-benchmark: the mean that criterion works out."""
    program = os.environ.get("ENGINE_BENCH")
    if not program:
        raise NotMeasured("cargo is not here, or has not built the micro-benchmark: what it said is above")
    home = os.path.join(OUT, "criterion")
    shutil.rmtree(home, ignore_errors=True)
    name = "a source among a million prefixes"
    line = [program, "--bench", name, "--warm-up-time", "1", "--measurement-time", "2", "--noplot"]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=LONGEST, env={**os.environ, "CRITERION_HOME": home})
    path = os.path.join(home, name, "new", "estimates.json")
    if not os.path.exists(path):
        raise NotMeasured("the micro-benchmark has left no %s: %s" % (path, ran.stderr.strip()[-200:]))
    with open(path) as file:
        table.add("lookup_ns", who, round(json.load(file)["mean"]["point_estimate"], 1))


def reload(table, who, cmd):
    """The table is taken up while calls come and go: first written as YAML, then, with another prefix, as JSON."""
    run = os.path.join(OUT, "sipedge")
    program = os.environ.get("SIPEDGE_PROXY") or os.path.join(HERE, "..", "target", "release", "sipedge-proxy")
    endpoint = ["--control", os.path.join(run, "control.sock"), "--json"]
    with open(os.path.join(HERE, "sipedge.yaml")) as file:
        plain = file.read().replace("@SHARDS@", "1")

    def ask(command):
        answer = subprocess.run([program, command, *endpoint], capture_output=True, text=True, timeout=LONGEST)
        if answer.returncode != 0:
            raise NotMeasured("sipedge-proxy %s: %s" % (command, " ".join((answer.stderr or answer.stdout).split())[:300]))
        return json.loads(answer.stdout)

    def take_up(text):
        # Beside its place and renamed: it is read whole.
        with open(os.path.join(run, "config.new"), "w") as file:
            file.write(text)
        os.replace(os.path.join(run, "config.new"), os.path.join(run, "config.yaml"))
        begun = time.monotonic()
        changed = ask("reload")["changed"]
        took = time.monotonic() - begun
        if changed != ["trunks"]:
            raise NotMeasured("the reload changed %s, and not the trunks" % changed)
        return round(took, 3)

    proxy = tools.Proxy(" ".join(cmd))
    calls = None
    try:
        now = ask("config")["config"]
        texts = {
            "reload_yaml_s": prefixes.as_yaml(plain, prefixes.many(0)),
            "reload_s": prefixes.as_json(now, prefixes.many(prefixes.COUNT // 10)),
        }
        calls = subprocess.Popen(generator(RELOAD_RATE * RELOAD_SECONDS, RELOAD_RATE), stdout=subprocess.PIPE, text=True)
        took = {}
        for figure, text in texts.items():
            time.sleep(RELOAD_PAUSE)
            took[figure] = take_up(text)
            say("reload: %s: %.3f s" % (figure, took[figure]))
        if calls.poll() is not None:
            raise NotMeasured("the reloads took longer than the calls came, %d s: %s" % (RELOAD_SECONDS, took))
        said = json.loads(calls.communicate(timeout=LONGEST)[0])
    finally:
        if calls and calls.poll() is None:
            calls.kill()
        proxy.stop()
    say(
        "reload: %s; %d of %d calls failed, INVITE one way at most %.0f µs"
        % (took, said["failed"], said["calls"], said["ow_invite"]["max"])
    )
    for figure, seconds in took.items():
        table.add(figure, who, seconds)
    table.add("reload_failed", who, said["failed"])


MEASURES = {
    "instr": instructions,
    "cpu": cpu,
    "mem": memory,
    "rate": rate,
    "overload": overload,
    "shards": shards,
    "lookup": lookup,
    "reload": reload,
}


def number(value):
    if value is None:
        return "-"
    return "{:,.0f}".format(value) if abs(value) >= 100 else "{:g}".format(round(value, 3))


def text_of(rows):
    head = ["figure", "kamailio", "relay", "goal", "sipedge min", "median", "max", "of kamailio", "of relay", ""]
    lines = [head]
    for row in rows:
        goal = ("≤ " if GOALS[row["figure"]][3] else "≥ ") + number(row["goal"]) + (" × " + row["goal_of"] if row["goal_of"] else "")
        ours = row["ours"] or dict(min=None, median=None, max=None)
        verdict = {True: "met", False: "not met", None: ""}[row["met"]]
        missing = ["%snot measured: %s" % ("" if who == "sipedge" else who + " ", why) for who, why in row["not_measured"].items()]
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
                number(row.get("ratio_to_kamailio")),
                number(row.get("ratio_to_relay")),
                "; ".join([verdict] * bool(verdict) + missing),
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
        ours = {"sipedge": row["ours"]["median"]} if row["ours"] else {}
        bars = {**ours, **{who: value for who, value in row["others"].items() if value is not None}}
        most = max([*bars.values(), row["bound"] or 0]) or 1
        parts.append('<text x="8" y="%d" font-weight="bold">%s</text>' % (y + 12, row["text"]))
        if not ours:
            parts.append('<text x="%d" y="%d">sipedge not measured</text>' % (left, y + 10))
            y += high
        for who, value in bars.items():
            length = max(1, wide * value / most)
            parts.append('<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>' % (left, y, length, high - 4, colours.get(who, "#444")))
            parts.append('<text x="%.1f" y="%d">%s %s</text>' % (left + length + 6, y + 10, who, number(value)))
            y += high
        if row["bound"] is not None and bars:
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
    # In the order of the table, whatever the order of the arguments: overload takes the rate.
    given.only = [figure for figure in FIGURES if figure in given.only]
    os.makedirs(OUT, exist_ok=True)
    subprocess.run(["make", "-s", "-C", HERE, "OUT=" + OUT], check=True)
    if not os.environ.get("BENCH_IN_NAMESPACE"):
        os.environ["BENCH_IN_NAMESPACE"] = "1"
        if "lookup" in given.only:
            build_engine_bench()
        inside = ["unshare", "-rn", "sh", "-c", 'ip link set lo up; exec "$@"', "_", sys.executable, *sys.argv]
        os.execvp(inside[0], inside)
    table = Table()
    begun = time.monotonic()
    measure(table, given.only, given.reps)
    say("measured in %.0f minutes" % ((time.monotonic() - begun) / 60))
    rows = list(table.rows(given.only))
    print(text_of(rows))
    machine = dict(cores=os.cpu_count(), kernel=platform.release(), processor=processor())
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    with open(os.path.join(OUT, "table.json"), "w") as file:
        json.dump(
            dict(date=date, machine=machine, rows=rows, values=table.values, not_measured=table.reasons), file, indent=2, ensure_ascii=False
        )
    with open(os.path.join(OUT, "table.svg"), "w") as file:
        file.write(svg_of(rows))
    if given.figures:
        write_figures(given.figures, table, date, machine)


def build_engine_bench():
    """Where there is cargo. Outside of the namespace, which has no network."""
    if os.environ.get("ENGINE_BENCH") or not shutil.which("cargo"):
        return
    say("lookup: cargo builds the micro-benchmark")
    line = ["cargo", "bench", "--locked", "-p", "sipedge-proxy", "--bench", "engine", "--no-run", "--message-format=json"]
    built = subprocess.run(line, cwd=os.path.join(HERE, ".."), stdout=subprocess.PIPE, text=True)
    for message in (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")):
        if message.get("executable") and message["target"]["name"] == "engine":
            os.environ["ENGINE_BENCH"] = message["executable"]


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
