"""Tables 4 and 7 and figures 4, 5 and 7 of the paper in small, from the raw results that paper_comparison.py leaves."""
import json
import math
import pathlib
import shutil
import subprocess

LABELS = {"small-gshard": "GShard", "small-switch": "Switch Transformer", "small-base": "BASE Layers", "small-hash": "HASH Layers",
          "small-smlp": "sMLP, deterministic", "figure7-smlp-partial": "sMLP, partial", "figure7-smlp-leaky": "sMLP, leaky",
          "dense-transformer": "Transformer, 4 heads", "figure4-transformer-1-head": "Transformer, 1 head", "dense-gmlp": "gMLP, 1 head",
          "figure4-gmlp-4-heads": "gMLP, 4 heads", "table7-gmlp-moe-8": "gMLP MoE, 8 experts", "table7-gmlp-moe-16": "gMLP MoE, 16 experts"}
TABLE_4 = ["small-gshard", "small-switch", "small-base", "small-hash", "small-smlp", "figure7-smlp-partial"]
PAPER_4 = {"small-gshard": 19.26, "small-switch": 15.31, "small-base": 18.16, "small-hash": 13.57, "small-smlp": 13.46}
TABLE_7 = ["dense-gmlp", "table7-gmlp-moe-8", "table7-gmlp-moe-16"]
PAPER_7 = {"dense-gmlp": 15.7, "table7-gmlp-moe-8": 17.2, "table7-gmlp-moe-16": 20.5}
FIGURES = {4: ["dense-transformer", "figure4-transformer-1-head", "dense-gmlp", "figure4-gmlp-4-heads", "small-smlp"],
           5: TABLE_4,
           7: ["small-smlp", "figure7-smlp-partial", "figure7-smlp-leaky"]}
PARTIAL = {"figure7-smlp-partial"}   # predicts the last four fifths of a sequence alone


def compact_json(result):
    """One line a key: short enough to keep, and a diff shows what changed."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in result.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read(folder):
    """Results by model, seeds in order."""
    runs = {}
    for file in sorted(folder.glob("*-seed-*.json")):
        result = json.loads(file.read_text())
        runs.setdefault(result["name"], []).append(result)
    return {name: sorted(all_, key=lambda r: r["seed"]) for name, all_ in runs.items()}


def spread(values, digits):
    """mean (least to most)"""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def perplexity(result):
    return result["validation"]["perplexity"]


def step_seconds(result):
    """Processor seconds a step where they were counted: other programs on the machine don't change them."""
    return (result.get("processor_seconds") or result["training_seconds"]) / result["steps"]


def speed(result):
    return result["step_tokens"] / step_seconds(result)


def reached(result, quality):
    """Step and seconds of the first evaluation that is so good, or None."""
    for step, _, loss in result["evaluations"]:
        if math.exp(loss) <= quality:
            return step, step * step_seconds(result)
    return None


def common_quality(runs, names):
    """The worst of the best perplexities that any run of these models evaluated: each of them reached it."""
    bests = [min(math.exp(loss) for _, _, loss in r["evaluations"]) for n in names for r in runs.get(n, []) if r["evaluations"]]
    return max(bests) if bests else None


def order(values):
    return ", ".join(LABELS[name] for name in sorted(values, key=values.get))


def table_4(runs):
    present = [n for n in TABLE_4 if n in runs]
    if not present:
        return []
    quality = common_quality(runs, [n for n in present if n not in PARTIAL]) or common_quality(runs, present)
    lines = ["## Table 4 in small", "",
             f"Perplexity on the whole held-out text after the last step; time and steps to a perplexity of {quality:.2f}, which every run reached. "
             "Mean over seeds (least to most).", "",
             "| model | seeds | parameters | multiply-adds a token | perplexity | minutes to quality | steps to quality | tokens/s | balance | dropped |",
             "|--|--|--|--|--|--|--|--|--|--|"]
    for name in present:
        results = runs[name]
        hits = [hit for hit in (reached(r, quality) for r in results) if hit]
        all_there = len(hits) == len(results)
        balance = [r["expert_balance"] for r in results if r["expert_balance"] is not None]
        dropped = [r["dropped_share"] for r in results if r["dropped_share"] is not None]
        lines.append("| " + " | ".join([
            LABELS[name] + (" *" if name in PARTIAL else ""), str(len(results)), f"{results[0]['parameters'] / 1e6:.2f} M",
            f"{results[0]['forward_macs_per_token'] / 1e6:.3f} M", spread([perplexity(r) for r in results], 2),
            spread([s / 60 for _, s in hits], 2) if all_there else "not reached by all", spread([s for s, _ in hits], 0) if all_there else "-",
            spread([speed(r) for r in results], 0), spread(balance, 2) if balance else "-",
            f"{100 * sum(dropped) / len(dropped):.1f} %" if dropped else "-"]) + " |")
    lines.append("")
    if PARTIAL & set(present):
        lines += ["\\* predicts the last four fifths of each sequence alone: fewer targets a step, each with more text before it.", ""]
    compared = [n for n in present if n in PAPER_4]
    if len(compared) > 1:
        ours = {n: sum(perplexity(r) for r in runs[n]) / len(runs[n]) for n in compared}
        lines += [f"Best to worst here: {order(ours)}.  ", f"Best to worst in the paper: {order({n: PAPER_4[n] for n in compared})}.", ""]
    return lines


