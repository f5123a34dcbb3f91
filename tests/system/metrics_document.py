"""docs/metrics.md as a test reads it, and the names of events that the sources hold."""
import re

import harness

EVENT = re.compile(r'\bevent\(([^,;{]+?),', re.S)  # what a call, or a declaration, has as its first argument
PASSED_ON = {"name", "event", "const char* name", "const std::string& name", "const std::string& kind"}


def names_in(cell):
    return re.findall(r"`([a-z_]+)`", cell)


def tables(heading):
    """The rows under a heading, up to the next of any level, as lists of cells."""
    text = (harness.ROOT / "docs" / "metrics.md").read_text()
    part = re.split(r"^#+ ", text.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.M)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in part.splitlines() if line.startswith("| `")]


def metrics():
    """By name: type, labels, ranks."""
    rows = {names_in(row[0])[0]: (row[1], set(names_in(row[2])), row[4]) for row in tables("Metrics")}
    assert len(rows) == len(tables("Metrics")), "each once"
    return rows


def label_values():
    """By label and metric; "all" where it stands for all that have the label."""
    return {(names_in(label)[0], (names_in(of) or ["all"])[0]): set(names_in(values.split("; `local`")[0])) |
            ({"local"} if "`local`" in values else set()) for label, of, values in tables("Values of labels")}


def keys_of_lines():
    """By key: the names that its meaning holds, those of nested keys among them."""
    return {names_in(row[0])[0]: set(names_in(row[1])) for row in tables("Lines of metrics.jsonl")}


def events():
    """By name: its fields."""
    return {names_in(row[0])[0]: set(names_in(row[2])) if len(row) > 2 else set() for row in tables("Events")}


def events_of_the_sources():
    names = set()
    sources = [path for room in ("worker", "launcher", "commands") for path in (harness.ROOT / room).glob("*.[ch]*")]
    assert len(sources) > 100, sources
    for path in sources:
        text = path.read_text()
        for given in (" ".join(match.split()) for match in EVENT.findall(text)):
            literals = re.findall(r'"([a-z_]+)"', given)
            assert literals or given in PASSED_ON or re.fullmatch(r"\w+_event", given), f"{path}: event({given}, …)"
            names.update(literals)
        names.update(re.findall(r'(?:\{"event", |\bsay\(|_event = )"([a-z_]+)"', text))
    return names
