"""Every command: where it lives and what `ml-dash --help` says of it. To add one, add a line.

A target is `module:object` inside this package, the object a click command. Its module is imported when the command
is called and not before; a test holds each summary here to the command's own help.
"""

from __future__ import annotations

from typing import NamedTuple


class Listed(NamedTuple):
    """A command as `ml-dash --help` shows it."""

    target: str
    summary: str


SECTIONS: dict[str, dict[str, Listed]] = {
    "Look": {
        "ls": Listed("ls_command:ls", "List experiments with their status, or the topics of one."),
        "info": Listed("info_command:info", "Show a run, or rate, holes, ranges and course of its topics."),
        "plot": Listed("plot_command:plot", "Draw columns of a topic over time."),
        "cat": Listed("read_commands:cat", "Print entries, one a line."),
        "head": Listed("read_commands:head", "Print the first entries of each topic."),
        "tail": Listed("read_commands:tail", "Print the last entries of each topic; with -f, follow a run."),
    },
    "Ask": {
        "find": Listed("find_command:find", "Print the windows of time in which EXPRESSION is true."),
        "sql": Listed("find_command:sql", "Answer a SQL query in which each topic is a table."),
        "doctor": Listed(
            "doctor_command:doctor",
            "Check a recording: rates, jitter, gaps, stamps, NaN, flat sensors, topics that stop early.",
        ),
    },
    "Move": {
        "import": Listed("import_command:import_", "Import TUM, EuRoC, CSV, JSON lines, Parquet or NumPy files."),
        "export": Listed("export_command:export", "Write topics as JSON lines, JSON, CSV, Parquet or motion capture."),
    },
    "Share": {
        "serve": Listed("serve_command:serve", "Serve experiments over HTTP, from a folder or from MongoDB."),
        "token": Listed("token_command:token", "Create, list and revoke the tokens of a server."),
        "push": Listed("push_command:push", "Send experiments that were recorded here to a server."),
        "pull": Listed("pull_command:pull", "Copy experiments from a server into a folder."),
        "sync": Listed("sync_command:sync", "Send what runs could not deliver to their servers."),
        "status": Listed("status_command:status", "Show what is recorded here and not yet on its server."),
    },
    "Look after": {
        "verify": Listed("keep_commands:verify", "Read every line and journal record, and check derived files."),
        "recover": Listed("keep_commands:recover", "Store what processes that died left in their journals."),
        "compact": Listed("keep_commands:compact", "Give every track one line per timestamp, ascending."),
        "archive": Listed("archive_command:archive", "Move what is in MongoDB to S3, compacted."),
        "objects": Listed("archive_command:objects", "Print the archive's objects, for DuckDB, Spark or Ray."),
        "du": Listed("keep_commands:du", "Show what experiments occupy on the disk."),
        "rm": Listed("rm_command:rm", "Delete an experiment, some of its topics, or a stretch of time, for good."),
    },
    "Begin": {
        "demo": Listed("demo_command:demo", "Record a simulated robot arm that picks up a block and places it."),
        "completion": Listed(
            "completion_command:completion",
            "Print the script that lets a shell complete commands, prefixes and topics.",
        ),
    },
}

COMMANDS: dict[str, Listed] = {name: listed for section in SECTIONS.values() for name, listed in section.items()}
