//! Every page: where it is, what it does, what it may be asked.

use super::{
    Ask, Page, certs, clusters, config_dump, health, help, index, listeners, logging, memory,
    runtime, server_info, stats, warming,
};

/// What a path leads to.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) what: &'static str,
    /// Changes something: POST only.
    pub(super) mutates: bool,
    pub(super) parameters: &'static [Parameter],
    pub(super) page: fn(&Ask<'_>) -> Page,
}

/// What a page may be asked in its query.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) kind: ParameterKind,
}

/// What a parameter takes.
pub(super) enum ParameterKind {
    /// Nothing: it is there or not.
    Flag,
    /// One of these words; the first is the default.
    OneOf(&'static [&'static str]),
    /// Any text.
    Text,
}

use ParameterKind::{Flag, OneOf, Text};

/// The page of that path.
pub(super) fn find(path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.path == path)
}

const fn parameter(name: &'static str, what: &'static str, kind: ParameterKind) -> Parameter {
    Parameter { name, what, kind }
}

const fn read(path: &'static str, what: &'static str, page: fn(&Ask<'_>) -> Page) -> Route {
    Route {
        path,
        what,
        mutates: false,
        parameters: &[],
        page,
    }
}

const fn change(path: &'static str, what: &'static str, page: fn(&Ask<'_>) -> Page) -> Route {
    Route {
        mutates: true,
        ..read(path, what, page)
    }
}

/// In the order of the list.
pub(super) const ROUTES: &[Route] = &[
    read("/", "Admin home page", index::page),
    read("/certs", "print certs on machine", certs::page),
    Route {
        parameters: &[
            parameter(
                "filter",
                "Regular expression for filtering clusters by name",
                Text,
            ),
            parameter("format", "Format to use", OneOf(&["text", "json"])),
        ],
        ..read("/clusters", "upstream cluster status", clusters::page)
    },
    Route {
        parameters: &[
            parameter(
                "resource",
                "The resource to dump, such as static_clusters",
                Text,
            ),
            parameter(
                "mask",
                "Fields to show, separated by commas; with a resource, fields of each of its elements",
                Text,
            ),
            parameter(
                "name_regex",
                "Dump only configurations whose names match",
                Text,
            ),
            parameter("include_eds", "Dump endpoints as well", Flag),
        ],
        ..read("/config_dump", "dump current configs", config_dump::page)
    },
    read(
        "/config/warming",
        "what has come from a control plane and waits, and what for",
        warming::page,
    ),
    read(
        "/contention",
        "mutex contention: there is no such measurement",
        server_info::contention,
    ),
    change(
        "/cpuprofiler",
        "there is no profiler inside: use perf or samply on the process",
        server_info::profiler,
    ),
    Route {
        parameters: &[
            parameter(
                "graceful",
                "Tell connections to go, and close listeners after --drain-min-time-s",
                Flag,
            ),
            parameter(
                "skip_exit",
                "Tell connections to go, and never close listeners",
                Flag,
            ),
            parameter(
                "inboundonly",
                "Drain only if all listeners are inbound ones",
                Flag,
            ),
        ],
        ..change("/drain_listeners", "drain listeners", listeners::drain)
    },
    change(
        "/healthcheck/fail",
        "cause the server to fail health checks",
        health::fail,
    ),
    change(
        "/healthcheck/ok",
        "cause the server to pass health checks",
        health::pass,
    ),
    change(
        "/heapprofiler",
        "there is no profiler inside: use heaptrack on the process",
        server_info::profiler,
    ),
    read("/help", "print out list of admin commands", help::page),
    read(
        "/hot_restart_version",
        "print the hot restart compatibility version",
        server_info::hot_restart,
    ),
    read(
        "/init_dump",
        "what is not ready yet",
        server_info::init_dump,
    ),
    Route {
        parameters: &[parameter(
            "format",
            "Format to use",
            OneOf(&["text", "json"]),
        )],
        ..read("/listeners", "print listener info", listeners::page)
    },
    Route {
        parameters: &[parameter(
            "level",
            "desired logging level",
            OneOf(&[
                "", "trace", "debug", "info", "warning", "error", "critical", "off",
            ]),
        )],
        ..change("/logging", "query/change the logging level", logging::page)
    },
    read(
        "/memory",
        "print current allocation/heap usage",
        memory::page,
    ),
    change("/quitquitquit", "exit the server", listeners::quit),
    read(
        "/ready",
        "print server state, return 200 if LIVE, otherwise return 503",
        server_info::ready,
    ),
    change("/reopen_logs", "reopen access logs", listeners::reopen),
    change(
        "/reset_counters",
        "reset all counters to zero",
        stats::reset,
    ),
    read("/runtime", "print runtime values", runtime::page),
    change(
        "/runtime_modify",
        "Adds or modifies runtime values as passed in query parameters or a form. An empty value removes what was added. E.g. ?key1=value1&key2=value2...",
        runtime::modify,
    ),
    read(
        "/server_info",
        "print server version/status information",
        server_info::page,
    ),
    Route {
        parameters: &[
            parameter(
                "usedonly",
                "Only include stats that have counted something",
                Flag,
            ),
            parameter("filter", "Regular expression for filtering stats", Text),
            parameter("invert_filter", "Invert the filter", Flag),
            parameter(
                "format",
                "Format to use",
                OneOf(&["html", "text", "json", "prometheus"]),
            ),
            parameter(
                "type",
                "Stat types to include",
                OneOf(&["All", "Counters", "Histograms", "Gauges", "TextReadouts"]),
            ),
            parameter(
                "histogram_buckets",
                "Histogram bucket display mode",
                OneOf(&["summary", "cumulative", "disjoint", "detailed"]),
            ),
        ],
        ..read("/stats", "print server stats", stats::page)
    },
    Route {
        parameters: &[
            parameter(
                "usedonly",
                "Only include stats that have counted something",
                Flag,
            ),
            parameter(
                "text_readouts",
                "Render texts as gauges of 0 with a label",
                Flag,
            ),
            parameter("filter", "Regular expression for filtering stats", Text),
            parameter("invert_filter", "Invert the filter", Flag),
            parameter(
                "histogram_buckets",
                "Histogram bucket display mode",
                OneOf(&["cumulative", "summary"]),
            ),
        ],
        ..read(
            "/stats/prometheus",
            "print server stats in prometheus format",
            stats::prometheus,
        )
    },
];
