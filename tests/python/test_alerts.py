"""The alert rules of docs/howto/operating.md ask for metrics that are there.

natslease's own come from natslease.contrib.prometheus. Those of the servers come from
prometheus-nats-exporter, which is run where it is on PATH. Debian's promtool reads the rules.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

import debian
import natslease
from docpages import ROOT, read
from natslease.contrib.prometheus import Metrics
from natslease.testing import Server
from natslease.testing._server import reserve_port
from program import Program, await_that

PAGE = ROOT / "docs" / "howto" / "operating.md"
EXPORTER = "prometheus-nats-exporter"
# What Prometheus itself adds to all that it reads from a target.
_TARGET = {"job", "instance"}
_SELECTOR = re.compile(r"\b((?:natslease|jetstream|gnatsd)_\w+)(?:\{(.*?)\})?")
_MATCHER = re.compile(r'(\w+)="([^"]*)"')
_GROUPED = re.compile(r"\b(?:by|on|without|ignoring) *\(([^)]*)\)")
# A rule may name no metric and no label that nobody has seen in the exporter's answer.
_CONSUMER = {"stream_name", "consumer_name", "is_consumer_leader"}
SEEN = {
    "jetstream_consumer_num_ack_pending": _CONSUMER,
    "jetstream_consumer_num_pending": _CONSUMER,
    "jetstream_consumer_num_redelivered": _CONSUMER,
    "jetstream_server_max_storage": {"server_name"},
    "jetstream_server_total_message_bytes": {"server_name"},
    "jetstream_server_total_streams": {"server_name"},
    "jetstream_stream_last_seq": {"stream_name", "is_stream_leader"},
}


@dataclass(frozen=True)
class Asked:
    """What a rule asks for: a metric, labels that it must have, and those with their values."""

    rule: str
    metric: str
    labels: frozenset[str]
    values: tuple[tuple[str, str], ...]

    def find(self, samples: Iterable[Sample]) -> list[Sample]:
        """The samples that the rule would look at."""
        return [
            sample
            for sample in samples
            if sample.name == self.metric
            and sample.labels.keys() >= self.labels
            and sample.labels.items() >= set(self.values)
        ]


def asked(*, own: bool) -> list[Asked]:
    """What the page's rules ask for: of natslease's own metrics, or of all others."""
    return [rule for rule in _rules() if rule.metric.startswith("natslease_") == own]


def text_of_the_rules() -> str:
    """The file that the page gives to Prometheus."""
    (block,) = (block for block in read(PAGE) if block.marker == "file alerts.yml")
    return block.text


def _rules() -> Iterator[Asked]:
    for group in yaml.safe_load(text_of_the_rules())["groups"]:
        for rule in group["rules"]:
            expression = rule["expr"]
            grouped = {g for found in _GROUPED.findall(expression) for g in re.split(r"\W+", found)}
            labels = frozenset(grouped - _TARGET - {""})
            for metric, matchers in _SELECTOR.findall(expression):
                values = tuple(_MATCHER.findall(matchers))
                assert bool(values) == bool(matchers), expression
                yield Asked(rule["alert"], metric, labels, values)


def samples(text: str) -> list[Sample]:
    return [s for family in text_string_to_metric_families(text) for s in family.samples]


def test_natsleases_own_are_there(nats_url: str) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry=registry)
    client = natslease.Client(nats_url)
    metrics.watch(client)
    client.ping()
    there = samples(generate_latest(registry).decode())
    rules = asked(own=True)
    assert len(rules) >= 5
    assert [rule for rule in rules if not rule.find(there)] == []


def test_those_of_the_exporter_have_been_seen() -> None:
    for rule in asked(own=False):
        assert rule.metric in SEEN, rule
        assert rule.labels | dict(rule.values).keys() <= SEEN[rule.metric], rule


@pytest.fixture
def exporter(nats_server: Server) -> Iterator[str]:
    """Where the exporter answers, run on the test's server with the options that the page says."""
    program = shutil.which(EXPORTER)
    if program is None:
        pytest.skip(f"{EXPORTER} is not on PATH")
    (command,) = re.findall(rf"`({EXPORTER} [^`]*)`", PAGE.read_text())
    _, *options, url = shlex.split(command)
    assert url == "http://localhost:8222"
    with reserve_port() as reservation:
        address, port = reservation.getsockname()
        listen = ("-addr", address, "-port", str(port))
        with Program(Path(program), *listen, *options, nats_server.monitor_url) as running:
            running.await_output("listening at")
            yield f"http://{address}:{port}/metrics"


