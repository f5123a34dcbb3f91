#!/usr/bin/env python3
"""monitoring/: alerts that speak when they should, and a dashboard whose panels all have something to show of a real run."""
import contextlib
import json
import math
import os
import pathlib
import re
import runpy
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import harness
import metrics_document

try:
    import jsonschema
except ImportError:
    jsonschema = None

ALERTS = harness.ROOT / "monitoring" / "alerts.yml"
DASHBOARD = runpy.run_path(str(harness.ROOT / "monitoring" / "dashboard.py"))["dashboard"]()
SCHEMA = pathlib.Path(os.environ.get("SMLP_GRAFANA_SCHEMAS", harness.ROOT.parent / "shared" / "tools"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RATES = {"$__rate_interval": "1m", "$__range": "1m", "$run_id": ".*", "$run": ".*"}


def queries(panel):
    for target in panel["targets"]:
        query = target["expr"]
        for name, value in RATES.items():
            query = query.replace(name, value)
        yield target["legendFormat"], query


def alerts():
    """By name: the text of each."""
    return re.findall(r"^ +- alert: (\w+)$(.*?)(?=^ +- alert|\Z)", ALERTS.read_text(), re.M | re.S)


# Alerts, by promtool, of made-up runs: a value each minute in promtool's notation.

def series(metric, values, run="a", rank=0, **labels):
    labels = {"run": run, "run_id": "1", "instance": f"rank-{rank}", **({} if metric == "up" else {"rank": rank}), **labels}
    return {"series": metric + "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}", "values": values}


HEALTHY = [  # also while it starts, bad in its first minutes, started again once, and evaluating for five minutes
    series("up", "1x600"),
    {"series": 'up{job="node"}', "values": "0x600"},
    series("smlp_build_info", "1x600"),
    series("smlp_steps_total", "0x5 0+10x200 0+10x100 1000x5 1010+10x290"),
    series("smlp_restarts_total", "0x206 1x400", reason="signal"),
    series("smlp_restarts_total", "0x206 9x400", reason="stopped"),
    series("smlp_skipped_updates_total", "0+1x600", reason="overflow"),
    series("smlp_spikes_total", "0x300 1x300", reason="skip"),
    series("smlp_checkpoint_failures_total", "0x600", tier="shared"),
    series("smlp_checkpoint_failures_total", "0x300 1x300", tier="local"),
    series("smlp_step_seconds_sum", "0+50x600"),
    series("smlp_checkpoint_seconds_count", "0x110 1x110 2x110 3x110 4x110 5x50", tier="shared"),
    series("smlp_checkpoint_seconds_count", "0x600", tier="local"),
    series("smlp_goodput_seconds_total", "0x20 0+54x580", phase="productive"),
    series("smlp_goodput_seconds_total", "0+6x600", phase="restart"),
    series("smlp_goodput_seconds_total", "0x100 20000x500", phase="waiting"),
    series("smlp_tokens_per_second", "0x40 1000x200 0x40 1000x100 100x5 1000x210"),
    series("smlp_loss", "NaN " * 600),
    series("smlp_phase_seconds_total", "0+50x2 100+2x600", phase="data"),
    series("smlp_phase_seconds_total", "0+50x600", phase="forward"),
    series("smlp_routing_entropy", "0.2x10 0.9x590", block=1),
    series("smlp_dropped_tokens_total", "0+90x2 180+20x598", block=1),
    series("smlp_expert_tokens_total", "0+40x600", block=1, expert=0),
    series("smlp_expert_tokens_total", "0+40x600", block=1, expert=1),
    series("smlp_gpu_busy_share", "0.9x300 0.05x10 0.9x290"),
]
SICK = {  # by name of the run: its series; then the alert, and minutes at which it is silent and speaks
    "hangs": ([series("smlp_steps_total", "0+10x100 1000x300", "hangs", rank) for rank in (0, 1)], "SmlpNoStep", 115, 125),
    "silent": ([series("up", "1x20 0x300", "silent")], "SmlpRankSilent", 24, 30),
    "gone": ([series("smlp_build_info", "1x20 stale", "gone")], "SmlpGone", 25, 35),
    "ended": ([series("smlp_build_info", "1x20 stale", "ended")], "SmlpGone", 90, None),
    "restarts": ([series("smlp_restarts_total", "0x100 1x9 2x300", "restarts", reason="signal"),
                  series("smlp_restarts_total", "0x105 1x300", "restarts", reason="hang")], "SmlpRestartsOften", 108, 112),
    "rewinds": ([series("smlp_spikes_total", "0x100 1x300", "rewinds", reason="rewind")], "SmlpDiverges", 99, 102),
    "infinite": ([series("smlp_skipped_updates_total", "0x100 1x300", "infinite", reason="nonfinite")],
                 "SmlpSkipsUpdates", 99, 102),
    "diverged": ([series("smlp_restarts_total", "0x100 1x300", "diverged", reason="diverged")], "SmlpDiverges", 99, 102),
    "saves": ([series("smlp_checkpoint_failures_total", "0x100 1x300", "saves", 1, tier="shared")], "SmlpSavesFail", 99, 102),
    "unsaved": ([series("smlp_step_seconds_sum", "0+50x400", "unsaved", rank) for rank in (0, 1)] +
                [series("smlp_checkpoint_seconds_count", values, "unsaved", tier=tier)
                 for tier, values in (("shared", "0x400"), ("local", "0+1x400"))], "SmlpSavesNothing", 140, 150),
    "waste": ([series("smlp_goodput_seconds_total", "0+30x400", "waste", phase=phase) for phase in ("productive", "lost_work")],
              "SmlpLittleGoodput", 50, 70),
    "slower": ([series("smlp_tokens_per_second", "1000x200 600x200", "slower", rank) for rank in (0, 1)], "SmlpSlower", 220, 240),
    "data": ([series("smlp_phase_seconds_total", f"0+{seconds}x400", "data", phase=phase)
              for phase, seconds in (("data", 12), ("forward", 48))], "SmlpWaitsForData", 14, 20),
    "collapsed": ([series("smlp_routing_entropy", "0.9x50 0.2x300", "collapsed", block=3)], "SmlpRouterCollapsed", 75, 85),
    "drops": ([series("smlp_dropped_tokens_total", "0+60x300", "drops", block=3),
               *(series("smlp_expert_tokens_total", "0+30x300", "drops", block=3, expert=expert) for expert in (0, 1))],
              "SmlpTokensDropped", 25, 35),
    "idle": ([series("smlp_gpu_busy_share", "0.9x100 0.1x300", "idle", 5)], "SmlpGpuIdle", 120, 140),
}


def firing(run, minute, alerts):
    return {"expr": f'sum by (alertname) (ALERTS{{alertstate="firing",run="{run}"}})', "eval_time": f"{minute}m",
            "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts]}


def each_alert_speaks_of_what_it_is_about_and_of_nothing_else(place):
    ever = {"expr": 'max_over_time(count(ALERTS{alertstate="firing"})[599m:1m]) or vector(0)', "eval_time": "599m",
            "exp_samples": [{"value": 0}]}
    tests = [{"interval": "1m", "input_series": HEALTHY, "promql_expr_test": [ever]}]
    for run, (given, alert, silent, speaks) in SICK.items():
        expected = [firing(run, silent, [])] + ([firing(run, speaks, [alert])] if speaks else [])
        tests.append({"interval": "1m", "input_series": given, "promql_expr_test": expected})
    file = place.path / "alerts_test.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    told = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stdout + told.stderr
    tried = {alert for _, alert, _, speaks in SICK.values() if speaks}
    assert tried == {alert for alert, _ in alerts()}, tried


def no_alert_names_a_label_that_it_lacks(_):
    """Prometheus puts nothing in its place, and says nothing."""
    of_metrics = metrics_document.metrics()
    for alert, text in alerts():
        there = {"run", "run_id"}.union(*(labels for name, (_, labels, _) in of_metrics.items() if re.search(rf"\b{name}", text)))
        lost = {label.strip() for group in re.findall(r"without \((.*?)\)", text) for label in group.split(",")}
        if re.search(r"expr:[^{]*by \(run, run_id\)", text):
            lost |= there - {"run", "run_id"}
        named = set(re.findall(r"\$labels\.(\w+)", text))
        assert named and named <= there - lost, (alert, named)


# The dashboard, by a real Prometheus that watches a real run.

@contextlib.contextmanager
def prometheus(place, run):
    """A function that asks a Prometheus, which watches the run and has the alerts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = place.path / "prometheus"
    folder.mkdir()
    (folder / "prometheus.yml").write_text(json.dumps({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [{"job_name": "smlp", "file_sd_configs": [
            {"files": [str(place.path / run / "targets.json")], "refresh_interval": "1s"}]}]}))

    def ask(path, **parameters):
        try:
            url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
            return json.load(urllib.request.urlopen(url, timeout=10))["data"]
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from error
        except urllib.error.URLError:
            pass
        return None  # not up yet

    with open(folder / "log", "w") as log:
        process = subprocess.Popen(["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                                    f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        harness.wait_until(lambda: ask("query", query="vector(1)"), 30, "Prometheus")
        yield ask
    finally:
        process.terminate()
        process.wait(timeout=30)


def every_panel_shows_something_of_a_real_run(place):
    more = ["--set", "checkpoint.auto=true", "--set", "checkpoint.auto_least_seconds=0.1", "--set",
            f"checkpoint.local_dir={place.path / 'local'}", "--set", "model.kind=gshard"]
    process = place.start(place.job(steps=10**6, every=20, eval_every=10), "run", *more)
    attempts = lambda: {line["attempt"] for line in place.lines("run", "metrics.jsonl")}
    harness.wait_until(attempts, 120, "a step")
    of_gpus = {name for name in metrics_document.metrics() if name.startswith("smlp_gpu_")}
    with prometheus(place, "run") as ask:
        restarts = lambda: any(float(one["value"][1]) > 0 for one in ask("query", query="smlp_restarts_total")["result"])
        harness.wait_until(lambda: ask("query", query="smlp_step > 0")["result"], 60, "a scrape of the first attempt")
        harness.kill(max(pid for pid, command in harness.processes_of(place.path / "run").items()
                         if "smlp-worker train" in command and "mpirun" not in command))
        harness.wait_until(restarts, 60, "a scrape of the second attempt")
        empty = [(panel, legend, query) for panel in PANELS for legend, query in queries(panel)]
        assert len(empty) > 40, empty

        def all_show():
            """What shows nothing yet is asked again, but for GPUs, of which there may be none."""
            nonlocal empty
            empty = [(panel, legend, query) for panel, legend, query in empty
                     if not shows(legend, ask("query", query=query)["result"]) and not any(name in query for name in of_gpus)]
            return not empty

        def shows(legend, result):
            for one in result:
                missing = {label for label in re.findall(r"{{(\w+)}}", legend) if label not in one["metric"]}
                assert not missing, (legend, one)
            return any(math.isfinite(float(one["value"][1])) for one in result)

        harness.wait_until(all_show, 60, lambda: f"{[query for *_, query in empty]}, which show nothing")
        for one in ask("rules")["groups"][0]["rules"]:
            assert one["health"] == "ok", one
        for variable in DASHBOARD["templating"]["list"][1:]:
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()
            values = ask(f"label/{label}/values", **{"match[]": selector.replace("$run", ".*")})
            assert len(values) == 1, (variable, values)
    process.terminate()
    assert process.wait(timeout=120) == 75


def it_asks_for_documented_metrics_alone(_):
    """Of GPUs, which this machine may lack, too."""
    known = metrics_document.metrics()
    parts = {f"{name}_{part}": name for name, (kind, *_) in known.items() if kind == "histogram"
             for part in ("bucket", "sum", "count")}
    texts = [query for panel in PANELS for _, query in queries(panel)] + [ALERTS.read_text()]
    asked = {parts.get(name, name) for text in texts for name in re.findall(r"\bsmlp_\w+", text)}
    assert asked <= set(known), asked - set(known)
    unseen = set(known) - asked
    rates_and_ages_say_it = {"smlp_tokens_total", "smlp_checkpoint_last_step"}
    assert unseen == rates_and_ages_say_it, f"{unseen} are on no panel and in no alert"


def grafana_reads_it(_):
    if not jsonschema or not (SCHEMA / "grafana-dashboard.schema.json").exists():
        print(f"skipped: python3-jsonschema is not installed, or Grafana's schemas are not in {SCHEMA}", file=sys.stderr)
        return
    kinds = {name: json.loads((SCHEMA / f"grafana-{name}.schema.json").read_text())
             for name in ("dashboard", "timeseries-options", "timeseries-fieldconfig")}

    def check(value, kind, definition=None):
        schema = kinds[kind] if definition is None else {**kinds[kind], "$ref": f"#/definitions/{definition}"}
        jsonschema.validate(value, schema)

    for panel in DASHBOARD["panels"]:
        check(panel, "dashboard", "RowPanel" if panel["type"] == "row" else "Panel")
        if panel["type"] == "timeseries":
            check(panel["options"], "timeseries-options")
            check(panel["fieldConfig"]["defaults"]["custom"], "timeseries-fieldconfig")
    for variable in DASHBOARD["templating"]["list"]:
        check(variable, "dashboard", "VariableModel")


def panels_lie_beside_each_other(_):
    taken = [(panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y) for panel in DASHBOARD["panels"]
             for x in range(panel["gridPos"]["w"]) for y in range(panel["gridPos"]["h"])]
    assert len(taken) == len(set(taken)) and max(x for x, _ in taken) < 24, "on each other, or beside the screen"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


if __name__ == "__main__":
    if not shutil.which("prometheus") or not shutil.which("promtool"):
        print("skipped: there is no Prometheus on this machine", file=sys.stderr)
        sys.exit(77)
    harness.main([each_alert_speaks_of_what_it_is_about_and_of_nothing_else, no_alert_names_a_label_that_it_lacks,
                  every_panel_shows_something_of_a_real_run, it_asks_for_documented_metrics_alone, grafana_reads_it,
                  panels_lie_beside_each_other])
