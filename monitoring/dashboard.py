#!/usr/bin/env python3
"""Prints Grafana's dashboard of smlp's runs, to import or to provision: `monitoring/dashboard.py > smlp.json`.

What each metric means, and how the ranks' pages go together, stands in docs/metrics.md.
"""
import json

RUN = 'run=~"$run",run_id=~"$run_id"'
WINDOW = "[$__rate_interval]"  # Grafana's: never so short that it holds fewer than two scrapes


def alike(metric, more=""):
    """What all ranks say alike, once a run; of what is each rank's own, the greatest."""
    return f"max without (rank, instance) ({metric}{{{RUN}{more}}})"


def mean(metric):
    """A gauge of each rank's own."""
    return f"avg without (rank, instance) ({metric}{{{RUN}}})"


def rate(metric, by="", over="avg"):
    """What a counter grows by in a second: over = avg or sum of what is each rank's own, max of what all say alike."""
    return f"{over} by (run, run_id{by}) (rate({metric}{{{RUN}}}{WINDOW}))"


def growth(metric, time=WINDOW):
    """What a counter that all ranks say alike has grown by in a time."""
    return f"max without (rank, instance) (increase({metric}{{{RUN}}}{time}))"


def each(over, gauge, by="", legend="{{run}}"):
    return {f"{legend}: {name}": f"{name} by (run, run_id{by}) ({gauge})" for name in over}


def a_quantile_of_steps(quantile):
    return f"histogram_quantile({quantile}, {rate('smlp_step_seconds_bucket', ', le', over='sum')})"


SHARED_AGE = f"""time() - ({alike("smlp_checkpoint_last_timestamp_seconds", ',tier="shared"')} > 0)"""
WAITS = f'sum by (run, run_id, rank) (rate(smlp_phase_seconds_total{{{RUN},phase=~"exchange|reduce"}}{WINDOW}))'
TAKEN_BY_EXPERT = rate("smlp_expert_tokens_total", ", block, expert", over="max")
TAKEN = f"sum by (run, run_id, block) ({TAKEN_BY_EXPERT})"
DROPPED = rate("smlp_dropped_tokens_total", ", block", over="max")
WENT_TO = growth("smlp_goodput_seconds_total", "[$__range]")
SAVE_SECONDS = " / ".join(alike(f"smlp_checkpoint_seconds_{part}") for part in ("sum", "count"))

# The rows, each of panels: kind, title, unit, what it says, and its queries by their legends. "now" is a number, "shares" a bar
# for each, of now; "curve" lines, "bars" what happened of late.
ROWS = {
    "Now": [
        ("now", "Step", "none", "The step that was done last.", {"{{run}}": alike("smlp_step")}),
        ("now", "Loss", "none", "Training loss of the last step, in nats a token.", {"{{run}}": alike("smlp_loss")}),
        ("now", "Perplexity on held-out text", "none", "Of the last evaluation.",
         {"{{run}}": f"exp({alike('smlp_validation_loss')})"}),
        ("now", "Tokens a second", "short", "Of all ranks together, in the last step.",
         {"{{run}}": mean("smlp_tokens_per_second")}),
        ("now", "Age of the newest checkpoint", "s", "In the shared directory: what a lost allocation costs.",
         {"{{run}}": SHARED_AGE}),
        ("now", "Ranks that answer", "none", "Of those that targets.json lists.",
         {"{{run}}": f"sum by (run, run_id) (up{{{RUN}}})"}),
    ],
    "Learning": [
        ("curve", "Training loss", "none", "Nats a token.", {"{{run}}": alike("smlp_loss")}),
        ("curve", "Loss on held-out text", "none", "Nats a token, of the last evaluation.",
         {"{{run}}": alike("smlp_validation_loss")}),
        ("curve", "Norm of the gradient", "none", "Of all of it, before clipping.", {"{{run}}": alike("smlp_gradient_norm")}),
        ("curve", "Learning rate", "sci", "Of the last step.", {"{{run}}": alike("smlp_learning_rate")}),
        ("bars", "Skipped updates, spikes", "none", "Gradients that are not finite, overflows of fp16, spikes of the loss.",
         {"{{run}}: {{reason}}": growth("smlp_skipped_updates_total"), "{{run}}: spike, {{reason}}": growth("smlp_spikes_total")}),
        ("curve", "Loss scale", "none", "Of fp16; other precisions have 1.", {"{{run}}": alike("smlp_loss_scale")}),
    ],
    "Speed": [
        ("curve", "Tokens a second", "short", "Of all ranks together.", {"{{run}}": mean("smlp_tokens_per_second")}),
        ("curve", "Seconds of a step", "s", "The middle one, and what one of a hundred exceeds.",
         {"{{run}}: median": a_quantile_of_steps(0.5), "{{run}}: 99 %": a_quantile_of_steps(0.99)}),
        ("curve", "Phases of a step", "percentunit", "Share of the time that each takes, mean of the ranks.",
         {"{{run}}: {{phase}}": rate("smlp_phase_seconds_total", ", phase")}),
        ("curve", "Ranks that wait least", "percentunit", "In exchanges and reductions: a slow one waits for nobody, all for it.",
         {"{{run}}: rank {{rank}}": f"bottomk by (run, run_id) (5, {WAITS})"}),
        ("curve", "Share of the best matrix product", "percentunit", "Useful work over a rank's best product, mean of the ranks.",
         {"{{run}}": mean("smlp_flops_share")}),
        ("shares", "Goodput", "percentunit", "What the seconds in view went to.",
         {"{{run}}: {{phase}}": f"{WENT_TO} / ignoring (phase) group_left sum without (phase) ({WENT_TO})"}),
    ],
    "Experts": [
        ("curve", "Balance", "none", "Tokens of the fullest expert over the mean: 1 is even.",
         {"{{run}}: block {{block}}": alike("smlp_expert_balance")}),
        ("curve", "Routing entropy", "percentunit", "Of the experts' shares: 100 % is even, 0 is one expert for all.",
         {"{{run}}: block {{block}}": alike("smlp_routing_entropy")}),
        ("curve", "Dropped tokens", "percentunit", "Choices that found no room at their expert, of all.",
         {"{{run}}: block {{block}}": f"{DROPPED} / ({DROPPED} + {TAKEN})"}),
        ("curve", "Experts with the fewest tokens", "short", "Tokens a second. One that stays at 0 learns nothing.",
         {"{{run}}: block {{block}}, expert {{expert}}": f"bottomk by (run, run_id, block) (3, {TAKEN_BY_EXPERT})"}),
        ("curve", "Rounds of assignment", "none", "Of the ranks with the most and the fewest; below 0 the limit was met first.",
         each(("max", "min"), f"smlp_assignment_rounds{{{RUN}}}", ", block", "{{run}}: block {{block}}")),
        ("curve", "Routing agreement", "percentunit", "Held-out tokens that evaluation sends where training would.",
         {"{{run}}: block {{block}}": alike("smlp_routing_agreement")}),
        ("curve", "Losses of the routers", "none", "What they add to the loss, weighted; then two kinds, unweighted.",
         {"{{run}}: added": alike("smlp_auxiliary_loss"),
          "{{run}}: balance": alike("smlp_balance_loss"), "{{run}}: z": alike("smlp_z_loss")}),
    ],
    "Checkpoints and restarts": [
        ("curve", "Restarts", "none", "Of the run so far, by why an attempt had ended, and those that went back behind a spike.",
         {"{{run}}: {{reason}}": alike("smlp_restarts_total"), "{{run}}: spike": alike("smlp_spikes_total", ',reason="rewind"')}),
        ("curve", "Age of the newest checkpoint", "s", "In the shared directory, and on the nodes.",
         {"{{run}}: {{tier}}": f"time() - ({alike('smlp_checkpoint_last_timestamp_seconds')} > 0)"}),
        ("curve", "Seconds of a save", "s", "From its begin to its publication, mean of the attempt.",
         {"{{run}}: {{tier}}": SAVE_SECONDS}),
        ("curve", "Waiting for saves", "percentunit", "Share of the time that training waits for them, mean of the ranks.",
         {"{{run}}": rate("smlp_checkpoint_stall_seconds_total")}),
        ("curve", "Bytes of checkpoints", "Bps", "That all ranks write, in saves that hold.",
         {"{{run}}: {{tier}}": rate("smlp_checkpoint_bytes_total", ", tier", over="sum")}),
        ("bars", "Saves that came to nothing", "none", "Whoever failed.",
         {"{{run}}: {{tier}}": growth("smlp_checkpoint_failures_total")}),
        ("curve", "Seconds between saves", "s", "As checkpoint.auto has chosen them.",
         {"{{run}}: {{tier}}": alike("smlp_checkpoint_interval_seconds")}),
        ("curve", "Attempt", "none", "Counted from 1; it grows with each restart.", {"{{run}}": alike("smlp_attempt")}),
    ],
    "GPUs": [
        ("curve", "Memory in use", "percentunit", "By all processes: of the fullest GPU, and of the emptiest.",
         each(("max", "min"), f"smlp_gpu_memory_used_bytes{{{RUN}}} / smlp_gpu_memory_bytes{{{RUN}}}")),
        ("curve", "Busy", "percentunit", "Share of the time in which a kernel runs: of the busiest GPU, and of the idlest.",
         each(("max", "min"), f"smlp_gpu_busy_share{{{RUN}}}")),
        ("curve", "Power", "watt", "Of all GPUs together, and of the one that draws the least.",
         each(("sum", "min"), f"smlp_gpu_power_watts{{{RUN}}}")),
    ],
}

PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
LINES = {"curve": {"drawStyle": "line", "showPoints": "auto"},
         "bars": {"drawStyle": "bars", "fillOpacity": 80}}
LAST = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
NUMBERS = {"now": {"type": "stat", "options": LAST},
           "shares": {"type": "bargauge", "options": {**LAST, "orientation": "horizontal"}}}
CURVES = {"type": "timeseries", "options": {
    "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
    "tooltip": {"mode": "multi", "sort": "none"}}}


def panel(number, place, kind, title, unit, description, queries):
    targets = [{"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend, "datasource": PROMETHEUS}
               for index, (legend, query) in enumerate(queries.items())]
    defaults = {"unit": unit, "custom": LINES[kind]} if kind in LINES else {"unit": unit}
    shown_as = CURVES if kind in LINES else NUMBERS[kind]
    return {"id": number, "title": title, "description": description, "gridPos": place, "datasource": PROMETHEUS,
            "targets": targets, "fieldConfig": {"defaults": defaults, "overrides": []}, **shown_as}


def panels():
    """The rows from the top, each with its panels in lines from the left."""
    made, top = [], 0
    for row, contents in ROWS.items():
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        made.append({"id": len(made) + 1, "type": "row", "title": row, "collapsed": False, "panels": [], "gridPos": place})
        top += 1
        width, height = (4, 4) if contents[0][0] == "now" else (8, 8)
        for index, content in enumerate(contents):
            line, column = divmod(index, COLUMNS // width)
            place = {"x": column * width, "y": top + line * height, "w": width, "h": height}
            made.append(panel(len(made) + 1, place, *content))
        top += (line + 1) * height
    return made


def choice(name, label, query):
    return {"name": name, "label": label, "type": "query", "datasource": PROMETHEUS, "query": query, "refresh": 2, "sort": 1,
            "multi": True, "includeAll": True, "allValue": ".+", "current": {"text": ["All"], "value": ["$__all"]}}


def dashboard():
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    run = choice("run", "Run", "label_values(smlp_build_info, run)")
    run_id = choice("run_id", "Number of the run", 'label_values(smlp_build_info{run=~"$run"}, run_id)')
    return {"title": "smlp", "uid": "smlp", "tags": ["smlp"], "schemaVersion": 39, "version": 1, "editable": True,
            "refresh": "10s", "time": {"from": "now-3h", "to": "now"}, "templating": {"list": [source, run, run_id]},
            "panels": panels()}


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
