"""A table of 1,000,000 sources for the yardstick's configuration, which the trunk `many` has beside the other two."""

import json

COUNT = 1_000_000
# Of 32 bits, odd: its multiples are spread over all addresses (the golden ratio's share of 2^32).
SPREAD = 0x9E3779B1
# Networks that belong to the yardstick itself, or to nobody.
TAKEN = (0, 127)


def many(first):
    """Networks of 18 to 32 bits, no two the same. Another `first` leaves out as many at the beginning and has others at the end."""
    seen, found, number = set(), [], first
    while len(found) < COUNT:
        length = 18 + number % 15
        network = (number * SPREAD & 0xFFFFFFFF) >> (32 - length) << (32 - length)
        number += 1
        if network >> 24 in TAKEN or (network, length) in seen:
            continue
        seen.add((network, length))
        found.append("%d.%d.%d.%d/%d" % (network >> 24, network >> 16 & 255, network >> 8 & 255, network & 255, length))
    return found


def as_json(config, sources):
    """The configuration as `sipedge-proxy config --json` shows it, with that trunk."""
    return json.dumps({**config, "trunks": config["trunks"] + [{"name": "many", "from": sources}]})


def as_yaml(text, sources):
    """The configuration sipedge.yaml, with that trunk."""
    before, after = text.split("\nroutes:\n")
    return before + "\n  - name: many\n    from:\n" + "".join("      - %s\n" % source for source in sources) + "routes:\n" + after