def table_7(runs):
    present = [n for n in TABLE_7 if n in runs]
    if not present:
        return []
    lines = ["## Table 7 in small", "", "| model | seeds | perplexity | the paper's, at its scale |", "|--|--|--|--|"]
    for name in present:
        lines.append(f"| {LABELS[name]} | {len(runs[name])} | {spread([perplexity(r) for r in runs[name]], 2)} | {PAPER_7[name]} |")
    return lines + [""]


def dense(runs):
    present = [n for n in FIGURES[4] if n in runs]
    if not present:
        return []
    lines = ["## Dense models (figure 4 in small)", "", "| model | seeds | parameters | perplexity | tokens/s |", "|--|--|--|--|--|"]
    for name in present:
        results = runs[name]
        lines.append(f"| {LABELS[name]} | {len(results)} | {results[0]['parameters'] / 1e6:.2f} M | {spread([perplexity(r) for r in results], 2)} | "
                     f"{spread([speed(r) for r in results], 0)} |")
    return lines + [""]


def curve(results):
    """Of the steps that every seed was evaluated at: step, mean minutes, mean, least and most perplexity."""
    by_step = [{step: (step * step_seconds(r), math.exp(loss)) for step, _, loss in r["evaluations"] if step > 0} for r in results]
    rows = []
    for step in sorted(set.intersection(*map(set, by_step))):
        points = [one[step] for one in by_step]
        values = [p for _, p in points]
        rows.append((step, sum(s for s, _ in points) / len(points) / 60, sum(values) / len(values), min(values), max(values)))
    return rows


def draw(figure, runs, file):
    curves = [(LABELS[n], curve(runs[n])) for n in FIGURES[figure] if n in runs]
    curves = [(label, rows) for label, rows in curves if rows]
    if not curves:
        return False
    script = "set terminal svg size 1200,540 dynamic noenhanced font 'sans,13' background rgb 'white'\n"
    for i, (_, rows) in enumerate(curves):
        script += f"$curve{i} << EOD\n" + "".join(" ".join(f"{v:.6g}" for v in row) + "\n" for row in rows) + "EOD\n"
    top = 1.02 * min(max(max(r[4] for r in rows) for _, rows in curves), 2.5 * max(min(r[2] for r in rows) for _, rows in curves))
    script += f"set multiplot layout 1,2\nset grid\nset ylabel 'validation perplexity'\nset yrange [*:{top:.6g}]\nset style fill transparent solid 0.2 noborder\n"
    for column, label, key in ((1, "steps", "top right"), (2, "training time, minutes", "off")):
        bands = [f"$curve{i} using {column}:4:5 with filledcurves linetype {i + 1} notitle" for i in range(len(curves))]
        means = [f"$curve{i} using {column}:3 with linespoints linetype {i + 1} pointsize 0.4 title '{name}'" for i, (name, _) in enumerate(curves)]
        script += f"set xlabel '{label}'\nset key {key}\nplot " + ", \\\n  ".join(bands + means) + "\n"
    drawn = subprocess.run(["gnuplot"], input=script, capture_output=True, text=True, check=False, timeout=60)
    if drawn.returncode != 0 or "</svg>" not in drawn.stdout:
        raise SystemExit(f"gnuplot drew no figure {figure}: {drawn.stderr[:300]}")
    file.write_text(drawn.stdout)
    return True


def write(folder):
    folder = pathlib.Path(folder)
    runs = read(folder)
    if not runs:
        print(f"there are no results in {folder} yet")
        return
    some = next(iter(runs.values()))[0]
    steps = sorted({r["steps"] for all_ in runs.values() for r in all_})
    lines = ["# The paper's comparison in small: results", "",
             "Written by `scripts/paper_comparison.py` from the raw results beside this file. How the models were made comparable, and what this "
             "can and can't say: [paper.md](../../paper.md).", "",
             f"{sum(map(len, runs.values()))} runs of {' or '.join(map(str, steps))} steps of {some['step_tokens']} tokens, one core each, {some['runs_at_once']} at once on "
             f"{some['processor'] or 'an unnamed processor'}. Times and speeds are in processor seconds, start and evaluations included: other programs share the machine.", ""]
    lines += table_4(runs) + table_7(runs) + dense(runs)
    if shutil.which("gnuplot"):
        for figure in FIGURES:
            name = f"figure{figure}.svg"
            if draw(figure, runs, folder / name):
                lines += [f"## Figure {figure} in small", "", f"![validation perplexity over steps and processor time]({name})", "",
                          "Lines are means over seeds, bands reach from the least to the most.", ""]
    else:
        print("the figures need gnuplot, which is not here: install the package gnuplot-nox (scripts/setup.sh does)")
    (folder / "tables.md").write_text("\n".join(lines))
    print(f"{folder}/tables.md tells of {sum(map(len, runs.values()))} runs")