def test_the_exporter_has_them(nats_server: Server, exporter: str) -> None:
    client = natslease.Client(nats_server.url)
    queue = client.queue("images", max_deliver=2, dead_letters="dead")
    queue.ensure()
    queue.publish([b"a", b"b", b"c"])
    (lease,) = queue.reserve(1, wait=5)

    def scrape() -> list[Sample]:
        with urllib.request.urlopen(exporter, timeout=10) as answer:
            return samples(answer.read().decode())

    await_that(lambda: bool([s for s in scrape() if s.name == "jetstream_stream_last_seq"]))
    there = scrape()
    rules = asked(own=False)
    assert rules
    assert [rule for rule in rules if not rule.find(there)] == []
    for metric, labels in SEEN.items():
        assert any(s.name == metric and s.labels.keys() >= labels for s in there), metric

    def value(metric: str, **labels: str) -> float:
        (found,) = Asked("", metric, frozenset(), tuple(labels.items())).find(there)
        return found.value

    images = {"stream_name": "images", "consumer_name": "images", "is_consumer_leader": "true"}
    assert value("jetstream_consumer_num_pending", **images) == 2
    assert value("jetstream_consumer_num_ack_pending", **images) == 1
    assert value("jetstream_stream_last_seq", stream_name="dead") == 0
    assert value("jetstream_server_total_streams") == 2
    assert value("jetstream_server_max_storage") > value("jetstream_server_total_message_bytes") > 0
    assert lease.data == b"a"


# A consumer that nobody works on, which a follower's exporter tells of, too, and one that is busy.
CASES = """
rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'jetstream_consumer_num_pending{IDLE}', values: 1+0x60}
      - {series: 'jetstream_consumer_num_ack_pending{IDLE}', values: 0+0x60}
      - {series: 'jetstream_consumer_num_pending{FOLLOWER}', values: 1+0x60}
      - {series: 'jetstream_consumer_num_ack_pending{FOLLOWER}', values: 0+0x60}
      - {series: 'jetstream_consumer_num_pending{BUSY}', values: 1+0x60}
      - {series: 'jetstream_consumer_num_ack_pending{BUSY}', values: 1+0x60}
      - {series: 'jetstream_stream_last_seq{stream_name="dead"}', values: 5+0x40 6+0x20}
    alert_rule_test:
      - {alertname: NobodyWorks, eval_time: 10m}
      - alertname: NobodyWorks
        eval_time: 20m
        exp_alerts:
          - exp_labels: {is_consumer_leader: "true", consumer_name: idle}
            exp_annotations: {summary: "tasks wait, and none is leased"}
      - {alertname: DeadLetters, eval_time: 40m}
      - alertname: DeadLetters
        eval_time: 45m
        exp_alerts:
          - exp_labels: {stream_name: dead}
            exp_annotations: {summary: "tasks have failed on their last attempt"}
      - {alertname: AllLeasesAreOut, eval_time: 45m}
"""
CONSUMERS = {
    "IDLE": 'is_consumer_leader="true",consumer_name="idle"',
    "FOLLOWER": 'is_consumer_leader="false",consumer_name="idle"',
    "BUSY": 'is_consumer_leader="true",consumer_name="busy"',
}


def test_prometheus_understands_the_rules(tmp_path: Path) -> None:
    promtool = debian.program_or_skip("promtool", "prometheus")
    (tmp_path / "alerts.yml").write_text(text_of_the_rules())
    cases = re.sub("|".join(CONSUMERS), lambda found: CONSUMERS[found[0]], CASES)
    (tmp_path / "cases.yml").write_text(cases)
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "cases.yml"]):
        done = subprocess.run(
            [promtool.path, *command],
            cwd=tmp_path,
            env=promtool.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout
