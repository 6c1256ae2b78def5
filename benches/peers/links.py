#!/usr/bin/python3
"""What a reader sees while certbot switches the links of a lineage from one version to the other and back:
links.py [--swaps N]

The reader opens privkey.pem and fullchain.pem in the lineage's folder below `live`, one after the other and
without pause. It uses certbot's own code (Debian package `certbot`), so it has to be run by the Python that
certbot is installed for. The same for wicketgate, with combined.pem beside the two:

    WICKETGATE_TESTS_THOROUGH=1 cargo test --test it crash::readers -- --nocapture"""
import argparse
import multiprocessing
import pathlib
import sys
import tempfile

from certbot._internal import cli, storage
from certbot._internal.plugins import disco
from certbot.configuration import NamespaceConfig

from lib import certs


def read(live, whose, over, seen):
    """Counts until told to end: reads, missing files, pairs of two versions."""
    reads = missing = mixed = 0
    while not over.is_set():
        reads += 1
        try:
            key, chain = (live / "privkey.pem").read_bytes(), (live / "fullchain.pem").read_bytes()
        except FileNotFoundError:
            missing += 1
            continue
        mixed += whose[key] != whose[chain]
    seen.put((reads, missing, mixed))


def lineage(folder):
    """A lineage with two versions, made by certbot itself."""
    arguments = ["certonly", "--config-dir", str(folder), "--work-dir", str(folder / "work"),
                 "--logs-dir", str(folder / "logs"), "-d", "bench.test"]
    config = NamespaceConfig(cli.prepare_and_parse_args(disco.PluginsRegistry.find_all(), arguments))
    first, second = (certs(folder / name) for name in ("first", "second"))
    parts = [[(made / name).read_bytes() for name in ("leaf.pem", "leaf.key", "ca.pem")] for made in (first, second)]
    made = storage.RenewableCert.new_lineage("bench.test", *parts[0], config)
    made.save_successor(1, *parts[1], config)
    whose = {}
    for number, (leaf, key, chain) in enumerate(parts):
        whose[key] = whose[leaf + chain] = number
    return made, whose


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=2000)
    swaps = parser.parse_args().swaps
    with tempfile.TemporaryDirectory(prefix="wicketgate-links-") as folder:
        made, whose = lineage(pathlib.Path(folder))
        over, seen = multiprocessing.Event(), multiprocessing.Queue()
        live = pathlib.Path(folder) / "live/bench.test"
        reader = multiprocessing.Process(target=read, args=(live, whose, over, seen))
        made.update_all_links_to(1)
        reader.start()
        for swap in range(swaps):
            made.update_all_links_to(2 - swap % 2)
        over.set()
        reads, missing, mixed = seen.get(timeout=60)
        reader.join()
    print(f"certbot, {swaps} swaps: {reads} reads, {missing} met a missing file, {mixed} mixed pairs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
